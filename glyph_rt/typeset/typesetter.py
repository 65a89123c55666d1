"""Typesetter: text to pages. The first wing of glyph-rt."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import InputError
from glyph_rt.identity import digest
from glyph_rt.typeset._raster import Carry, Composition, PagePainter, compose
from glyph_rt.typeset.glyphs import ONE_PIXEL, GlyphAtlas
from glyph_rt.typeset.page_cache import PageCache
from glyph_rt.typeset.pages import BASELINE, BOTTOM, END, PAGE, RIGHT, START, Layout, Measure, Page, Sheet, Stretch
from glyph_rt.typeset.pagination import page_starts
from glyph_rt.typeset.style import ALIGNMENTS, Style, channels
from glyph_rt.typeset.symbols import Symboliser, Symbols

RENDERER_VERSION = 3  # raise when any pixel or line break may differ for the same style and text
STRETCH = 1 << 16  # code points composed at a time; bounds the memory of a long text
RUN = 2  # pages that a thread draws at a time, since handing work from thread to thread costs a tenth of a page
_IDEOGRAPH = re.compile("[\u4e00-\u9fff]")  # what makes the reference chain break lines between any two characters


@dataclass(frozen=True)
class _Composed:
    """Whole pages of a stretch of a text, with everything needed to draw them. Lines count code points from `start`."""

    text: str  # text[start:end]
    start: int
    symbols: Symbols
    lines: NDArray[np.int64]
    sheets: tuple[Sheet, ...]  # Sheet.first counts lines from 0 here


class Typesetter:
    """Text to pages of one style. Safe to use from several threads; the native work runs without the GIL.

    `cache_bytes` bounds a cache of drawn pages; 0 means none.
    """

    def __init__(self, style: Style, cache_bytes: int = 0) -> None:
        self.style = style
        self.atlas = GlyphAtlas(style)
        self.cache = PageCache(cache_bytes) if cache_bytes else None
        self._symboliser = Symboliser(style, self.atlas)
        self._composition = {cjk: self._make_composition(cjk) for cjk in (False, True)}
        self._painter = self._make_painter()
        self._identity = digest("style/2", RENDERER_VERSION, style.digest_fields(), self.atlas.digest())

    # -- the public face

    @property
    def rows(self) -> int:
        """Lines on a full page, when there is no space between paragraphs."""
        return int(self.style.text_box[1] / self.style.line_height + 1e-9)

    def measure(self, text: str) -> Measure:
        """Pages, visual tokens and missing glyphs of `text`, exactly what drawing it would give. Keeps nothing of it in memory."""
        pages = tokens = 0
        missing: Counter[int] = Counter()
        for part in self._compose(text, missing):
            pages += len(part.sheets)
            tokens += sum(sheet.visual_tokens for sheet in part.sheets)
        return Measure(pages, tokens, len(text), dict(missing))

    def layout(self, text: str, advance: Callable[[Measure], None] | None = None) -> Layout:
        """Break `text` into lines and pages. Empty text gives one empty page.

        advance: called between two stretches with the measure of what is laid out so far; it may raise, to stop before a text
        that nobody wants any more, or that can never fit, has taken all its time and memory.
        Raises InputError for a text with surrogate code points, which is not Unicode text.
        """
        missing: Counter[int] = Counter()
        tables, stretches, count = [], [], 0
        pages = tokens = done = 0
        for part in self._compose(text, missing):
            if advance is not None and pages:
                advance(Measure(pages, tokens, done, missing))
            pages, tokens = pages + len(part.sheets), tokens + sum(sheet.visual_tokens for sheet in part.sheets)
            done = part.start + len(part.text)
            table = part.lines.copy()
            table[:, [START, END]] += part.start
            tables.append(table)
            sheets = tuple(Sheet(sheet.number, sheet.first + count, sheet.crop) for sheet in part.sheets)
            stretches.append(Stretch(part.start, part.start + len(part.text), count, sheets))
            count += len(table)
        measure = Measure(pages, tokens, len(text), dict(missing))
        return Layout(text, np.concatenate(tables), tuple(stretches), measure, self._ascent, self._line_height)

    def draw(self, layout: Layout, threads: int = 1) -> Iterator[Page]:
        """The pages of a layout, one at a time: a long document never has to be in memory whole."""

        def parts() -> Iterator[_Composed]:
            for stretch, after in zip(layout.stretches, (*layout.stretches[1:], None), strict=True):
                lines = layout.lines[stretch.first_line : None if after is None else after.first_line].copy()
                lines[:, [START, END]] -= stretch.start
                part = layout.text[stretch.start : stretch.end]
                symbols = self._symboliser.symbols(part)
                sheets = tuple(Sheet(s.number, s.first - stretch.first_line, s.crop) for s in stretch.sheets)
                yield _Composed(part, stretch.start, symbols, lines, sheets)

        return self._draw(parts(), threads)

    def pages(self, text: str, threads: int = 1) -> Iterator[Page]:
        """Typeset `text` as a stream: pages are laid out and drawn as they are taken, in memory that does not grow with the text.

        `threads` pages are drawn at a time.
        """
        return self._draw(self._compose(text, Counter()), threads)

    # -- composing

    def _compose(self, text: str, missing: Counter[int]) -> Iterator[_Composed]:
        """The text, stretch by stretch, each ending with a whole page. `missing` counts code points without a glyph."""
        cjk = self.style.fit == "trained" and not text.isascii() and _IDEOGRAPH.search(text) is not None
        composition = self._composition[cjk]
        starts = page_starts(text, self.rows, self._columns) if self.style.pagination == "stable" else np.zeros(0, np.int64)
        at, page, carry, size = 0, 0, Carry(), STRETCH
        while True:
            end = _cut(text, at, size)
            symbols = self._symbols(text, at, end)
            complete = end == len(text)
            breaks = starts[np.searchsorted(starts, at, side="right") : np.searchsorted(starts, end, side="right")] - at
            lines, pages, after, carry_after = compose(
                symbols.atlas, symbols.codepoints, symbols.symbols, symbols.levels, breaks, composition, carry, complete
            )
            if pages == 0 and not complete:
                size *= 2  # a page of this style holds more than that
                continue
            size, carry = STRETCH, carry_after
            end = end if complete else at + after
            if symbols.missing.any():
                missing.update(symbols.codepoints[: end - at][symbols.missing[: end - at]].tolist())
            lines[:, PAGE] += page
            sheets = self._sheets(lines, page, pages, complete, set(breaks.tolist()), end - at)
            yield _Composed(text[at:end], at, symbols, lines, sheets)
            if complete:
                return
            at, page = end, page + pages

    def _symbols(self, text: str, start: int, end: int) -> Symbols:
        try:
            return self._symboliser.symbols(text[start:end])
        except UnicodeEncodeError as error:
            place = start + error.start
            raise InputError(f"character {place} is a lone surrogate (U+{ord(text[place]):04X}); give valid Unicode") from None

    def _sheets(self, lines: NDArray[np.int64], page: int, pages: int, complete: bool, starts: set[int], end: int) -> tuple[Sheet, ...]:
        """What is kept of every page. The last page of a text, or before a page that starts where the text says, may be cut short."""
        edges = np.searchsorted(lines[:, PAGE], np.arange(page, page + pages + 1), side="left").tolist()
        rights, bottoms = lines[:, RIGHT].tolist(), lines[:, BOTTOM].tolist()
        sheets = []
        for n in range(pages):
            first, behind = edges[n], edges[n + 1]
            last = n + 1 == pages
            following = end if last else int(lines[behind, START])
            short = (last and complete) or following in starts
            right, bottom = max(rights[first:behind], default=0), max(bottoms[first:behind], default=0)
            if bottom and self._boxed:  # a visible box is ink too
                right, bottom = self._box_ink(int(lines[first:behind, BASELINE].max()), bottom)
            sheets.append(Sheet(page + n + 1, first, self._crop(right, bottom, short)))
        return tuple(sheets)

    def _box_ink(self, baseline: int, bottom: int) -> tuple[int, int]:
        """Where the ink of a page with visible boxes ends, whose last line stands at `baseline` and whose text ends at `bottom`."""
        edge = self.style.px(self.style.border_padding) + (self._border + 1) // 2  # a stroke lies half outside
        return self._box[1] + edge, max(bottom, baseline - self._ascent + self._line_height + edge)

    def _crop(self, right: int, bottom: int, short: bool) -> tuple[int, int, int, int]:
        """As the chain crops: a margin, in px whatever the dpi, behind the last inked column and counted from the last inked row."""
        style = self.style
        width, height = style.scaled_width, style.drawn[1]
        if bottom:  # a blank page stays whole
            if style.auto_crop_width:
                width = min(width, math.ceil(right * style.scaled_width / style.drawn[0]) + round(style.margin_x))
            if style.auto_crop_last_page and short:
                height = min(height, bottom - 1 + round(style.margin_y))
        if style.fit == "native":  # whole blocks, and no resampling
            width, height = (min(full, size) for full, size in zip(style.drawn, style.encoder_size(width, height), strict=True))
        return width, height, *style.encoder_size(width, height)

    # -- drawing

    def _draw(self, parts: Iterator[_Composed], threads: int) -> Iterator[Page]:
        if threads <= 1:
            for part in parts:
                yield from self._run(part, 0, len(part.sheets))
            return
        waiting: deque[Future[list[Page]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                ahead = pool.submit(next, parts, None)
                while (composed := ahead.result()) is not None:
                    ahead = pool.submit(next, parts, None)  # the next stretch is composed while this one is drawn
                    for first in range(0, len(composed.sheets), RUN):
                        waiting.append(pool.submit(list, self._run(composed, first, first + RUN)))
                        if len(waiting) > 2 * threads:
                            yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _run(self, part: _Composed, first: int, end: int) -> Iterator[Page]:
        for n in range(first, min(end, len(part.sheets))):
            yield self._page(part, n)

    def _page(self, part: _Composed, n: int) -> Page:
        sheet = part.sheets[n]
        lines = part.lines[sheet.first : part.sheets[n + 1].first if n + 1 < len(part.sheets) else None]
        name = self._name(part, sheet, lines)
        patches = self.cache.get(name) if self.cache is not None else None
        if patches is None:
            symbols = part.symbols
            patches, _ = self._painter.paint(symbols.atlas, symbols.symbols, symbols.levels, lines, self.style.tab_width, sheet.crop)
            patches.flags.writeable = False
            if self.cache is not None:
                self.cache.put(name, patches)
        return Page(sheet.number, sheet.crop[2], sheet.crop[3], patches, lines[:, : END + 1] + part.start, name)

    def _name(self, part: _Composed, sheet: Sheet, lines: NDArray[np.int64]) -> str:
        """The page's digest: its style, its text, and where every line of it stands. Whoever knows these knows every pixel."""
        first, last = (int(lines[0, START]), int(lines[-1, END])) if len(lines) else (0, 0)
        placed = lines - (first, first, int(lines[0, PAGE]), 0, 0, 0, 0, 0, 0) if len(lines) else lines
        levels = b"" if part.symbols.levels is None else part.symbols.levels[first:last].tobytes()
        return digest("page/2", self._identity, str(sheet.crop), placed.tobytes(), part.text[first:last], levels)

    # -- the style in the native core's terms

    @property
    def _columns(self) -> float:
        """Characters on a line, roughly and rather too few, since words leave lines short: for pagination that must not depend on exact
        line breaks.
        """
        return max(1.0, 0.8 * self.style.text_box[0] * self.style.dpi / 72 / self.atlas.glyph(ord("n")).advance)

    @property
    def _ascent(self) -> int:
        return round(self.style.font_size * self.style.dpi / 72) if self.style.fit == "trained" else self.atlas.first_baseline

    @cached_property
    def _boxed(self) -> bool:
        """Whether a paragraph's box can be seen."""
        style = self.style
        border = style.border_width > 0 and style.para_border_color != style.page_bg_color
        return border or style.para_bg_color != style.page_bg_color

    @property
    def _border(self) -> int:
        """px"""
        return max(1, self.style.px(self.style.border_width)) if self.style.border_width > 0 else 0

    @property
    def _box(self) -> tuple[int, int]:
        """px: left and right edge of a paragraph's box, less its padding."""
        edge = self.style.px(self.style.margin_x + self.style.frame_padding)
        return edge + self.style.px(self.style.left_indent), self.style.drawn[0] - edge - self.style.px(self.style.right_indent)

    @property
    def _line_height(self) -> int:
        return self.style.px(self.style.line_height)

    def _make_composition(self, cjk: bool) -> Composition:
        style, trained = self.style, self.style.fit == "trained"
        px = style.dpi / 72

        def length(points: float) -> float:
            """pt when trained, as the chain computes; natively whole px, so that every page has its lines at the same rows."""
            return points if trained else float(style.px(points))

        def fixed(points: float) -> int:
            return round((points * px if trained else style.px(points)) * ONE_PIXEL)

        inner = style.frame_padding
        left = style.margin_x + inner + style.left_indent
        width = style.text_box[0] * px if trained else style.drawn[0] - sum(
            map(style.px, (style.margin_x + inner, style.margin_x + inner, style.left_indent, style.right_indent))
        )  # fmt: skip
        top = length(style.margin_y + inner)
        return Composition(
            trained=trained,
            marks=style.newline_mark is not None,
            cjk=cjk,
            left=fixed(left),
            width=round(width * ONE_PIXEL),
            first_indent=fixed(style.first_line_indent),
            alignment=ALIGNMENTS.index(style.alignment),
            tab_columns=style.tab_width,
            top=top,
            height=style.text_box[1] if trained else style.drawn[1] - 2 * top,
            line_height=length(style.line_height),
            ascent=style.font_size if trained else float(self.atlas.first_baseline),
            space_before=length(style.space_before),
            space_after=length(style.space_after),
            scale=px if trained else 1.0,
            page_height=style.page_size[1] if trained else float(style.drawn[1]),
        )

    def _make_painter(self) -> PagePainter:
        style = self.style
        mark = style.newline_mark
        text = (style.font_color, mark[1] if mark else style.font_color)
        return PagePainter(
            width=style.drawn[0],
            height=style.drawn[1],
            scaled_width=style.scaled_width,
            line_height=self._line_height,
            ascent=self._ascent,
            box=self._box,
            box_padding=style.px(style.border_padding),
            border_width=self._border,
            boxes=self._boxed or style.fit == "trained",  # the chain paints every box, also one of the colour of the page
            inks=[_ink(colour) for colour in (style.page_bg_color, style.para_bg_color, style.para_border_color, *text)],
        )


def _ink(colour: str) -> list[int]:
    return [255 - level for level in channels(colour)]


def _cut(text: str, at: int, size: int) -> int:
    """Where to end a stretch that starts at `at`: behind a line break, else behind a space, else anywhere."""
    end = at + size
    if end >= len(text):
        return len(text)
    newline = text.rfind("\n", at + size // 2, end)
    if newline >= 0:
        return newline + 1
    space = text.rfind(" ", at + size // 2, end)
    if space >= 0 and text[space + 1] != " ":
        return space + 1
    return end
