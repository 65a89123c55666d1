"""Words of pages, and the pages that a question is about."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.long.excerpts import PageMap
from glyph_rt.long.index import RELEVANT, PageIndex, question_terms, terms
from glyph_rt.typeset import PRESETS, Typesetter

TYPESETTER = Typesetter(PRESETS["reader"])


def index_of(*pages: str) -> PageIndex:
    """Of pages that are a stretch of text each."""
    text = "".join(pages)
    starts = np.cumsum([0, *map(len, pages[:-1])])
    return PageIndex(PageMap(text, starts, TYPESETTER.measure(text)))


def test_terms_compare_in_any_case_number_and_spelling_of_names() -> None:
    assert terms("The Penalties, ORDER_number: QX-58213") == ["the", "penalty", "order", "number", "qx", "58213"]
    assert terms("Straße STRASSE glasses bus") == ["strasse", "strasse", "glasse", "bus"]
    assert terms("合同价格") == ["合同", "同价", "价格"] and terms("价 ok") == ["价", "ok"]
    assert question_terms("What's the Notice period of the notice?") == ["notice", "period"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("red green blue black white".split()), max_size=12), min_size=1, max_size=12))
def test_scores_are_bm25(pages: list[list[str]]) -> None:
    """Robertson and Zaragoza's formula with Lucene's inverse document frequency, k1 = 1.5 and b = 0.75."""
    index = index_of(*(" ".join(page) + "\n" for page in pages))
    asked = ["red", "blue", "nowhere"]
    mean = sum(map(len, pages)) / len(pages)
    for page, score in zip(pages, index.scores(asked), strict=True):
        wanted = 0.0
        for term in asked:
            found = sum(term in other for other in pages)
            assert index.pages_with(term) == found
            count = Counter(page)[term]
            idf = math.log(1 + (len(pages) - found + 0.5) / (found + 0.5))
            wanted += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(page) / mean)) if count else 0
        assert math.isclose(score, wanted, rel_tol=1e-5, abs_tol=1e-6)


def test_the_best_pages_come_first_and_the_rest_not_at_all() -> None:
    index = index_of("the notice is long\n", "a period of peace\n", "notice period: 90 days\n", "nothing\n", "notice\n")
    assert index.best(["notice", "period"])[0] == 2 and set(index.best(["notice", "period"])) == {0, 1, 2, 4}
    assert index.best(["unknown"]) == [] and index.best([]) == []
    scores = index.scores(["notice", "period"])
    assert all(scores[page] >= RELEVANT * scores.max() for page in index.best(["notice", "period"]))
    assert index.weight("notice") < index.weight("period") <= index.weight("unknown")


def test_pages_without_a_word_have_an_index_too() -> None:
    index = index_of("... ---\n", "!\n")
    assert index.best(["word"]) == [] and index.pages_with("word") == 0


class StopError(Exception):
    """Whoever asked has gone."""


@pytest.mark.parametrize("most", [1, 40, 60, 100])
def test_indexing_stops_where_it_is_told_to(most: int) -> None:
    """At every page, while words are found and while they are counted and weighed."""
    pages = PageMap.of(TYPESETTER.layout("".join(f"Line {n} of the text.\n" for n in range(400))))
    assert len(pages) == 40
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1
        if calls == most:
            raise StopError

    with pytest.raises(StopError):
        PageIndex(pages, tick)
    assert calls == most
