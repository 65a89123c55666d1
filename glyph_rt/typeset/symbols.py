"""Text to symbols: what the native core places, one per code point (raster/symbols.h)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from glyph_rt.typeset._raster import FIXED_SPACE, NEWLINE_MARK, SKIP, Atlas
from glyph_rt.typeset.glyphs import GlyphAtlas
from glyph_rt.typeset.shaping import Shaper, needs_shaping
from glyph_rt.typeset.style import Style

NEWLINES = "\n\v\f\r\x85\u2028\u2029"  # natively, code points that end a line (CR LF ends one)
INVISIBLE = "\xad\u200b\ufeff"  # take no room and draw nothing: soft hyphen, zero-width space, byte-order mark
# What reportlab takes for white space (paragraph.py, _wsc), besides the line feed.
WHITESPACE = "\t\v\f\r\x1c\x1d\x1e\x1f\x85 \u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_PLAIN = bytes([0x0A, *range(0x20, 0x7F)])  # ASCII that is drawn as it is, in either fit; only runs of spaces are not, when trained
_SPACE, _LINE_FEED, _NO_BREAK_SPACE = 0x20, 0x0A, 0xA0
_NEWLINE, _INVISIBLE, _WHITE, _COMPLEX, _FIXED = 1, 2, 4, 8, 16  # bits of a code point's kind


@dataclass(frozen=True)
class Symbols:
    """A stretch of text, ready to be composed and painted. All arrays [code points]."""

    codepoints: NDArray[np.uint32]
    symbols: NDArray[np.uint32]
    levels: NDArray[np.uint8] | None  # bidi levels, bit 7 set in paragraphs from right to left; None: all 0
    missing: NDArray[np.bool_]  # no font has it, so a box is drawn
    atlas: Atlas  # holds every symbol


class Symboliser:
    """Makes symbols for one style. Text of simple scripts takes a few vector operations; paragraphs with anything else are shaped."""

    def __init__(self, style: Style, atlas: GlyphAtlas) -> None:
        self.style, self.atlas = style, atlas
        self._shaper: Shaper | None = None

    def symbols(self, text: str) -> Symbols:
        """`text` has no lone surrogates. It should begin and end where a line may: what stands before and behind it is not seen."""
        codepoints = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        if self._is_plain(text):
            atlas, missing = self.atlas.cover(codepoints)
            return Symbols(codepoints, codepoints, None, missing, atlas)
        kinds = _kinds(text.isascii()).take(codepoints)
        with self.atlas.lock:
            self.atlas.start_anew()
            symbols, levels = codepoints, None
            if self.style.fit == "trained":
                symbols = self._trained(codepoints, kinds)
            elif kinds.any():
                symbols = self._native(codepoints, kinds)
            if (kinds & _COMPLEX).any():
                symbols, levels = self._shaped(text, codepoints, kinds, symbols)
            atlas, missing = self.atlas.cover(symbols)
        return Symbols(codepoints, symbols, levels, missing, atlas)

    def _is_plain(self, text: str) -> bool:
        """Whether every code point is its own symbol: so for most English text, which then takes no more than this look at it."""
        if not text.isascii() or self.style.newline_mark is not None or text.encode().translate(None, _PLAIN):
            return False
        return self.style.fit == "native" or "  " not in text

    def _native(self, codepoints: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> NDArray[np.uint32]:
        symbols = codepoints.copy()
        newline = (kinds & _NEWLINE) != 0
        if self.style.newline_mark is None:
            symbols[newline] = _LINE_FEED  # the breaker takes CR LF for one
        else:
            symbols[newline] = NEWLINE_MARK
            symbols[:-1][(codepoints[:-1] == 0x0D) & (codepoints[1:] == _LINE_FEED)] = SKIP
        symbols[(kinds & _INVISIBLE) != 0] = SKIP
        symbols[codepoints == _NO_BREAK_SPACE] = FIXED_SPACE
        return symbols

    def _trained(self, codepoints: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """As the chain rewrites a text: runs of two and more spaces become no-break spaces, all other white space becomes one space."""
        symbols = codepoints.copy()
        space = codepoints == _SPACE
        white = space | (((kinds & _WHITE) != 0) & (codepoints != _LINE_FEED))
        after_space, before_space = _shifted(space), np.append(space[1:], False)
        fixed = space & (after_space | before_space)
        loose = white & ~fixed
        symbols[loose] = _SPACE
        symbols[loose & _shifted(loose)] = SKIP
        symbols[fixed | (codepoints == _NO_BREAK_SPACE)] = FIXED_SPACE
        symbols[(kinds & _INVISIBLE) != 0] = SKIP
        if self.style.newline_mark is not None:
            mark = codepoints == _LINE_FEED
            symbols[mark] = NEWLINE_MARK
            symbols[loose & _shifted(mark)] = SKIP  # falls together with the mark's own space
        return symbols

    def _shaped(
        self, text: str, codepoints: NDArray[np.uint32], kinds: NDArray[np.uint8], symbols: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8] | None]:
        """Shape every paragraph that has a complex code point."""
        if self._shaper is None:
            self._shaper = Shaper(self.style.font_files, self.atlas.size, cell=self.style.cell_width)
        newline = (codepoints == _LINE_FEED) if self.style.fit == "trained" else (kinds & _NEWLINE) != 0
        edges = [-1, *np.flatnonzero(newline).tolist(), len(text)]
        paragraphs = np.searchsorted(edges, np.flatnonzero(kinds & _COMPLEX), side="left") - 1
        levels = np.zeros(len(text), np.uint8)
        plain = symbols.tolist()
        for paragraph in np.unique(paragraphs).tolist():
            start, end = edges[paragraph] + 1, edges[paragraph + 1]
            shaped = self._shaper.shape(text[start:end])
            levels[start:end] = shaped.levels | (shaped.base_level << 7)
            for cluster in shaped.clusters:
                first, last = start + cluster.start, start + cluster.end
                if cluster.missing or plain[first] in (_SPACE, 0x09, FIXED_SPACE, SKIP, NEWLINE_MARK):
                    continue
                plain[first:last] = [SKIP] * (last - first)
                if cluster.glyphs:
                    plain[first] = self.atlas.cluster(cluster)
        return np.array(plain, np.uint32), levels if levels.any() else None


def _shifted(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the one before has it."""
    return np.concatenate([[False], mask[:-1]])


@cache
def _kinds(ascii_only: bool) -> NDArray[np.uint8]:
    """The kind of every code point: 0 for what is drawn as it is. Making the large table takes some 50 ms, which ASCII never pays."""
    table = np.zeros(0x80 if ascii_only else 0x110000, np.uint8)
    for characters, kind in ((NEWLINES, _NEWLINE), (INVISIBLE, _INVISIBLE), (WHITESPACE, _WHITE), ("\xa0", _FIXED)):
        for codepoint in map(ord, characters):
            if codepoint < len(table):
                table[codepoint] |= kind
    table[_SPACE] = 0  # alone it is drawn as it is
    if not ascii_only:
        table[needs_shaping(np.arange(len(table), dtype=np.uint32)) & (table == 0)] |= _COMPLEX
    return table
