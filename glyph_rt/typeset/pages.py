"""Typesetter: text to pages. The first wing of glyph-rt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import InputError
from glyph_rt.identity import digest
from glyph_rt.typeset._raster import PagePainter, break_lines, has_ink
from glyph_rt.typeset.glyphs import GlyphAtlas
from glyph_rt.typeset.style import BLOCK, Style

RENDERER_VERSION = 1  # raise when any pixel or line break may differ for the same style and text
PATCH = 14  # px
MERGE = 2  # patches along each side of a visual token


@dataclass(frozen=True)
class Page:
    """One page, ready for the encoder.

    patches: uint8 [patches, 196], *ink* (255 - grey; paper is 0), in the model's merge-block order; read-only.
    lines: int32 [lines, 2], the half-open span of the source text, in code points, that each line draws.
    """

    number: int  # from 1
    width: int  # px, a multiple of 28
    height: int  # px, a multiple of 28
    patches: NDArray[np.uint8]
    lines: NDArray[np.int32]
    digest: str  # of the style and the pixels; not of the page's number or its place in the text

    @property
    def visual_tokens(self) -> int:
        """What the encoder makes of this page: one token per 28 x 28 px."""
        return len(self.patches) // (MERGE * MERGE)

    def pixels(self) -> NDArray[np.uint8]:
        """The page as people see it: grey uint8 [height, width], 255 is white."""
        block_rows, block_columns = self.height // BLOCK, self.width // BLOCK
        blocks = self.patches.reshape(block_rows, block_columns, MERGE, MERGE, PATCH, PATCH)
        return 255 - blocks.transpose(0, 2, 4, 1, 3, 5).reshape(self.height, self.width)


@dataclass(frozen=True)
class Measure:
    """What typesetting a text will give, known without drawing it."""

    pages: int
    visual_tokens: int
    characters: int  # code points of the text
    missing: dict[int, int]  # code point -> how often the font lacks it; each is drawn as a box


@dataclass(frozen=True)
class Layout:
    """A text broken into lines, ready to be drawn page by page."""

    codepoints: NDArray[np.uint32]  # [characters]
    lines: NDArray[np.int32]  # [lines, 2]
    measure: Measure


class Typesetter:
    """Text to pages of one style. Safe to use from several threads; the native work runs without the GIL."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.atlas = GlyphAtlas(style)
        self._painter = PagePainter(
            width=style.width,
            height=style.height,
            margin_x=style.px(style.margin_x),
            margin_y=style.px(style.margin_y),
            line_height=style.px(style.line_height),
            first_baseline=self.atlas.first_baseline,
        )
        self._identity = digest("style/1", RENDERER_VERSION, style.digest_fields(), self.atlas.digest())

    @property
    def rows(self) -> int:
        """Lines on a full page."""
        return self._painter.rows

    def layout(self, text: str) -> Layout:
        """Break `text` into lines. Empty text gives one empty page.

        Raises InputError for a text with surrogate code points, which is not Unicode text.
        """
        try:
            codepoints = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        except UnicodeEncodeError as error:
            raise InputError(f"character {error.start} is a lone surrogate (U+{ord(text[error.start]):04X}); give valid Unicode") from None
        distinct, counts = np.unique(codepoints, return_counts=True)
        atlas, lacking = self.atlas.cover(c for c in distinct.tolist() if has_ink(c))
        width = (self.style.width - 2 * self.style.px(self.style.margin_x)) * 64
        lines = break_lines(atlas, codepoints, width, self.style.tab_width)
        pages = max(1, -(-len(lines) // self.rows))
        missing = {int(c): int(n) for c, n in zip(distinct, counts, strict=True) if int(c) in lacking}
        return Layout(codepoints, lines, Measure(pages, pages * self.style.visual_tokens, len(codepoints), missing))

    def draw(self, layout: Layout) -> Iterator[Page]:
        """The pages of a layout, one at a time: a long document never has to be in memory whole."""
        atlas, _ = self.atlas.cover(())
        for number in range(1, layout.measure.pages + 1):
            lines = layout.lines[(number - 1) * self.rows : number * self.rows]
            # An empty text is one blank page: a line of no characters.
            drawn = lines if len(lines) else np.zeros((1, 2), np.int32)
            patches = self._painter.paint(atlas, layout.codepoints, drawn, self.style.tab_width)[0]
            patches.flags.writeable = False
            yield Page(
                number=number,
                width=self.style.width,
                height=self.style.height,
                patches=patches,
                lines=lines,
                digest=digest("page/1", self._identity, patches.tobytes()),
            )

    def measure(self, text: str) -> Measure:
        """Pages, visual tokens and missing glyphs of `text`, exactly what drawing it would give."""
        return self.layout(text).measure

    def pages(self, text: str) -> Iterator[Page]:
        """Typeset `text`: layout, then pages as they are drawn."""
        return self.draw(self.layout(text))
