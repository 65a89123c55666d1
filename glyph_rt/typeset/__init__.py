"""Text to pages: styles, glyphs, and the typesetter over its native core."""

from glyph_rt.typeset.pages import Layout, Measure, Page, Typesetter
from glyph_rt.typeset.style import BLOCK, PRESETS, Style

__all__ = ["BLOCK", "PRESETS", "Layout", "Measure", "Page", "Style", "Typesetter"]
