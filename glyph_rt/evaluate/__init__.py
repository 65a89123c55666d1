"""Measuring how well a runtime reads."""

from glyph_rt.evaluate.reading import Interval, Question, Transcript, ask_all, character_error, transcribe_all, wilson

__all__ = ["Interval", "Question", "Transcript", "ask_all", "character_error", "transcribe_all", "wilson"]
