"""PageIndex: which words stand on which pages, and which pages a question is about (BM25)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import bm25s
import numpy as np
import regex  # type: ignore[import-untyped]
from bm25s.stopwords import STOPWORDS_EN_PLUS
from numpy.typing import NDArray

from glyph_rt.long.excerpts import PageMap

# Scripts that put no spaces between words: two neighbours make a term, as in Lucene's CJKAnalyzer.
_TERM = regex.compile(r"(?P<run>[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+)|[\p{L}\p{M}\p{N}]+")
# What a question is put in, besides the usual stop words: it says nothing about where the answer stands.
_ASKING = frozenset("tell give find please state show read look much many value document text page say says know".split())
_STOP = frozenset(STOPWORDS_EN_PLUS) | _ASKING
logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG, and would write into every application's log

RELEVANT = 0.25  # of the best page's score: pages below it share words with the question, and no more


def terms(text: str) -> list[str]:
    """The words of a text as they are compared: any case, English plurals as singulars, identifiers in their parts."""
    out: list[str] = []
    for match in _TERM.finditer(text):
        word = match[0].casefold()
        if match["run"] and len(word) > 1:
            out += (word[i : i + 2] for i in range(len(word) - 1))
        else:
            out.append(_singular(word))
    return out


def question_terms(question: str) -> list[str]:
    """What a question asks about: its terms, once each, without those of asking."""
    return [term for term in dict.fromkeys(terms(question)) if term not in _STOP]


class PageIndex:
    """The terms of every page of a text. tick: called for every page; what it raises stops the indexing."""

    def __init__(self, pages: PageMap, tick: Callable[[], None] = lambda: None) -> None:
        self.pages = len(pages)
        vocabulary: dict[str, int] = {}
        by_page = _Ticking(tick)
        for number in range(len(pages)):
            tick()
            span = pages.span(number, number + 1)
            by_page.append([vocabulary.setdefault(term, len(vocabulary)) for term in terms(pages.text[span.start : span.end])])
        self._bm25 = None
        if vocabulary:  # bm25s cannot index nothing
            self._bm25 = bm25s.BM25()  # as Lucene has it: k1 = 1.5, b = 0.75
            self._bm25.index((by_page, vocabulary), show_progress=False)

    def pages_with(self, term: str) -> int:
        """How many pages hold a term."""
        number = None if self._bm25 is None else self._bm25.vocab_dict.get(term)
        if self._bm25 is None or number is None:
            return 0
        ends = self._bm25.scores["indptr"]  # of the columns of a matrix with an entry for every term of every page
        return int(ends[number + 1] - ends[number])

    def weight(self, term: str) -> float:
        """How much a term tells: its inverse document frequency, more than 0; of one that no page holds, that of the rarest."""
        found = max(1, self.pages_with(term))
        return math.log(1 + (self.pages - found + 0.5) / (found + 0.5))

    def scores(self, asked: Sequence[str]) -> NDArray[np.float32]:
        """[pages] BM25 of each page for these terms; 0 where it holds none of them."""
        known = [term for term in asked if self.pages_with(term)]
        if self._bm25 is None or not known:
            return np.zeros(self.pages, np.float32)
        return np.asarray(self._bm25.get_scores(known), np.float32)

    def best(self, asked: Sequence[str]) -> list[int]:
        """Pages, counted from 0, that are about these terms, the best first, equals in their order."""
        scores = self.scores(asked)
        order = np.argsort(-scores, kind="stable")
        return [int(page) for page in order[: int((scores >= max(RELEVANT * scores.max(), 1e-9)).sum())]]


class _Ticking(list[list[int]]):
    """Calls `tick` before each of its items, whoever goes through them: bm25s takes seconds for long texts."""

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__()
        self._tick = tick

    def __iter__(self) -> Iterator[list[int]]:
        for item in super().__iter__():
            self._tick()
            yield item


def _singular(word: str) -> str:
    """The S-stemmer of Harman, How effective is suffixing? (JASIS 42, 1991): three rules, of which the first that applies counts."""
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word
