"""Strategies for texts of any length, and the choice between them, with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from glyph_rt.answers import DEFAULT_NEW_TOKENS
from glyph_rt.errors import LimitError
from glyph_rt.long.index import PageIndex, question_terms
from glyph_rt.memory.limits import MIB
from glyph_rt.named import by_name

if TYPE_CHECKING:
    from glyph_rt.language import Sampling
    from glyph_rt.long.excerpts import PageMap
    from glyph_rt.runtime import Runtime
    from glyph_rt.typeset import Measure

ANSWER_SHARE = 16  # of the context, 1 / so much is kept free for an answer of no stated length, and no more than its default
# Questions whose answer lies in no few pages, however rare their words are.
_ABOUT_ALL = re.compile(
    r"\b(summar\w*|overview|outline|how many|how often|count|list (all|every|each|the)|all|every|each|overall|in total|altogether"
    r"|entire|whole|throughout|compare)\b"
    r"|^\W*list\b|总结|概括|摘要|所有|全部|多少次|列出",
    re.IGNORECASE,
)


class Strategy(Enum):
    """How a text is read for a question."""

    AUTO = "auto"  # one of those below: `choose` says how
    WHOLE = "whole"  # all of it at once
    MAP_REDUCE = "map_reduce"  # part by part, each asked, and one answer made of the parts' answers
    RETRIEVE_PAGES = "retrieve_pages"  # only the pages whose words fit the question's best

    @classmethod
    def parse(cls, name: str) -> Strategy:
        """Raises OptionError for a name that is none."""
        return by_name(cls, name, "strategy", "strategy")


@dataclass(frozen=True)
class Choice:
    """What a text is read by for a question, never AUTO, and why, for people."""

    strategy: Strategy
    reason: str


@dataclass(frozen=True)
class Window:
    """What can be read at a time beside a question and its answer.

    tokens: cache slots of a document, by context and KV budget. most: pages, where there is a limit to them. pages: whole pages within
    both.
    """

    tokens: int
    most: int | None
    pages: int
    tokens_of: Callable[[int, int], int]  # cache slots of pages and their visual tokens

    @classmethod
    def of(cls, runtime: Runtime, system: str, question: str, sampling: Sampling, most: int | None) -> Window:
        """Of all that a runtime has, be it in use or not. Raises LimitError when that holds no page beside the question and its answer."""
        template = runtime.template.with_system(system) if system else runtime.template
        context, budget = runtime.model.context, runtime.arena.budget
        asked = len(template.question(question, 0).tokens)
        answer = sampling.max_new_tokens or min(DEFAULT_NEW_TOKENS, context // ANSWER_SHARE)
        turn = asked + (sampling.max_new_tokens or DEFAULT_NEW_TOKENS)  # what its KV is reserved for
        by_budget = (budget - turn * runtime.model.kv_shape.bytes_per_token) // runtime.kv_shape.bytes_per_token
        tokens = min(context - asked - answer, by_budget)
        limits = [limit for limit in (most, runtime.limits.pages) if limit is not None]
        one, two = (template.document_tokens(n, n * runtime.style.visual_tokens) for n in (1, 2))
        pages = min([(tokens - one) // (two - one) + 1, *limits])
        if pages < 1:
            told = (
                f"the question ({asked:,} tokens) and its answer (up to {answer:,}) leave no room for a page of the text ({one:,}) in the "
                f"model's context ({context:,}) or the KV budget ({budget / MIB:,.1f} MiB)"
            )
            raise LimitError(f"{told}; ask more briefly, lower --max-new-tokens or raise --kv-bytes", public=told, field="question")
        return cls(tokens, min(limits, default=None), pages, template.document_tokens)

    def holds(self, measure: Measure) -> bool:
        """Whether a text of this measure can be read whole."""
        return self.tokens_of(measure.pages, measure.visual_tokens) <= self.tokens and (self.most is None or measure.pages <= self.most)


def choose(question: str, pages: PageMap, window: Window, index: Callable[[], PageIndex]) -> Choice:
    """What AUTO comes to, by rules that need no model: what fits is read whole. Of what does not, only the best pages are read where the
    question names a word that stands on few of them; else, and where it asks about all of the text, it is read part by part.
    """
    if window.holds(pages.measure):
        return Choice(Strategy.WHOLE, f"{_pages(len(pages))} fit{'s' * (len(pages) == 1)} the {window.pages:,}-page window")
    told = f"{_pages(len(pages))} do not fit the {window.pages:,}-page window"
    if _ABOUT_ALL.search(question):
        return Choice(Strategy.MAP_REDUCE, f"{told}; the question asks about all of the text")
    found = [index().pages_with(term) for term in question_terms(question)]
    if any(0 < count <= window.pages for count in found):
        return Choice(Strategy.RETRIEVE_PAGES, f"{told}; the question names words that stand on few pages")
    where = "too many pages to choose among" if any(found) else "no page"
    return Choice(Strategy.MAP_REDUCE, f"{told}; the question's words stand on {where}")


def _pages(count: int) -> str:
    return f"{count:,} page{'' if count == 1 else 's'}"
