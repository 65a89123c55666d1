"""The layout as a map of the text, crops, streams, threads, the page cache, and pagination that survives edits."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.vocabulary import TRAINING
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import InternalError
from glyph_rt.typeset import PRESETS, Typesetter, load_style
from glyph_rt.typeset.page_cache import PageCache

READER = Typesetter(PRESETS["reader"])
TRAINED = Typesetter(PRESETS["glyph-en-72"])
LINES = st.lists(st.text(st.sampled_from("abcdefg hij  klm\tnop.,"), max_size=120), max_size=120).map("\n".join)


def prose(characters: int, seed: int = 1) -> str:
    return Writer(TRAINING, seed).draft(characters, 0.3).text


# -- source map


@settings(max_examples=40, deadline=None)
@given(text=LINES)
@pytest.mark.parametrize("typesetter", [READER, TRAINED], ids=["native", "trained"])
def test_every_drawn_character_is_found_where_it_is_drawn(typesetter: Typesetter, text: str) -> None:
    layout = typesetter.layout(text)
    pages = list(typesetter.draw(layout))
    spans = [(start, end, page.number, n) for page in pages for n, (start, end) in enumerate(page.lines.tolist())]
    where = {offset: (page, line) for start, end, page, line in spans for offset in range(start, end)}
    for offset in range(len(text)):
        place = layout.find(offset)
        assert (None if place is None else (place.page, place.line)) == where.get(offset)
        if place is not None:
            page = pages[place.page - 1]
            box = place.box
            assert place.start <= offset < place.end and box.left <= box.right <= page.width and 0 <= box.top < box.bottom <= page.height
    assert layout.find(len(text)) is None


@pytest.mark.parametrize("typesetter", [READER, TRAINED], ids=["native", "trained"])
def test_boxes_hold_the_ink_of_their_lines(typesetter: Typesetter) -> None:
    text = prose(3000)
    layout = typesetter.layout(text)
    pages = [255 - page.pixels().astype(int) for page in typesetter.draw(layout)]
    outside = [page.copy() for page in pages]
    for row in range(len(layout.lines)):
        place = layout.place(row)
        b = place.box
        if text[place.start : place.end].strip():
            assert pages[place.page - 1][b.top : b.bottom, b.left : b.right].max() > 60
        outside[place.page - 1][max(0, b.top - 2) : b.bottom + 3, max(0, b.left - 2) : b.right + 2] = 0  # serifs and resampling reach out
    assert max(page.max() for page in outside) < 30


def test_a_span_is_all_the_lines_that_draw_it() -> None:
    text = prose(2000)
    layout = READER.layout(text)
    for start, end in ((300, 500), (0, 1), (0, len(text)), (700, 700)):
        places = [(p.page, p.line) for p in layout.find_all(start, end)]
        found = {(p.page, p.line) for offset in range(start, end) if (p := layout.find(offset)) is not None}
        assert places == sorted(found)


# -- crops and density


def test_pages_are_cropped_where_their_ink_ends() -> None:
    text = "short lines\n" * 100
    whole = Typesetter(PRESETS["glyph-en-72"].changed("whole", auto_crop_width=False, auto_crop_last_page=False))
    cropped, full = list(TRAINED.pages(text)), list(whole.pages(text))
    assert {page.width for page in full} == {588} and {page.width for page in cropped} == {84}
    assert cropped[0].height == 840 and cropped[-1].height < full[-1].height == 840
    native = Typesetter(PRESETS["glyph-en-72"].changed("native", fit="native"))
    for page, reference in zip(native.pages(text), Typesetter(whole.style.changed("n", fit="native")).pages(text), strict=True):
        assert np.array_equal(page.pixels(), reference.pixels()[: page.height, : page.width])
        assert (reference.pixels()[page.height :] == 255).all() and (reference.pixels()[:, page.width :] == 255).all()


def test_newline_marks_fill_lines() -> None:
    """Hard-wrapped text takes less room when its line ends are marks: the facts page has 2.17 to 3.06."""
    text = "\n".join("a line of some forty characters, no more" for _ in range(500))
    whole = PRESETS["glyph-en-72"].changed("whole", auto_crop_width=False)
    broken, marked = Typesetter(whole).measure(text), Typesetter(load_style("glyph-en-72+fast")).measure(text)
    assert marked.visual_tokens < 0.6 * broken.visual_tokens
    page = next(Typesetter(load_style("reader").changed("red", newline_markup='<font color="#FF0000"> \\n </font>')).pages("a\nb"))
    assert page.patches.shape[1] == 588, "a red mark makes a page with colour"
    assert (
        next(
            Typesetter(load_style("reader").changed("red", newline_markup='<font color="#FF0000"> \\n </font>')).pages("ab")
        ).patches.shape[1]
        == 196
    )


# -- streams


def test_appending_changes_the_last_page_only() -> None:
    text = prose(6000)
    for typesetter in (READER, TRAINED):
        before, after = list(typesetter.pages(text)), list(typesetter.pages(text + " and more.\nOther lines\n" * 20))
        assert [page.digest for page in before[:-1]] == [page.digest for page in after[: len(before) - 1]]
        assert all(np.array_equal(a.patches, b.patches) for a, b in zip(before[:-1], after, strict=False))


def test_threads_give_the_same_pages_in_order() -> None:
    text = prose(20_000)
    one, four = list(TRAINED.pages(text)), list(TRAINED.pages(text, threads=4))
    assert [p.digest for p in one] == [p.digest for p in four] and all(
        np.array_equal(a.patches, b.patches) for a, b in zip(one, four, strict=True)
    )
    stream = TRAINED.pages(text, threads=2)
    next(stream)
    stream.close()  # an abandoned stream leaves nothing running


@pytest.mark.parametrize("name", ["reader", "glyph-en-72"])
def test_a_long_text_is_cut_into_stretches_without_a_seam(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Composed in small stretches or in one: the same pages."""
    text = prose(30_000) + "one long line " * 3000 + "\n" * 50 + "x" * 5000 + "\n" + prose(5000, 2)
    typesetter = Typesetter(PRESETS[name])
    whole = [(page.digest, page.lines.tolist()) for page in typesetter.pages(text)]
    monkeypatch.setattr("glyph_rt.typeset.typesetter.STRETCH", 3000)
    assert [(page.digest, page.lines.tolist()) for page in typesetter.pages(text)] == whole


