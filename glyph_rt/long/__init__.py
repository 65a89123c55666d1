"""Texts longer than the model's window: read whole where they fit, else part by part, or only the pages that a question is about."""

from glyph_rt.long.answer import Citation, LongAnswer, PartAnswer
from glyph_rt.long.reduce import Reduce
from glyph_rt.long.strategy import Choice, Strategy
from glyph_rt.long.text import Inquiry, LongText, ReadingRules

__all__ = ["Choice", "Citation", "Inquiry", "LongAnswer", "LongText", "PartAnswer", "ReadingRules", "Reduce", "Strategy"]
