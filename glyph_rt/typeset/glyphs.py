"""GlyphAtlas: the glyphs of one style, rasterised once by FreeType and handed to the native core."""

from __future__ import annotations

import ctypes
import threading
import unicodedata
from dataclasses import dataclass

import freetype
import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import StyleError
from glyph_rt.identity import digest
from glyph_rt.typeset._raster import FIXED_SPACE, NEWLINE_MARK, SHAPED, SKIP, SYMBOLS, Atlas
from glyph_rt.typeset.shaping import Cluster
from glyph_rt.typeset.style import Style

PRELOADED = np.array([*range(0x20, 0x7F), *range(0xA0, 0x100)], np.uint32)  # printable ASCII and Latin-1
PHASES = 4  # horizontal glyph positions per pixel, as poppler has (shared/facts: parity of rendering)
ONE_PIXEL = 1 << 32  # of the native core's fixed-point advances
MOST_SHAPED = 1 << 15  # clusters kept before the atlas starts anew: a stretch of text holds at most twice as many
_UNKNOWN, _KNOWN, _MISSING = 0, 1, 2
_LOAD = freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP | freetype.FT_LOAD_TARGET_NORMAL

Bitmap = tuple[int, int, NDArray[np.uint8]]  # left, top (px from the pen), coverage [height, width]


@dataclass(frozen=True)
class Glyph:
    """One glyph: its advance in px and a bitmap per phase. `ink` 0 is the text's colour, 1 the newline mark's."""

    advance: float
    bitmaps: tuple[Bitmap, ...]
    ink: int = 0


