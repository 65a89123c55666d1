"""glyph-rt reads very long documents on one box: text to page images to visual tokens to answers.

with Runtime.open() as runtime, runtime.read(text) as document:
    print(document.ask("What is the value of Notice period?").text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glyph_rt.documents import Answer, Document, Progress, Usage
    from glyph_rt.errors import GlyphError
    from glyph_rt.language import Constraint, Quant, Sampling
    from glyph_rt.long import LongText, ReadingRules, Strategy
    from glyph_rt.memory.limits import Limits
    from glyph_rt.memory.plan import Budget
    from glyph_rt.quotes import Quote, Quoting
    from glyph_rt.runtime import Runtime
    from glyph_rt.typeset import Style

__version__ = "0.1.0"

__all__ = [
    "Answer", "Budget", "Constraint", "Document", "GlyphError", "Limits", "LongText", "Progress", "Quant", "Quote", "Quoting",
    "ReadingRules", "Runtime", "Sampling", "Strategy", "Style", "Usage", "__version__",
]  # fmt: skip

_HOMES = {
    "glyph_rt.documents": ("Answer", "Document", "Progress", "Usage"),
    "glyph_rt.errors": ("GlyphError",),
    "glyph_rt.language": ("Constraint", "Quant", "Sampling"),
    "glyph_rt.long": ("LongText", "ReadingRules", "Strategy"),
    "glyph_rt.memory.limits": ("Limits",),
    "glyph_rt.memory.plan": ("Budget",),
    "glyph_rt.quotes": ("Quote", "Quoting"),
    "glyph_rt.runtime": ("Runtime",),
    "glyph_rt.typeset": ("Style",),
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: torch and transformers take seconds, which `glyph-rt --help` need not."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'glyph_rt' has no attribute {name!r}")