def test_streaming_takes_memory_for_one_stretch_only() -> None:
    def peak(characters: int) -> int:
        text = "a word and another one " * (characters // 23)
        tracemalloc.start()
        for _ in READER.pages(text):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(3_000_000) < 1.2 * peak(300_000) + 2**20


# -- page cache


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 60)), max_size=80), st.integers(0, 200))
def test_the_page_cache_is_bounded_and_gives_back_what_it_got(puts: list[tuple[int, int]], budget: int) -> None:
    cache, model = PageCache(budget), {}
    for key, size in puts:
        patches = np.full(size, key, np.uint8)
        patches.flags.writeable = False
        found = cache.get(str(key))
        assert found is None or np.array_equal(found, model[key])
        if found is None:
            cache.put(str(key), patches)
            model[key] = patches
        cache.check_integrity()
        assert cache.bytes <= budget


def test_broken_books_are_noticed() -> None:
    cache = PageCache(100)
    cache.put("a", np.zeros(10, np.uint8))
    with pytest.raises(InternalError, match="can be written to"):
        cache.check_integrity()
    cache._bytes = 3
    with pytest.raises(InternalError, match="holds 10 bytes, counts 3"):
        cache.check_integrity()


def test_pages_come_from_the_cache_when_they_are_the_same() -> None:
    text = prose(4000)
    typesetter = Typesetter(PRESETS["reader"], cache_bytes=2**24)
    first = list(typesetter.pages(text))
    again = list(typesetter.pages(text))
    assert (
        typesetter.cache is not None
        and typesetter.cache.hits == len(first)
        and all(a.patches is b.patches for a, b in zip(first, again, strict=True))
    )
    typesetter.cache.check_integrity()


# -- stable pagination


@pytest.mark.parametrize("base", ["reader", "glyph-en-72"])
def test_an_edit_in_a_long_document_changes_three_pages_at_most(base: str) -> None:
    typesetter = Typesetter(PRESETS[base].changed("stable", pagination="stable"))
    dense = Typesetter(PRESETS[base])
    rng = random.Random(5)
    text = prose(200 * (450 if base == "reader" else 4500))
    before = {page.digest for page in typesetter.pages(text)}
    dense_pages, stable = dense.measure(text), typesetter.measure(text)
    assert 150 < dense_pages.pages < stable.pages < 2 * dense_pages.pages
    if base == "glyph-en-72":  # short pages are cropped, so that they cost few tokens
        assert stable.visual_tokens < 1.05 * dense_pages.visual_tokens
    for _ in range(12):
        at = rng.randrange(len(text) // 10, 9 * len(text) // 10)
        edited = (
            text[:at] + rng.choice(["a few more words ", "\n", "Another line, and\nhalf of one "]) + text[at + rng.choice([0, 1, 40]) :]
        )
        assert sum(page.digest not in before for page in typesetter.pages(edited)) <= 3


def test_repeated_text_has_no_anchors_and_still_fills_pages() -> None:
    typesetter = Typesetter(PRESETS["reader"].changed("stable", pagination="stable"))
    for text in ("the same line\n" * 200, "word " * 4000, "x" * 4000):
        assert typesetter.measure(text).pages <= 3 * READER.measure(text).pages
