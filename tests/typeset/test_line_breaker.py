"""The native line breaker against a plain Python one, on any text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.typeset import PRESETS, Typesetter
from glyph_rt.typeset._raster import break_lines, has_ink

MONO, PROPORTIONAL = Typesetter(PRESETS["reader"]), Typesetter(PRESETS["glyph-en-72"])
NEWLINES = "\n\v\f\r\x85\u2028\u2029"
INVISIBLE = "\xad\u200b\ufeff"
TEXTS = st.text(st.sampled_from("abcWi.,-(\u00e9\u4e2d \t" + NEWLINES + INVISIBLE), max_size=200)


def reference_lines(text: str, width: int, advance: dict[str, int], tab: int) -> list[tuple[int, int]]:
    """Greedy breaking, written from the rules in line_breaker.h, one text line at a time."""
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
            step = tab - x % tab if text[i] == "\t" else 0 if text[i] in INVISIBLE else advance[text[i]]
            if text[i] not in " \t" and x + step > width and i > start:
                break
            x, i = x + step, i + 1
        if i >= end:
            return [*lines, (start, end)]
        word = i
        while word > start and text[word - 1] not in " \t":
            word -= 1
        line_end = word
        while line_end > start and text[line_end - 1] in " \t":
            line_end -= 1
        if line_end > start:
            lines.append((start, line_end))
            start = word
        elif word > start:
            start = word  # an indent that left the word no room
        else:
            lines.append((start, i))
            start = i


def advances(typesetter: Typesetter) -> dict[str, int]:
    atlas = typesetter.atlas
    atlas.cover(map(ord, "\u4e2d\u00e9"))
    default = atlas._glyphs[0xFFFD].advance
    return {c: atlas._glyphs[ord(c)].advance if ord(c) in atlas._glyphs else default for c in "abcWi.,-(\u00e9\u4e2d "}


@pytest.mark.parametrize("typesetter", [MONO, PROPORTIONAL], ids=["grid", "proportional"])
@given(text=TEXTS, width=st.integers(0, 120))
def test_breaks_as_the_rules_say(typesetter: Typesetter, text: str, width: int) -> None:
    atlas, _ = typesetter.atlas.cover(map(ord, "\u4e2d\u00e9"))
    known = advances(typesetter)
    found = break_lines(atlas, np.frombuffer(text.encode("utf-32-le"), np.uint32), width * 64, 4)
    assert [tuple(line) for line in found.tolist()] == reference_lines(text, width * 64, known, 4 * known[" "])


@given(text=st.text(max_size=300))
def test_every_inked_character_is_on_exactly_one_line(text: str) -> None:
    layout = MONO.layout(text)
    drawn = [i for start, end in layout.lines.tolist() for i in range(start, end)]
    assert drawn == sorted(set(drawn))
    assert {i for i, c in enumerate(text) if has_ink(ord(c))} <= set(drawn)


def test_leading_spaces_and_tabs_survive() -> None:
    layout = MONO.layout("    indented\n\ttabbed")
    assert layout.lines.tolist() == [[0, 12], [13, 20]]
    page = next(MONO.draw(layout)).pixels()
    assert (page[:14, :28] == 255).all() and (page[:14, 28:35] < 128).any()
    assert (page[14:28, :28] == 255).all() and (page[14:28, 28:35] < 128).any()
