"""The nouns of the typesetter: pages, what measuring finds, and a text laid out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glyph_rt.typeset.style import BLOCK

PATCH = 14  # px
MERGE = 2  # patches along each side of a visual token
# Columns of a table of lines, as raster/lines.h has them.
START, END, PAGE, BASELINE, X, STRETCH, RIGHT, BOTTOM, PARAGRAPH = range(9)


@dataclass(frozen=True)
class Box:
    """A rectangle in px of a page, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Place:
    """Where a stretch of the text stands."""

    page: int  # from 1
    line: int  # on the page, from 0
    start: int  # code points [start, end) of the text, the whole line's
    end: int
    box: Box  # of the line


@dataclass(frozen=True)
class Page:
    """One page, ready for the encoder.

    patches: uint8 [patches, 196], or [patches, 588] when it has colour (red, green, blue planes of each patch). It is *ink* (255 - level;
    paper is 0), in the model's merge-block order; read-only. lines: int64 [lines, 2], the half-open span of the source text, in code
    points, that each line draws.
    """

    number: int  # from 1
    width: int  # px, a multiple of 28
    height: int  # px, a multiple of 28
    patches: NDArray[np.uint8]
    lines: NDArray[np.int64]
    digest: str  # of the style and of what is drawn where; not of the page's number or its place in the text

    @property
    def visual_tokens(self) -> int:
        """What the encoder makes of this page: one token per 28 x 28 px."""
        return len(self.patches) // (MERGE * MERGE)

    def pixels(self) -> NDArray[np.uint8]:
        """The page as people see it: uint8 [height, width], or [height, width, 3] when it has colour; 255 is white."""
        planes = self.patches.shape[1] // (PATCH * PATCH)
        block_rows, block_columns = self.height // BLOCK, self.width // BLOCK
        blocks = self.patches.reshape(block_rows, block_columns, MERGE, MERGE, planes, PATCH, PATCH)
        levels = 255 - blocks.transpose(0, 2, 5, 1, 3, 6, 4).reshape(self.height, self.width, planes)
        return levels[..., 0] if planes == 1 else levels


@dataclass(frozen=True)
class Measure:
    """What typesetting a text will give, known without drawing it."""

    pages: int
    visual_tokens: int
    characters: int  # code points of the text
    missing: dict[int, int]  # code point -> how often no font has it; each is drawn as a box

    @property
    def characters_per_visual_token(self) -> float:
        """Density that no tokenizer can flatter."""
        return self.characters / self.visual_tokens


@dataclass(frozen=True)
class Sheet:
    """A page that is laid out but not drawn."""

    number: int  # from 1
    first: int  # line of the layout
    crop: tuple[int, int, int, int]  # px: width and height of what is kept of the drawn page, and the size it is scaled to

    @property
    def visual_tokens(self) -> int:
        return self.crop[2] // BLOCK * (self.crop[3] // BLOCK)


@dataclass(frozen=True)
class Stretch:
    """A run of whole pages that was composed in one go: text[start:end], lines [first_line, ...) of the layout."""

    start: int
    end: int
    first_line: int
    sheets: tuple[Sheet, ...]


@dataclass(frozen=True)
class Layout:
    """A text broken into lines and pages, ready to be drawn, and a map between the text and its pages."""

    text: str
    lines: NDArray[np.int64]  # [lines, 9]: the columns above; START and END are code points of the text, PAGE counts from 0
    stretches: tuple[Stretch, ...]
    measure: Measure
    ascent: int  # px from the top of a drawn line to its baseline
    line_height: int  # px, as drawn

    def page_starts(self) -> NDArray[np.int64]:
        """[pages] code points that the first lines of its pages begin with."""
        first_rows = np.searchsorted(self.lines[:, PAGE], np.arange(self.measure.pages), side="left")
        return np.asarray(self.lines[first_rows, START])

    def find(self, offset: int) -> Place | None:
        """Where code point `offset` of the text stands, in O(log lines); None for what no line draws, such as a line break."""
        row = int(np.searchsorted(self.lines[:, START], offset, side="right")) - 1
        while row > 0 and self.lines[row, START] == self.lines[row, END] and self.lines[row - 1, END] > offset:
            row -= 1  # past the empty line that a page of the reference chain may begin with
        if row < 0 or offset >= self.lines[row, END]:
            return None
        return self.place(row)

    def find_all(self, start: int, end: int) -> Sequence[Place]:
        """The lines that draw any of text[start:end], in order."""
        if start >= end:
            return []
        first = int(np.searchsorted(self.lines[:, END], start, side="right"))
        last = int(np.searchsorted(self.lines[:, START], end, side="left"))
        return [self.place(row) for row in range(first, last) if self.lines[row, END] > self.lines[row, START]]

    def place(self, row: int) -> Place:
        """Page, number on the page, span and box of line `row` of the layout."""
        line = self.lines[row]
        page = int(line[PAGE])
        first = int(np.searchsorted(self.lines[:, PAGE], page, side="left"))
        sheet = self._sheet(page)
        width, height, out_width, out_height = sheet.crop
        across, down = out_width / width, out_height / height
        top = int(line[BASELINE]) - self.ascent
        left = int(line[X]) >> 32
        box = Box(
            int(left * across),
            int(top * down),
            min(out_width, -int(-max(int(line[RIGHT]), left) * across // 1)),
            min(out_height, -int(-(top + self.line_height) * down // 1)),
        )
        return Place(page + 1, row - first, int(line[START]), int(line[END]), box)

    def _sheet(self, page: int) -> Sheet:
        stretch = self.stretches[bisect_right(self.stretches, page + 1, key=lambda s: s.sheets[0].number) - 1]
        return stretch.sheets[page + 1 - stretch.sheets[0].number]
