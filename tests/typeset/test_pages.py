"""Pages: their pixels, their order, their identity, and the promise that measuring equals drawing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import InputError
from glyph_rt.typeset import PRESETS, Style, Typesetter
from glyph_rt.typeset.glyphs import ONE_PIXEL

READER = Typesetter(PRESETS["reader"])
GLYPH = Typesetter(PRESETS["glyph-en-72"].changed("native", fit="native", auto_crop_width=False, auto_crop_last_page=False))


def paint_slowly(typesetter: Typesetter, text: str) -> np.ndarray:
    """The first page as grey pixels, glyph by glyph in Python, from the same atlas: black over white, no patches."""
    style, atlas = typesetter.style, typesetter.atlas
    layout = typesetter.layout(text)
    page = np.zeros((style.height, style.width), np.int64)
    edge = style.px(style.margin_x + style.frame_padding)
    for row, (start, end) in enumerate(layout.lines[: typesetter.rows, :2].tolist()):
        x, baseline = (
            edge * ONE_PIXEL,
            style.px(style.margin_y + style.frame_padding) + row * style.px(style.line_height) + atlas.first_baseline,
        )
        for c in text[start:end]:
            glyph = atlas.glyph(ord(c))
            left, top, coverage = glyph.bitmaps[x % ONE_PIXEL * atlas.phases // ONE_PIXEL]
            for (r, q), alpha in np.ndenumerate(coverage.astype(np.int64)):
                y, z = baseline - top + r, x // ONE_PIXEL + left + q
                if c != " " and 0 <= y < style.height and 0 <= z < style.width:
                    page[y, z] += (alpha * (255 - page[y, z]) + 127) // 255
            x += round(glyph.advance * ONE_PIXEL)
    return 255 - page


@pytest.mark.parametrize("typesetter", [READER, GLYPH], ids=["reader", "glyph-en-72"])
def test_pixels_equal_slow_painting(typesetter: Typesetter) -> None:
    text = "The quick brown fox, 1234567890!\nWAVE fi ffl [x] {y} \u00e9\u00fc \u20ac \U0001f9e6 end\n\n   indented"
    page = next(typesetter.pages(text))
    assert np.array_equal(page.pixels(), paint_slowly(typesetter, text))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=3000))
def test_measuring_equals_drawing(text: str) -> None:
    measure, pages = READER.measure(text), list(READER.pages(text))
    assert measure.pages == len(pages) == pages[-1].number
    assert measure.visual_tokens == sum(page.visual_tokens for page in pages)
    assert measure.characters == len(text)
    for page in pages:
        assert page.patches.shape == (300, 196) and page.patches.dtype == np.uint8 and not page.patches.flags.writeable


def test_equal_content_has_equal_digests_and_other_content_or_style_has_not() -> None:
    first, second = READER.pages("one line\n" * 20)
    assert first.digest == second.digest
    assert first.number != second.number
    assert next(READER.pages("another line")).digest != first.digest
    wider = Style.from_json(PRESETS["reader"].to_json() | {"cell-width": 8}, "wider")
    blank = [next(Typesetter(style).pages("")) for style in (PRESETS["reader"], wider)]
    assert np.array_equal(blank[0].patches, blank[1].patches) and blank[0].digest != blank[1].digest


def test_missing_glyphs_are_boxes_and_are_counted() -> None:
    text = "a\u4e2d\u4e2db\U0001f600\x01\n"
    measure = READER.measure(text)
    assert measure.missing == {0x4E2D: 2, 0x1F600: 1, 0x01: 1}
    page = next(READER.pages("\u4e2d")).pixels()
    assert (page < 128).sum() > 20


def test_a_lone_surrogate_is_refused_with_its_place() -> None:
    with pytest.raises(InputError, match=r"character 2 is a lone surrogate \(U\+D800\)"):
        READER.measure("ab\ud800")


def test_spans_point_into_the_source() -> None:
    text = "alpha beta\n\ngamma"
    page = next(READER.pages(text))
    assert [text[a:b] for a, b in page.lines.tolist()] == ["alpha beta", "", "gamma"]


def test_threads_share_a_typesetter() -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = ["".join(chr(0x100 + (i * 37 + j) % 400) for j in range(300)) for i in range(16)]
    expected = [[page.digest for page in Typesetter(PRESETS["reader"]).pages(text)] for text in texts]
    shared = Typesetter(PRESETS["reader"])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: [page.digest for page in shared.pages(text)], texts))
    assert found == expected
