"""The text behind a document, kept for people: its pages as images, and the places that an answer quotes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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


class Source:
    """A text as a typesetter lays it out. The layout is made when it is first needed, which takes CPU: not on the event loop."""

    def __init__(self, text: str, typesetter: Typesetter) -> None:
        self._text, self._typesetter = text, typesetter
        self.size = len(text) if text.isascii() else len(text.encode())  # bytes of UTF-8
        self._lock = threading.Lock()

    def quotes(self, answer: str) -> list[Quote]:
        """The first places where the text says what the answer says, word for word; empty when it says so nowhere."""
        wanted = answer.strip()
        if len(wanted) < SHORTEST_QUOTE or wanted not in self._text:
            return []
        found: list[Quote] = []
        at = self._text.find(wanted)
        while at >= 0 and len(found) < MOST_CITATIONS:
            end = at + len(wanted)
            found.append(Quote(at, end, self._laid_out().find_all(at, end)))
            at = self._text.find(wanted, end)
        return found

    def pages(self, first: int) -> Iterator[Page]:
        """The pages from number `first` on, laid out and drawn as they are taken."""
        layout = self._laid_out()
        rest = replace(layout, stretches=tuple(s for s in layout.stretches if s.sheets[-1].number >= first))
        yield from (page for page in self._typesetter.draw(rest) if page.number >= first)

    def _laid_out(self) -> Layout:
        with self._lock:  # two calls at once lay it out once
            return self._layout

    @cached_property
    def _layout(self) -> Layout:
        return self._typesetter.layout(self._text)


def png(page: Page) -> bytes:
    """The page as people see it."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(page.pixels()).save(out, "PNG")
    return out.getvalue()
