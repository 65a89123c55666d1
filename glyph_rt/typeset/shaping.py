"""Shaping: text that drawing one glyph per code point would get wrong, as clusters of placed glyphs.

HarfBuzz shapes; `regex` knows Unicode's properties and grapheme clusters; the Rust crate unicode-bidi, through python-bidi,
resolves embedding levels.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import regex  # type: ignore[import-untyped]
import uharfbuzz as hb  # type: ignore[import-untyped]
from bidi import get_base_level, get_display  # type: ignore[import-untyped]
from numpy.typing import NDArray

from glyph_rt.errors import StyleError

LONGEST = 32  # code points of a cluster; a longer one, such as a letter with 10^5 marks, is cut to bound the time it takes
_KEPT = 64  # code points; longer units are shaped anew each time, so that the cache is bounded in bytes too
_CONTEXT = 5  # code points HarfBuzz looks at on either side of what it shapes
_MISSING, _NOTHING = -1, -2  # in place of a font: none has the cluster; there is nothing to draw
_FEATURES = {"kern": False, "liga": False}  # the simple path has neither: a word is as wide in a complex paragraph as elsewhere
_INVISIBLE = 0xFFFFFF  # glyph id asked of HarfBuzz for what draws nothing; a font has at most 0xFFFF glyphs

_UNITS = regex.compile(r"[\p{Zs}\t]\p{M}*|[^\p{Zs}\t]+")  # a space stands alone, so that words repeat in the cache
_GRAPHEMES = regex.compile(r"\p{RI}{1,2}[\p{M}\u200d]*|\X")  # flags apart: \X looks back over all flags before, each time
_IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")

# Marks, what draws nothing, right to left, flags and skin tones, conjoining jamo, joining letters, syllabic (Indic) scripts.
_COMPLEX = regex.compile(
    r"[\p{M}\p{DI}\p{bc=R}\p{bc=AL}\p{bc=AN}\p{RI}\p{Emoji_Modifier}\p{hst=L}\p{hst=V}\p{hst=T}\p{jt=D}\p{jt=R}\p{jt=L}"
    r"[\P{InSC=Other}--[\p{Common}\p{Latin}\p{Cn}]]]+",
    regex.VERSION1,
)

_LEVELS_AT_ONCE = 1 << 14  # code points; python-bidi writes hundreds of bytes about each
_RTL = re.compile(  # scripts and controls that raise a level; text with none of them is level 0 throughout
    "[\u0590-\u08ff\u200f\u202a\u202b\u202d\u202e\u2066-\u2068\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_IN_WORD = regex.compile(r"\p{bc=L}(?=\p{bc=L})|\p{bc=R}(?=\p{bc=R})|\p{bc=AL}(?=\p{bc=AL})")
_SEPARATORS = "\t\n\v\r\x1c\x1d\x1e\x1f\x85\u2029"  # bidi classes S and B
_ONE_PARAGRAPH = dict.fromkeys(map(ord, _SEPARATORS), "\t")
_BLANK_KINDS = {"WS", "BN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_BLANK = "".join(c for c in map(chr, (*range(0x3001), 0xFEFF)) if unicodedata.bidirectional(c) in _BLANK_KINDS)
_LEVEL = re.compile(r"Level\(\n\s*(\d+)")


class Cluster(NamedTuple):
    """What is drawn, and advanced over, for `text[start:end]` as one unit. A tuple, because documents have millions."""

    start: int  # code points into the shaped text
    end: int
    font: int  # index into the font chain: the first font with all of the cluster, else the first with its base character
    glyphs: tuple[tuple[int, float, float], ...]
    """(glyph id of that font, x, y): px from the pen at the cluster's left edge, y up. Id 0 is a mark that no font has."""
    advance: float  # px; of a missing cluster, what the first font takes for a glyph it does not have
    missing: bool  # no font of the chain has even its base: no glyphs here, to be drawn as the missing box


@dataclass(frozen=True)
class Shaped:
    """A shaped paragraph."""

    clusters: tuple[Cluster, ...]  # in logical order; they cover the text exactly once
    levels: NDArray[np.uint8]  # [code points] UAX #9 embedding levels of the paragraph as one line
    base_level: int  # 0 left to right, 1 right to left: by the first strong character


