"""Text to pages: styles, glyphs, and the typesetter over its native core."""

from glyph_rt.typeset.pages import Layout, Measure, Page, Typesetter
from glyph_rt.typeset.style import PRESETS, Style

__all__ = ["PRESETS", "Layout", "Measure", "Page", "Style", "Typesetter"]
