"""`fit: trained` against the reference chain: its line and page breaks on any text, and its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import reference_chain
from glyph_rt.typeset import PRESETS, Style, Typesetter
from glyph_rt.typeset._raster import resample

EN = Typesetter(PRESETS["glyph-en-72"])
CONFIG = reference_chain.CONFIG_EN | {"font-path": str(EN.style.font_files[0])}
SMALL = {"page-size": "150,130"}  # few words to a line, few lines to a page


def our_rows(typesetter: Typesetter, text: str) -> list[list[str]]:
    """Per page, the words of every line."""
    return [[" ".join(text[a:b].split()) for a, b in page.lines.tolist()] for page in typesetter.pages(text)]


def their_rows(text: str, config: dict[str, object]) -> list[list[str]]:
    pages = reference_chain._layout(text, reference_chain.CODE_DEFAULTS | config)[1]
    return [[" ".join(row.replace("\xa0", " ").split()) for row in rows] for rows in pages]


def trimmed(pages: list[list[str]]) -> list[list[str]]:
    """Without empty rows at the end of a page, which draw nothing: the chain loses some and we keep them, or the other way round."""
    out = []
    for page in pages:
        rows = list(page)
        while rows and not rows[-1]:
            rows.pop()
        out.append(rows)
    while out and not out[-1]:
        out.pop()
    return out


WORDS = st.lists(st.sampled_from(["a", "of", "words,", "contract", "Wimmerby", "x" * 40, "iiiiiiiiii", "1234-5678"]), max_size=12)
LINES = st.tuples(WORDS, st.sampled_from([" ", " ", "  ", "\t", " \t "]), st.sampled_from(["", " ", "   "])).map(
    lambda t: t[2] + t[1].join(t[0])
)
TEXTS = st.lists(LINES, max_size=70).map("\n".join)


@settings(max_examples=80, deadline=None)
@given(text=TEXTS)
def test_lines_and_pages_break_where_the_chain_breaks_them(text: str) -> None:
    config = CONFIG | SMALL
    typesetter = _small()
    assert trimmed(our_rows(typesetter, text)) == trimmed(their_rows(text, config))


def _small(cache: dict[str, Typesetter] = {}) -> Typesetter:  # noqa: B006 - one typesetter for all examples
    if not cache:
        cache["small"] = Typesetter(Style.from_json(CONFIG | SMALL, "small"))
    return cache["small"]


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), out=st.tuples(st.integers(1, 120), st.integers(1, 120)), seed=st.integers(0, 9))
def test_resampling_is_pillows(width: int, height: int, out: tuple[int, int], seed: int) -> None:
    """Across, then down, as Pillow did it when the models were trained (13 may go down first, which rounds otherwise)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    across = Image.fromarray(pixels).resize((out[0], height), Image.Resampling.BICUBIC)
    assert np.array_equal(resample(pixels, out), np.asarray(across.resize(out, Image.Resampling.BICUBIC)))


@pytest.mark.slow
@pytest.mark.skipif(reference_chain.missing() is not None, reason=str(reference_chain.missing()))
@pytest.mark.parametrize("kind", ["prose", "hard_wrapped", "one_line"])
@pytest.mark.parametrize("change", [{}, {"dpi": 96}, {"alignment": "JUSTIFY"}, {"horizontal-scale": 0.9}], ids=str)
def test_pixels_are_the_chains(kind: str, change: dict[str, object]) -> None:
    """Mean difference of at most 0.1 of 255 levels on every page, after the encoder's own resize."""
    from bench import texts

    text = getattr(texts, kind)(40_000)
    config = CONFIG | change
    ours = list(Typesetter(Style.from_json(config, "chain")).pages(text))
    theirs = reference_chain.render(text, config, png=False).pages
    assert len(ours) == len(theirs) > 1
    for page, reference in zip(ours, theirs, strict=True):
        expected = reference_chain.preprocess(reference)
        assert page.pixels().shape == expected.shape
        assert np.abs(page.pixels().astype(int) - expected).mean() <= 0.1


MARKS = {"newline-markup": '<font color="#FF0000"> \\n </font>'}


@pytest.mark.skipif(reference_chain.missing() is not None, reason=str(reference_chain.missing()))
@pytest.mark.parametrize("change", [{}, MARKS], ids=["lines", "marks"])
def test_white_space_takes_the_room_that_it_takes_in_the_chain(change: dict[str, object]) -> None:
    gaps = [f"{a}{b}" for a in ("", " ", "  ", "\t", "\n", "\n\n") for b in ("\t", " ", "  ", "\n")]
    text = "".join(f"a{gap}b" for gap in gaps)
    config = CONFIG | change
    (page,) = Typesetter(Style.from_json(config, "chain")).pages(text)
    (reference,) = reference_chain.render(text, config, png=False).pages
    expected = reference_chain.preprocess(reference)
    assert page.pixels().shape == expected.shape
    assert (
        np.abs(page.pixels().astype(int) - expected).mean() <= 0.2
    )  # of half a page of nothing but marks; a space too many gives above 1.5


def test_a_page_break_on_a_line_break_leaves_an_empty_row_as_in_the_chain() -> None:
    text = "\n".join(f"line {i}" for i in range(30))
    typesetter = _small()
    rows = our_rows(typesetter, text)
    assert rows == their_rows(text, CONFIG | SMALL)
    assert rows[1][0] == "" and rows[1][1] == f"line {len(rows[0])}"
