"""The native line breaker against a plain Python one, on any text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.typeset import PRESETS, Typesetter
from glyph_rt.typeset._raster import Carry, Composition, compose
from glyph_rt.typeset.glyphs import ONE_PIXEL

MONO, PROPORTIONAL = Typesetter(PRESETS["reader"]), Typesetter(PRESETS["glyph-en-72"].changed("native", fit="native"))
NEWLINES = "\n\v\f\r\x85\u2028\u2029"
INVISIBLE = "\xad\u200b\ufeff"
TEXTS = st.text(st.sampled_from("abcWi.,-(\u00e9\u4e2d \t" + NEWLINES + INVISIBLE), max_size=200)


def reference_lines(text: str, width: int, advance: dict[str, int], tab: int) -> list[tuple[int, int]]:
    """Greedy breaking, written from the rules in lines.h, one text line at a time."""
    lines: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = next((i for i in range(start, len(text)) if text[i] in NEWLINES), len(text))
        lines += _wrap(text, start, end, width, advance, tab)
        start = end + (2 if text[end : end + 2] == "\r\n" else 1)
    return lines


def _wrap(text: str, start: int, end: int, width: int, advance: dict[str, int], tab: int) -> list[tuple[int, int]]:
    lines: list[tuple[int, int]] = []
    while True:
        x, i = 0, start
        while i < end:
            if text[i] not in INVISIBLE:
                step = tab - x % tab if text[i] == "\t" else advance[text[i]]
                if text[i] not in " \t" and x + step > width and i > start:
                    break
                x += step
            i += 1
        if i >= end:
            return [*lines, (start, end)]
        word = i
        while word > start and not _may_break(text, start, word):
            word -= 1
        inked = [k for k in range(start, word) if text[k] not in " \t" + INVISIBLE]
        if inked:
            line_end = inked[-1] + 1
            while text[line_end] in INVISIBLE:
                line_end += 1
            lines.append((start, line_end))
            start = word
        elif word > start:
            start = word  # an indent that left the word no room
        else:
            lines.append((start, i))
            start = i


def _may_break(text: str, start: int, i: int) -> bool:
    """Whether a line may be broken in front of text[i]. What is invisible decides nothing."""
    shown = [c for c in text[start:i] if c not in INVISIBLE] or [" "]
    if text[i] in " \t" + INVISIBLE:
        return False
    return shown[-1] in " \t" or ("\u4e2d" in (shown[-1], text[i]) and text[i] not in ".," and shown[-1] != "(")


def narrow(typesetter: Typesetter, text: str, width: int) -> list[tuple[int, int]]:
    """Lines of `text` at `width` px, from the native core."""
    symbols = typesetter._symboliser.symbols(text)
    composition = Composition(
        trained=False, marks=False, cjk=False, left=0, width=width * ONE_PIXEL, first_indent=0, alignment=0, tab_columns=4, top=0,
        height=1e9, line_height=1, ascent=1, space_before=0, space_after=0, scale=1, page_height=1e9,
    )  # fmt: skip
    none = np.zeros(0, np.int64)
    lines, *_ = compose(symbols.atlas, symbols.codepoints, symbols.symbols, symbols.levels, none, composition, Carry(), True)
    return [(int(start), int(end)) for start, end in lines[:, :2]]


def advances(typesetter: Typesetter) -> dict[str, int]:
    """In the native core's unit, 2^-32 px."""
    typesetter.atlas.cover(np.frombuffer("abcWi.,-(\u00e9\u4e2d".encode("utf-32-le"), np.uint32))
    return {c: round(typesetter.atlas.glyph(ord(c)).advance * ONE_PIXEL) for c in "abcWi.,-(\u00e9\u4e2d "}


@pytest.mark.parametrize("typesetter", [MONO, PROPORTIONAL], ids=["grid", "proportional"])
@given(text=TEXTS, width=st.integers(0, 120))
def test_breaks_as_the_rules_say(typesetter: Typesetter, text: str, width: int) -> None:
    known = advances(typesetter)
    assert narrow(typesetter, text, width) == reference_lines(text, width * ONE_PIXEL, known, 4 * known[" "])


@given(text=st.text(max_size=300))
def test_every_inked_character_is_on_exactly_one_line(text: str) -> None:
    layout = MONO.layout(text)
    drawn = [i for start, end in layout.lines[:, :2].tolist() for i in range(start, end)]
    assert drawn == sorted(set(drawn))
    blank = set(NEWLINES + INVISIBLE + " \t")
    assert {i for i, c in enumerate(text) if c not in blank} <= set(drawn)


def test_leading_spaces_and_tabs_survive() -> None:
    layout = MONO.layout("    indented\n\ttabbed")
    assert layout.lines[:, :2].tolist() == [[0, 12], [13, 20]]
    page = next(MONO.draw(layout)).pixels()
    assert (page[:14, :28] == 255).all() and (page[:14, 28:35] < 128).any()
    assert (page[14:28, :28] == 255).all() and (page[14:28, 28:35] < 128).any()


OPENING, CLOSING = "\u300c\uff08", "\u3001\u3002\uff0c\u300d\uff09"
CJK = st.text(st.sampled_from("\u4e2d\u6587\u5b57\u3042" + OPENING + CLOSING), max_size=120)


@given(text=CJK, cells=st.integers(4, 12))
def test_kinsoku(text: str, cells: int) -> None:
    """No line starts with closing punctuation or ends with an opening bracket, unless the line had no other place to break."""
    lines = [text[a:b] for a, b in narrow(MONO, text, cells * 14)]
    assert "".join(lines) == text
    for line, following in itertools.pairwise(lines):
        if following[0] in CLOSING or line[-1] in OPENING:
            assert all(a in OPENING or b in CLOSING for a, b in itertools.pairwise(line))


def test_ideographs_fill_lines() -> None:
    text = "\u4e2d" * 100
    assert [b - a for a, b in narrow(MONO, text, 280)] == [20] * 5
