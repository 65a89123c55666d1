"""GlyphAtlas: the glyphs of one style, rasterised once by FreeType and handed to the native core."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import freetype
import numpy as np

from glyph_rt.errors import StyleError
from glyph_rt.identity import digest
from glyph_rt.typeset._raster import Atlas
from glyph_rt.typeset.style import Style

PRELOADED = tuple(range(0x20, 0x7F)) + tuple(range(0xA0, 0x100))  # printable ASCII and Latin-1
PHASES = 4  # horizontal glyph positions per pixel, as poppler has (shared/facts: parity of rendering)
MISSING = 0xFFFD  # slot of the box drawn for a code point that the font does not have
_LOAD = freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP | freetype.FT_LOAD_TARGET_NORMAL


@dataclass(frozen=True)
class Glyph:
    """One glyph: its advance (26.6 px) and, per phase, (left, top, coverage uint8 [height, width])."""

    advance: int
    bitmaps: tuple[tuple[int, int, np.ndarray], ...]


class GlyphAtlas:
    """Glyphs of one style. Grows by code points; the native atlas it hands out is an immutable snapshot.

    Outlines are unhinted: FreeType's hinter would move stems to whole pixels, which the reference chain does not do.
    Safe to use from several threads.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self._lock = threading.Lock()
        try:
            self._face = freetype.Face(str(style.font_file))
            self._face.set_char_size(0, round(style.font_size * 64), style.dpi, style.dpi)
        except freetype.FT_Exception as error:
            raise StyleError(f"style {style.name!r}: FreeType cannot use {style.font_file} ({error})") from None
        self.phases = 1 if style.cell_width is not None else PHASES
        self._glyphs: dict[int, Glyph] = {}
        self._missing: set[int] = set()
        self._glyphs[MISSING] = self._box()
        self._native: Atlas | None = None
        self.cover(PRELOADED)

    @property
    def first_baseline(self) -> int:
        """px from the top of a line to its baseline: the font's ascent, centred with its descent in the line height."""
        size = self._face.size
        ascent, descent = round(size.ascender / 64), round(-size.descender / 64)
        return int((self.style.px(self.style.line_height) - ascent - descent) // 2 + ascent)

    def cover(self, codepoints: Iterable[int]) -> tuple[Atlas, frozenset[int]]:
        """The native atlas holding at least these code points, and which of all it was asked for the font lacks."""
        with self._lock:
            new = [c for c in codepoints if c not in self._glyphs and c not in self._missing]
            for codepoint in new:
                index = self._face.get_char_index(codepoint)
                if index:
                    self._glyphs[codepoint] = self._rasterise(index)
                else:
                    self._missing.add(codepoint)
            if self._native is None or any(c in self._glyphs for c in new):
                self._native = self._pack()
            return self._native, frozenset(self._missing)

    def digest(self) -> str:
        """Identity of the pixels this atlas draws, over printable ASCII: equal on every box that draws alike."""
        fields: list[str | bytes | int] = [self.first_baseline, self.phases]
        for codepoint in (*range(0x20, 0x7F), MISSING):
            glyph = self._glyphs[codepoint]
            fields += [codepoint, glyph.advance]
            for left, top, coverage in glyph.bitmaps:
                fields += [left, top, *coverage.shape, coverage.tobytes()]
        return digest("atlas/1", *fields)

    def _rasterise(self, index: int) -> Glyph:
        bitmaps = []
        advance = 0
        for phase in range(self.phases):
            self._face.load_glyph(index, _LOAD)
            slot = self._face.glyph
            # linearHoriAdvance is the unrounded advance in 16.16 px.
            advance = (slot.linearHoriAdvance + 512) >> 10
            freetype.FT_Outline_Translate(ctypes.byref(slot.outline._FT_Outline), phase * 64 // self.phases, 0)
            slot.render(freetype.FT_RENDER_MODE_NORMAL)
            bitmap = slot.bitmap
            rows = np.array(bitmap.buffer, np.uint8).reshape(bitmap.rows, max(bitmap.pitch, 0))
            bitmaps.append((slot.bitmap_left, slot.bitmap_top, np.ascontiguousarray(rows[:, : bitmap.width])))
        return Glyph(self._advance(advance), tuple(bitmaps))

    def _advance(self, font_advance: int) -> int:
        return font_advance if self.style.cell_width is None else self.style.cell_width * 64

    def _box(self) -> Glyph:
        """A hollow rectangle, 1 px thin, half an em wide: visibly not a character."""
        em = max(4, self.style.px(self.style.font_size))
        width = max(3, (self.style.cell_width or em // 2 + 1) - 1)
        box = np.full((em * 3 // 4, width), 255, np.uint8)
        box[1:-1, 1:-1] = 0
        return Glyph(self._advance((width + 1) * 64), tuple((0, len(box), box) for _ in range(self.phases)))

    def _pack(self) -> Atlas:
        codepoints = sorted(self._glyphs)
        glyphs = [self._glyphs[c] for c in codepoints]
        bitmaps = [bitmap for glyph in glyphs for bitmap in glyph.bitmaps]
        sizes = np.array([coverage.size for _, _, coverage in bitmaps], np.int64)
        return Atlas(
            codepoints=np.array(codepoints, np.uint32),
            advances=np.array([glyph.advance for glyph in glyphs], np.int32),
            metrics=np.array([(l, t, c.shape[1], c.shape[0]) for l, t, c in bitmaps], np.int32).reshape(-1, 4),
            offsets=np.cumsum(sizes) - sizes,
            coverage=np.concatenate([coverage.ravel() for _, _, coverage in bitmaps] or [np.zeros(0, np.uint8)]),
            phases=self.phases,
            missing=codepoints.index(MISSING),
        )
