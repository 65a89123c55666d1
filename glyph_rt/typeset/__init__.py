"""Text to pages: styles, glyphs, and the typesetter over its native core."""

from glyph_rt.typeset.pages import Box, Layout, Measure, Page, Place
from glyph_rt.typeset.presets import MODES, PRESETS, THEMES, load_style
from glyph_rt.typeset.style import BLOCK, Style
from glyph_rt.typeset.typesetter import Typesetter

__all__ = ["BLOCK", "MODES", "PRESETS", "THEMES", "Box", "Layout", "Measure", "Page", "Place", "Style", "Typesetter", "load_style"]
