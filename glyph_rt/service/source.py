"""What people are shown of a document: its pages as images, and the places that an answer quotes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glyph_rt.typeset import Layout, Page, Place, Typesetter

MOST_CITATIONS = 8  # of one answer
SHORTEST_QUOTE = 2  # characters: a single letter or digit stands everywhere and shows nothing


@dataclass(frozen=True)
class Quote:
    """Code points [start, end) of the text, which an answer repeats, and the lines that draw them."""

    start: int
    end: int
    places: Sequence[Place]


def quotes(layout: Layout, answer: str) -> list[Quote]:
    """The first places where the text says what the answer says, word for word; empty when it says so nowhere."""
    wanted = answer.strip()
    if len(wanted) < SHORTEST_QUOTE:
        return []
    found: list[Quote] = []
    at = layout.text.find(wanted)
    while at >= 0 and len(found) < MOST_CITATIONS:
        end = at + len(wanted)
        found.append(Quote(at, end, layout.find_all(at, end)))
        at = layout.text.find(wanted, end)
    return found


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