def needs_shaping(codepoints: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which of `codepoints` (any shape, below 0x110000) make their paragraph complex: it has to be shaped to be drawn right."""
    return _complex_table()[codepoints]


def embedding_levels(text: str) -> tuple[NDArray[np.uint8], int]:
    """The UAX #9 embedding level of each code point, and the base level. `text` is one paragraph, whatever is in it.

    Exact up to 2^14 code points. A longer text is cut inside words of one direction; that hides from each piece only
    brackets and bidi controls whose partner is in another.
    """
    levels = np.zeros(len(text), np.uint8)
    if not _RTL.search(text):
        return levels, 0
    text = text.translate(_ONE_PARAGRAPH)
    base = int(get_base_level(text))
    at = 0
    while at < len(text):
        cut = _IN_WORD.search(text, at + _LEVELS_AT_ONCE, at + 2 * _LEVELS_AT_ONCE)
        piece = text[at : cut.end() if cut else at + 2 * _LEVELS_AT_ONCE]
        # The levels are given in debug mode only, as printed by Rust: one for each byte of UTF-8, then the paragraph's own.
        found = _LEVEL.findall(get_display(piece, base_dir="LR"[base], debug=True))
        first_bytes = (np.frombuffer(piece.encode(), np.uint8) & 0xC0) != 0x80
        levels[at : at + len(piece)] = np.array(found[:-1], np.uint8)[first_bytes]
        at += len(piece)
    # Rule L1: separators, and blanks before one or at the end, take the base level.
    at = 0
    for part in text.split("\t"):
        levels[at + len(part.rstrip(_BLANK)) : at + len(part) + 1] = base
        at += len(part) + 1
    return levels, base


class Shaper:
    """Paragraphs to clusters, in the first font of a chain that has what is to be drawn. Safe to use from several threads.

    `size` is px per em; advances are unhinted and fractional. With `cell`, every cluster that advances does so by `cell` px,
    twice that if its base is East Asian wide. Words are shaped on their own; the `cache` most recently used are kept.
    Needs one font or more. Raises StyleError when HarfBuzz cannot use a font.
    """

    def __init__(self, font_files: Sequence[Path], size: float, *, cell: int | None = None, cache: int = 1 << 14) -> None:
        self._fonts = [_open(file) for file in font_files]
        self._scales = [size / font.face.upem for font in self._fonts]  # px per font unit
        self._cmaps = [frozenset(font.face.unicodes) for font in self._fonts]
        self._missing_advance = self._fonts[0].get_glyph_h_advance(0) * self._scales[0]
        self._cell = cell
        self._unit = functools.lru_cache(cache)(self._shape_unit)
        self._font = functools.lru_cache(1 << 12)(self._choose_font)

    def shape(self, text: str) -> Shaped:
        """Shape one paragraph. Takes any text without lone surrogates; a line break in it is drawn like other controls."""
        levels, base = embedding_levels(text)
        if not text:
            return Shaped((), levels, base)
        clusters: list[Cluster] = []
        new = tuple.__new__  # skips the argument handling of Cluster(), which would take half the time
        edges = [0, *(np.flatnonzero(levels[1:] != levels[:-1]) + 1).tolist(), len(text)]
        for start, end in itertools.pairwise(edges):
            rtl = bool(levels[start] & 1)
            for word in _UNITS.finditer(text, start, end):
                at = word.start()
                unit = (self._unit if word.end() - at <= _KEPT else self._shape_unit)(word[0], rtl)
                clusters += [new(Cluster, (at + s, at + e, f, g, a, m)) for s, e, f, g, a, m in unit]
        return Shaped(tuple(clusters), levels, base)

    def _shape_unit(self, unit: str, rtl: bool) -> tuple[Cluster, ...]:
        """The clusters of a word, or of a space; `start` and `end` count from its first code point."""
        unit = unit.replace("\t", " ")  # its advance is for the line breaker to replace
        clusters: list[Cluster] = []
        for (font, script, _), group in itertools.groupby(self._itemise(unit), key=lambda piece: piece[2:]):
            pieces = list(group)
            if font == _MISSING:
                clusters += [Cluster(s, e, 0, (), self._advance(unit[s], self._missing_advance), True) for s, e, *_ in pieces]
            else:
                clusters += self._shape_run(unit, pieces[0][0], pieces[-1][1], font, script, rtl)
        return tuple(clusters)

    def _itemise(self, unit: str) -> list[tuple[int, int, int, str, int]]:
        """Grapheme clusters as (start, end, font, script, count of cuts so far); those with equal tails are shaped together."""
        pieces: list[tuple[int, int, int, str, int]] = []
        # What every script uses takes the script before it, or at the beginning the one after it.
        script = next(filter(None, map(_script, unit)), "Zyyy")
        font = cuts = 0
        for grapheme in _GRAPHEMES.finditer(unit):
            for start in range(grapheme.start(), grapheme.end(), LONGEST):
                end = min(start + LONGEST, grapheme.end())
                cuts += start > grapheme.start()
                script = next(filter(None, map(_script, unit[start:end])), script)
                chosen = self._font(unit[start:end])
                if chosen == _NOTHING:  # stays with what is before it, since a joiner shapes its neighbours
                    chosen = max(font, 0)
                font = chosen
                pieces.append((start, end, font, script, cuts))
        return pieces

    def _shape_run(self, unit: str, start: int, end: int, font: int, script: str, rtl: bool) -> list[Cluster]:
        """The clusters of unit[start:end], which is of one font and script, in logical order."""
        before = max(0, start - _CONTEXT)
        buffer = hb.Buffer()
        buffer.add_codepoints([ord(c) for c in unit[before : end + _CONTEXT]], start - before, end - start)
        buffer.direction, buffer.script, buffer.language = "rtl" if rtl else "ltr", script, "und"
        buffer.flags = hb.BufferFlags.BOT if start == 0 else hb.BufferFlags.DEFAULT
        buffer.invisible_glyph = _INVISIBLE
        hb.shape(self._fonts[font], buffer, _FEATURES)
        # Glyphs come in visual order, each with the first code point of its cluster.
        scale = self._scales[font]
        pens: dict[int, int] = {start: 0}
        drawn: dict[int, list[tuple[int, float, float]]] = {start: []}
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            at = info.cluster + before
            pen = pens.get(at, 0)
            pens[at] = pen + place.x_advance
            glyphs = drawn.setdefault(at, [])
            if info.codepoint != _INVISIBLE:
                glyphs.append((info.codepoint, (pen + place.x_offset) * scale, place.y_offset * scale))
        clusters: list[Cluster] = []
        for s, e in itertools.pairwise([*sorted(pens), end]):
            if e - s > LONGEST:
                for cut in range(s, e, LONGEST):
                    clusters += self._shape_run(unit, cut, min(cut + LONGEST, e), font, script, rtl)
            elif _IGNORABLE.fullmatch(unit, s, e):
                clusters.append(Cluster(s, e, font, (), 0.0, False))
            else:
                clusters.append(Cluster(s, e, font, tuple(drawn[s]), self._advance(unit[s], pens[s] * scale), False))
        return clusters

    def _choose_font(self, grapheme: str) -> int:
        """The first font that has the grapheme cluster, composed or not; else the first with its base; else _MISSING."""
        shown = _IGNORABLE.sub("", grapheme)
        if not shown:
            return _NOTHING
        forms = [set(map(ord, form)) for form in (shown, unicodedata.normalize("NFC", shown), unicodedata.normalize("NFD", shown))]
        for font, cmap in enumerate(self._cmaps):
            if any(form <= cmap for form in forms):
                return font
        if unicodedata.category(shown[0]) == "Zs":
            return 0  # HarfBuzz makes any space out of U+0020
        return next((font for font, cmap in enumerate(self._cmaps) if ord(shown[0]) in cmap), _MISSING)

    def _advance(self, base: str, natural: float) -> float:
        """px that a cluster takes: its own advance, or what the grid gives it."""
        if self._cell is None or natural == 0:
            return natural
        return float(self._cell * (2 if unicodedata.east_asian_width(base) in "WF" else 1))


@functools.lru_cache(1 << 14)
def _script(character: str) -> str | None:
    """ISO 15924 code of the script of a character, as HarfBuzz knows it; None for what several scripts use."""
    buffer = hb.Buffer()
    buffer.add_codepoints([ord(character)])
    buffer.guess_segment_properties()
    script: str | None = buffer.script
    return script


def _open(file: Path) -> hb.Font:
    try:
        face = hb.Face(hb.Blob.from_file_path(str(file)))
    except hb.HarfBuzzError as error:
        raise StyleError(f"HarfBuzz cannot read {file} ({error})") from None
    if not face.glyph_count:
        raise StyleError(f"{file} is not a font that HarfBuzz can use")
    return hb.Font(face)


@functools.cache
def _complex_table() -> NDArray[np.bool_]:
    """[0x110000] whether a code point is complex."""
    table = np.zeros(0x110000, np.bool_)
    # The other planes hold ideographs and private use only.
    for first, end in ((0, 0xD800), (0xE000, 0x20000), (0xE0000, 0xE1000)):
        for run in _COMPLEX.finditer("".join(map(chr, range(first, end)))):
            table[first + run.start() : first + run.end()] = True
    return table
