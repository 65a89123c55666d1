"""glyph-rt reads very long documents on one box: text to page images to visual tokens to answers."""

from glyph_rt.documents import Answer, Document, Progress, Usage
from glyph_rt.errors import GlyphError
from glyph_rt.language import Sampling
from glyph_rt.memory import Limits
from glyph_rt.runtime import Runtime
from glyph_rt.typeset import Style

__version__ = "0.1.0"

__all__ = ["Answer", "Document", "GlyphError", "Limits", "Progress", "Runtime", "Sampling", "Style", "Usage", "__version__"]