class GlyphAtlas:
    """Glyphs of one style, from the first font of its chain that has them. Grows as symbols are asked for; the native atlas it hands out
    is an immutable snapshot.

    Outlines are unhinted: FreeType's hinter would move stems to whole pixels, which the reference chain does not do. A code point
    that no font has is drawn as a visible box. Safe to use from several threads.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.lock = threading.RLock()  # held while symbols of a text are made, so that the atlas does not start anew in between
        self.size = style.font_size * style.dpi / 72  # px per em
        # The chain stretches what it has drawn; natively the outlines are stretched.
        self._stretch = style.horizontal_scale if style.fit == "native" else 1.0
        self._faces = [_open(style, str(file), self.size, self._stretch) for file in style.font_files]
        self.phases = 1 if style.cell_width is not None else PHASES
        self._native: Atlas | None = None
        self._restart()

    @property
    def first_baseline(self) -> int:
        """px from the top of a line to its baseline, natively: the font's ascent, centred with its descent in the line height."""
        size = self._faces[0].size
        ascent, descent = round(size.ascender / 64), round(-size.descender / 64)
        return int((self.style.px(self.style.line_height) - ascent - descent) // 2 + ascent)

    def cover(self, symbols: NDArray[np.uint32]) -> tuple[Atlas, NDArray[np.bool_]]:
        """The native atlas holding at least these symbols, and which of them no font has."""
        with self.lock:
            states = self._states.take(symbols)
            if (states == _UNKNOWN).any():
                for codepoint in np.unique(symbols[states == _UNKNOWN]).tolist():
                    self._add(codepoint)
                states = self._states.take(symbols)
                self._native = None
            if self._native is None:
                self._native = self._pack()
            return self._native, states == _MISSING

    def cluster(self, cluster: Cluster) -> int:
        """The symbol that draws a shaped cluster. Call it with `lock` held, and `start_anew` before the text it is part of."""
        key = (cluster.font, cluster.glyphs, cluster.advance)
        symbol = self._shaped.get(key)
        if symbol is None:
            symbol = self._shaped[key] = SHAPED + len(self._shaped)
            phases = tuple(self._compose(cluster, phase) for phase in range(self.phases))
            self._set(symbol, Glyph(cluster.advance * self._stretch, phases))
            self._native = None
        return symbol

    def start_anew(self) -> None:
        """Drop all glyphs when there are so many shaped ones that another stretch of text might not find room. Bounds the atlas."""
        if len(self._shaped) > MOST_SHAPED or len(self._glyphs) > 4 * MOST_SHAPED:
            self._restart()

    def digest(self) -> str:
        """Identity of the pixels this atlas draws, over printable ASCII: equal on every box that draws alike."""
        fields: list[str | bytes | int] = [self.first_baseline, self.phases]
        for codepoint in range(0x20, 0x7F):
            glyph = self._glyphs[codepoint]
            fields += [codepoint, _fixed(glyph.advance)]
            for left, top, coverage in glyph.bitmaps:
                fields += [left, top, *coverage.shape, coverage.tobytes()]
        return digest("atlas/2", *fields)

    def glyph(self, symbol: int) -> Glyph:
        """What a symbol that was covered is drawn as."""
        return self._glyphs[symbol]

    # -- making glyphs

    def _restart(self) -> None:
        self._glyphs: dict[int, Glyph] = {}
        self._shaped: dict[tuple[object, ...], int] = {}
        self._states = np.zeros(SYMBOLS, np.uint8)
        self._states[[0x09, 0x0A, SKIP, FIXED_SPACE]] = _KNOWN
        self._native = None
        if self.style.newline_mark is not None:
            self._set(NEWLINE_MARK, self._mark(self.style.newline_mark[0]))
        self.cover(PRELOADED)

    def _set(self, symbol: int, glyph: Glyph, state: int = _KNOWN) -> None:
        self._glyphs[symbol] = glyph
        self._states[symbol] = state

    def _add(self, codepoint: int) -> None:
        for face in self._faces:
            index = face.get_char_index(codepoint)
            if index:
                wide = unicodedata.east_asian_width(chr(codepoint)) in "WF"
                self._set(codepoint, Glyph(self._advance(face, index, wide), self._bitmaps(face, index)))
                return
        self._set(codepoint, self._box(codepoint), _MISSING)

    def _advance(self, face: freetype.Face, index: int, wide: bool = False) -> float:
        """px, from unscaled units: FreeType would round to 1/64 px."""
        if self.style.cell_width is not None:
            return float(self.style.cell_width * (2 if wide else 1))
        face.load_glyph(index, freetype.FT_LOAD_NO_SCALE)
        em = face.glyph.advance.x / face.units_per_EM
        if self.style.fit == "trained":  # as reportlab prints it into the PDF: thousandths of an em, four decimals
            em = round(em * 1000, 4) / 1000
        return float(em * self.size * self._stretch)

    def _bitmaps(self, face: freetype.Face, index: int) -> tuple[Bitmap, ...]:
        return tuple(_rasterise(face, index, phase * 64 // self.phases, 0) for phase in range(self.phases))

    def _compose(self, cluster: Cluster, phase: int) -> Bitmap:
        """The glyphs of a cluster in one bitmap."""
        face = self._faces[cluster.font]
        shift = phase * 64 // self.phases
        parts = [_rasterise(face, index, shift + round(x * self._stretch * 64), round(y * 64)) for index, x, y in cluster.glyphs]
        parts = [part for part in parts if part[2].size]
        if len(parts) < 2:
            return parts[0] if parts else (0, 0, np.zeros((0, 0), np.uint8))
        left, top = min(p[0] for p in parts), max(p[1] for p in parts)
        right = max(p[0] + p[2].shape[1] for p in parts)
        bottom = min(p[1] - p[2].shape[0] for p in parts)
        whole = np.zeros((top - bottom, right - left), np.uint8)
        for part_left, part_top, coverage in parts:
            window = whole[top - part_top :, part_left - left :][: coverage.shape[0], : coverage.shape[1]]
            np.maximum(window, coverage, out=window)
        return left, top, whole

    def _mark(self, text: str) -> Glyph:
        """A newline mark as one glyph in its own ink."""
        glyphs, pen = [], 0.0
        face = self._faces[0]
        for character in text:
            index = face.get_char_index(character)
            glyphs.append((index, pen / self._stretch, 0.0))
            pen += self._advance(face, index)
        cluster = Cluster(0, 1, 0, tuple(glyphs), pen, False)
        return Glyph(pen, tuple(self._compose(cluster, phase) for phase in range(self.phases)), ink=1)

    def _box(self, codepoint: int) -> Glyph:
        """What stands for a code point without a glyph. Trained: the font's own .notdef, as the chain draws it. Else a hollow rectangle,
        1 px thin, half an em wide, or an em for East Asian wide characters: visibly not a character.
        """
        if self.style.fit == "trained":
            bitmaps = self._bitmaps(self._faces[0], 0)
            if all(coverage.any() for _, _, coverage in bitmaps):
                return Glyph(self._advance(self._faces[0], 0), bitmaps)
        wide = unicodedata.east_asian_width(chr(codepoint)) in "WF"
        em = max(4, round(self.size))
        width = max(3, round((self.style.cell_width or em // 2 + 1) * (2 if wide else 1) * self._stretch) - 1)
        box = np.full((em * 3 // 4, width), 255, np.uint8)
        box[1:-1, 1:-1] = 0
        return Glyph(float(width + 1), tuple((0, len(box), box) for _ in range(self.phases)))

    def _pack(self) -> Atlas:
        symbols = sorted(self._glyphs)
        glyphs = [self._glyphs[symbol] for symbol in symbols]
        bitmaps = [bitmap for glyph in glyphs for bitmap in glyph.bitmaps]
        sizes = np.array([coverage.size for _, _, coverage in bitmaps], np.int64)
        return Atlas(
            symbols=np.array(symbols, np.uint32),
            advances=np.array([_fixed(glyph.advance) for glyph in glyphs], np.int64),
            inks=np.array([glyph.ink for glyph in glyphs], np.uint8),
            metrics=np.array([(l, t, c.shape[1], c.shape[0]) for l, t, c in bitmaps], np.int32).reshape(-1, 4),
            offsets=np.cumsum(sizes) - sizes,
            coverage=np.concatenate([coverage.ravel() for _, _, coverage in bitmaps]),
            phases=self.phases,
            missing=symbols.index(0x20),
            visible=self.style.visible_coverage,
        )


def _fixed(px: float) -> int:
    return round(px * ONE_PIXEL)


def _open(style: Style, file: str, size: float, stretch: float) -> freetype.Face:
    try:
        face = freetype.Face(file)
        face.set_char_size(round(size * stretch * 64), round(size * 64), 72, 72)
    except freetype.FT_Exception as error:
        raise StyleError(f"style {style.name!r}: FreeType cannot use {file} ({error})") from None
    return face


def _rasterise(face: freetype.Face, index: int, x: int, y: int) -> Bitmap:
    """One glyph, moved by x and y (26.6 px, y up)."""
    face.load_glyph(index, _LOAD)
    slot = face.glyph
    freetype.FT_Outline_Translate(ctypes.byref(slot.outline._FT_Outline), x, y)
    slot.render(freetype.FT_RENDER_MODE_NORMAL)
    raw = slot.bitmap._FT_Bitmap
    rows, width, pitch = raw.rows, raw.width, max(raw.pitch, 0)
    if rows * pitch == 0:
        return slot.bitmap_left, slot.bitmap_top, np.zeros((0, 0), np.uint8)
    # Copied in one go: freetype-py's `buffer` makes a list of Python numbers, which took most of the time of a Chinese page.
    coverage = np.frombuffer(ctypes.string_at(raw.buffer, rows * pitch), np.uint8).reshape(rows, pitch)
    return slot.bitmap_left, slot.bitmap_top, np.ascontiguousarray(coverage[:, :width])
