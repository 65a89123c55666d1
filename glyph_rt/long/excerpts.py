"""Where the pages of a text begin, and excerpts of it made of whole pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import LimitError
from glyph_rt.nearby import Span
from glyph_rt.typeset import Layout, Measure

EASE = 4  # a part may end up to this share of the window early (1 / EASE), where a source line does
MOST_PLACES = 8  # of one quote


@dataclass(frozen=True)
class PageMap:
    """A text, and where each of its pages begins."""

    text: str = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)  # [pages] code points, ascending; the first is 0
    measure: Measure

    @classmethod
    def of(cls, layout: Layout) -> PageMap:
        """Of a layout, whose lines are not kept."""
        starts = layout.page_starts()
        starts[0] = 0  # white space that no line draws
        return cls(layout.text, starts, layout.measure)

    def __len__(self) -> int:
        return len(self.starts)

    def begin(self, page: int) -> int:
        """First code point of a page, counted from 0; the end of the text for the page behind the last."""
        return int(self.starts[page]) if page < len(self) else len(self.text)

    def span(self, first: int, end: int) -> Span:
        """Of pages [first, end), counted from 0."""
        return Span(self.begin(first), self.begin(end))

    def page_of(self, offset: int) -> int:
        """Number, from 1, of the page that a code point is on."""
        return int(np.searchsorted(self.starts, offset, side="right"))

    def whole_line(self, page: int) -> bool:
        """Whether a source line begins with this page, counted from 0: drawn from there on, its pages look as they do in the whole."""
        at = self.begin(page)
        return at in (0, len(self.text)) or self.text[at - 1] == "\n"


@dataclass(frozen=True)
class Excerpt:
    """Stretches of a whole text, in their order."""

    whole: str = field(repr=False)
    spans: tuple[Span, ...]

    @classmethod
    def pages(cls, pages: PageMap, chosen: Sequence[int]) -> Excerpt:
        """Of some pages, counted from 0, in the order of the text. Neighbours make one stretch."""
        spans: list[Span] = []
        for page in sorted(chosen):
            span = pages.span(page, page + 1)
            if spans and spans[-1].end == span.start:
                span = Span(spans.pop().start, span.end)
            spans.append(span)
        return cls(pages.text, tuple(spans))

    @cached_property
    def text(self) -> str:
        """To be read by itself: every stretch begins a line."""
        pieces = [self.whole[span.start : span.end] for span in self.spans]
        return "".join(piece if piece.endswith("\n") else piece + "\n" for piece in pieces[:-1]) + pieces[-1]

    def find(self, quote: str) -> tuple[Span, ...]:
        """The first places, in the whole text, where the excerpt says `quote` word for word, white space around it aside."""
        wanted = quote.strip()
        found: list[Span] = []
        for span in self.spans:
            at = self.whole.find(wanted, span.start, span.end) if wanted else -1
            while at >= 0 and len(found) < MOST_PLACES:
                found.append(Span(at, at + len(wanted)))
                at = self.whole.find(wanted, at + len(wanted), span.end)
        return tuple(found)


def cut(pages: PageMap, window: int, fits: Callable[[str], bool], most: int) -> list[Excerpt]:
    """The text in parts of at most `window` pages that overlap by about a page, so that what stands across a cut is whole in one of them.

    A part begins and ends where pages of the whole do, with a source line where there is one within reach: an edit then changes the parts
    it touches, and pages that two parts share are the same pages. fits: whether a part, typeset by itself, can be read.

    Raises LimitError for more than `most` parts, and where not even a page by itself fits.
    """
    overlap = 1 if window > 2 else 0
    if len(pages) > window + (most - 1) * max(1, window - overlap):  # before any part is typeset
        _refuse(pages, -(-len(pages) // window), most)
    parts: list[Excerpt] = []
    first = 0
    while True:
        end = _line_start(pages, min(len(pages), first + window), first + window - window // EASE)
        while not fits((part := Excerpt(pages.text, (pages.span(first, end),))).text):
            if end == first + 1:
                raise LimitError(
                    f"page {end} alone does not fit the window; raise --window or --kv-bytes", public="a page does not fit the window"
                )
            end -= 1
        parts.append(part)
        if len(parts) > most:
            _refuse(pages, len(parts), most)
        if end == len(pages):
            return parts
        first = max(first + 1, _line_start(pages, end - overlap, end - window // EASE) if overlap else end)


def _line_start(pages: PageMap, latest: int, earliest: int) -> int:
    """The last page not behind `latest` that begins with a source line; `latest` if there is none from `earliest` on."""
    return next((page for page in range(latest, earliest - 1, -1) if pages.whole_line(page)), latest)


def _refuse(pages: PageMap, parts: int, most: int) -> None:
    told = f"{len(pages):,} pages come to at least {parts:,} parts of what can be read at a time, and the limit is {most:,}"
    raise LimitError(f"{told}; raise --parts or --window, or choose --strategy retrieve_pages", public=told, field="text")
