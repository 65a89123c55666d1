"""Parts of a text: nothing is lost, pages stay what they are, and quotes are found where they stand in the whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import LimitError
from glyph_rt.long.excerpts import MOST_PLACES, Excerpt, PageMap, cut
from glyph_rt.nearby import Span
from glyph_rt.typeset import PRESETS, Typesetter

TYPESETTER = Typesetter(PRESETS["reader"])
STYLES = {
    "reader": TYPESETTER,
    "stable": Typesetter(replace(PRESETS["reader"], pagination="stable")),
    "trained": Typesetter(replace(PRESETS["glyph-en-72"], page_size=(300, 120))),
}
TEXTS = st.lists(
    st.sampled_from(["\n", "\n\n", " ", "word", "a much longer line of words " * 9, "x" * 95, "naïve é"]), min_size=1, max_size=120
)


def page_map(text: str, typesetter: Typesetter = TYPESETTER) -> PageMap:
    return PageMap.of(typesetter.layout(text))


def holds(window: int, typesetter: Typesetter = TYPESETTER) -> Callable[[str], bool]:
    return lambda text: typesetter.measure(text).pages <= window


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(2, 9), st.sampled_from(list(STYLES)))
def test_parts_are_whole_pages_that_cover_the_text_and_fit_the_window(pieces: list[str], window: int, style: str) -> None:
    typesetter = STYLES[style]
    text = "".join(pieces) + "end"
    pages = page_map(text, typesetter)
    parts = cut(pages, window, holds(window, typesetter), 1000)
    assert parts[0].spans[0].start == 0 and parts[-1].spans[-1].end == len(text)
    begins = {pages.begin(page) for page in range(len(pages) + 1)}
    for before, after in pairwise(parts):
        (first,), (second,) = before.spans, after.spans
        assert first.start < second.start <= first.end < second.end
        if window > 2 and pages.page_of(first.end - 1) > pages.page_of(first.start) + 1:
            assert second.start < first.end, "parts overlap"
    for part in parts:
        assert {part.spans[0].start, part.spans[0].end} <= begins
        assert 1 <= typesetter.measure(part.text or " ").pages <= window


@settings(max_examples=30, deadline=None)
@given(TEXTS)
def test_pages_of_a_part_that_begins_with_a_line_are_the_pages_of_the_whole(pieces: list[str]) -> None:
    text = "".join(pieces) + "end"
    pages = page_map(text)
    digests = [page.digest for page in TYPESETTER.pages(text)]
    for first in filter(pages.whole_line, range(len(pages))):
        part = Excerpt(text, (pages.span(first, len(pages)),))
        assert [page.digest for page in TYPESETTER.pages(part.text)] == digests[first:]


def test_parts_end_with_source_lines_where_there_are_some_within_reach() -> None:
    rng = random.Random(4)
    text = "".join(f"{n}: " + "words and more words " * rng.randrange(6) + "\n" for n in range(500))
    pages = page_map(text)
    parts = cut(pages, 12, holds(12), 100)
    ends = [text[part.spans[0].end - 1] == "\n" for part in parts]
    by_chance = sum(map(pages.whole_line, range(len(pages)))) / len(pages)
    assert len(parts) > 5 and all(ends) and by_chance < 0.8


def test_too_many_parts_are_refused_before_any_is_typeset() -> None:
    pages = page_map("line\n" * 2000)
    with pytest.raises(LimitError, match=r"200 pages come to at least 20 parts .* limit is 19; raise --parts or --window"):
        cut(pages, 10, lambda text: pytest.fail("typeset"), 19)
    assert len(cut(pages, 10, holds(10), 23)) == 23
    with pytest.raises(LimitError, match="page 1 alone"):
        cut(pages, 10, lambda text: False, 100)


@settings(max_examples=60, deadline=None)
@given(st.text("ab\n", min_size=30, max_size=600), st.sets(st.integers(0, 59)), st.text("ab", min_size=1, max_size=3))
def test_quotes_are_found_where_the_whole_text_has_them(text: str, chosen: set[int], quote: str) -> None:
    pages = page_map(text.strip() + "end")
    excerpt = Excerpt.pages(pages, [page for page in chosen if page < len(pages)] or [0])
    assert list(excerpt.spans) == sorted(excerpt.spans, key=lambda span: span.start)
    assert all(before.end < after.start for before, after in pairwise(excerpt.spans)), "neighbours are one"
    wanted: list[Span] = []
    for span in excerpt.spans:
        at = span.start
        while (at := pages.text.find(quote, at, span.end)) >= 0:
            wanted.append(Span(at, at + len(quote)))
            at += len(quote)
    assert list(excerpt.find(f" {quote}\n")) == wanted[:MOST_PLACES]
    assert excerpt.find(" ") == ()
