"""What people are shown of a document: its pages as images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glyph_rt.typeset import Layout, Page, Typesetter


def draw_from(typesetter: Typesetter, layout: Layout, first: int) -> Iterator[Page]:
    """The pages from number `first` on, drawn as they are taken."""
    rest = replace(layout, stretches=tuple(s for s in layout.stretches if s.sheets[-1].number >= first))
    return (page for page in typesetter.draw(rest) if page.number >= first)


def png(page: Page) -> bytes:
    """The page as people see it."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(page.pixels()).save(out, "PNG")
    return out.getvalue()
