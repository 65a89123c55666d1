"""All of Unicode through the typesetter: nothing crashes, nothing is silent, and complex scripts come out shaped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.typeset import PRESETS, Typesetter, load_style
from glyph_rt.typeset.glyphs import MOST_SHAPED, GlyphAtlas

STYLES = {
    "reader": Typesetter(PRESETS["reader"]),
    "trained": Typesetter(PRESETS["glyph-en-72"]),
    "marks": Typesetter(load_style("glyph-en-72+fast")),
    "stable": Typesetter(PRESETS["reader"].changed("stable", pagination="stable")),
    "justified": Typesetter(load_style("glyph-en-72+document")),
}
HOSTILE = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            "\0\n\r\t\u2028\u2029\x85 \u00a0\u200b\u200d\ufeff\u202e\u2066\u2069\u0301\u05d0\u0628\u0644\u0627\u4e2d\u3002\U0001f468\ufe0f"
        ),
    ),
    max_size=400,
)


@pytest.mark.parametrize("typesetter", STYLES.values(), ids=STYLES)
@settings(max_examples=40, deadline=None)
@given(text=HOSTILE)
def test_any_text_is_measured_laid_out_and_drawn_alike(typesetter: Typesetter, text: str) -> None:
    measure, layout, pages = typesetter.measure(text), typesetter.layout(text), list(typesetter.pages(text))
    assert measure == layout.measure
    assert (measure.pages, measure.visual_tokens) == (len(pages), sum(page.visual_tokens for page in pages))
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    for streamed, drawn in zip(pages, typesetter.draw(layout), strict=True):
        assert streamed.digest == drawn.digest and np.array_equal(streamed.patches, drawn.patches)
    spans = layout.lines[:, :2]
    assert (spans[:, 0] <= spans[:, 1]).all() and (spans[1:, 0] >= spans[:-1, 1]).all() and (len(spans) == 0 or spans[-1, 1] <= len(text))


@pytest.mark.parametrize(
    "text", ["x" * 10**6, "\n" * 10**5, " " * 10**6, "\u202e" * 10**4, "e" + "\u0301" * 10**5, "\u4e2d" * 10**5, "\0" * 10**4]
)
def test_extremes(text: str) -> None:
    typesetter = STYLES["reader"]
    measure = typesetter.measure(text)
    assert measure.characters == len(text)
    assert next(typesetter.pages(text)).patches.any() == (text.strip() != "" and text[0] not in "\u202e")


def ink(typesetter: Typesetter, text: str) -> np.ndarray:
    return 255 - next(typesetter.pages(text)).pixels()


WIDE = Typesetter(load_style("glyph-en-72+document").changed("wide", first_line_indent=0, auto_crop_last_page=False))


def test_arabic_is_joined_and_runs_from_the_right() -> None:
    word, letters = "\u0628\u0628\u0628", "\u0628\u200c\u0628\u200c\u0628"  # joined; kept apart by ZWNJ
    assert not np.array_equal(ink(WIDE, word), ink(WIDE, letters))
    columns = np.flatnonzero(ink(WIDE, word).max(0))
    assert columns.min() > 400, "a right-to-left paragraph starts at the right margin"


def test_mixed_directions_are_reordered() -> None:
    """UAX #9 on a line: the Hebrew word is drawn reversed, the Latin around it is not."""
    mixed, drawn_plain = ink(WIDE, "ab \u05d0\u05d1 cd"), ink(WIDE, "ab \u05d1\u05d0 cd")
    forced = ink(WIDE, "ab \u202d\u05d1\u05d0\u202c cd")  # an override draws it in logical order
    assert not np.array_equal(mixed, drawn_plain)
    assert np.array_equal(mixed, forced)


def test_a_combining_mark_stands_on_its_base() -> None:
    composed, combining = ink(WIDE, "\u00e9x"), ink(WIDE, "e\u0301x")
    assert np.array_equal(composed, combining)  # HarfBuzz composes where the font can
    base, marked = ink(WIDE, "qx"), ink(WIDE, "q\u0301x")  # no composed form: the mark is placed, the x does not move
    assert (marked.astype(int) - base).min() >= 0 and (marked != base).any()


def test_missing_glyphs_are_counted_in_every_path() -> None:
    text = "a\U0001f9e6b q\u0301\U0001f9e6\n" * 3
    for typesetter in STYLES.values():
        assert typesetter.measure(text).missing == {0x1F9E6: 6}


def test_a_fallback_font_is_used_before_a_box() -> None:
    style = PRESETS["reader"]
    plain, helped = Typesetter(style), Typesetter(style.changed("helped", fallback_fonts=("DejaVuSans.ttf", "NoSuchFont.ttf")))
    text = "\u05d0 \u2c6e"  # Hebrew, and a Latin letter of the simple path: DejaVu Sans has them, DejaVu Sans Mono lacks the first
    assert 0x05D0 in plain.measure(text).missing and helped.measure(text).missing == {}
    assert len(helped.style.font_files) == 2


def test_the_atlas_is_bounded() -> None:
    """A text with more clusters than the atlas keeps draws right all the same, and the atlas starts anew in between."""
    typesetter = Typesetter(PRESETS["reader"])
    marks = [chr(0x300 + i) for i in range(0x70)]
    text = " ".join(
        chr(97 + i % 26) + marks[i % 112] + marks[i // 112 % 112] + marks[i // 12544 % 112] for i in range(MOST_SHAPED + 30_000)
    )
    assert typesetter.measure(text).pages > 100
    assert isinstance(typesetter.atlas, GlyphAtlas) and len(typesetter.atlas._shaped) <= MOST_SHAPED + 65_536
    last = list(typesetter.pages(text[-4000:]))[-1]
    assert last.patches.any()
