"""From the answers of parts to one: which of them answer at all, what speaks for them, and notes to ask again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum

from glyph_rt.long.answer import PartAnswer
from glyph_rt.long.index import PageIndex, terms
from glyph_rt.named import by_name

NEAR = 200  # code points to each side of a place in which the question's words speak for it
ABSENT = "not in the document"
# How models say that a text does not tell; a short answer of this form is none.
_ABSENT = re.compile(
    r"(not|n't|no|nothing|never|neither)\b.{0,60}\b(in|from|by) (the|this|these|your) (document|text|page|passage|context|part|excerpt)s?"
    r"|(is|are|was|were|does|do|did|has|have|could|can|cannot) ?(not|n't)( be)? "
    r"(found|mention|mentioned|state|stated|specify|specified|provide|provided|given|say|contain|include|available|known)\b"
    r"|^(no|insufficient) (information|mention|answer)"
    r"|^(unknown|none|n/?a|not (found|mentioned|stated|specified|given|available|known))\W*$"
    "|没有提到|未提及|没有提及|未找到|无法确定|文中没有|没有相关",
    re.IGNORECASE | re.DOTALL,
)
LONGEST_ABSENT = 240  # characters; a longer answer that also says what is missing is an answer

# For models that follow instructions.
PART_QUESTION = "{}\nAnswer from these pages alone. If they do not say, answer only: " + ABSENT + "."
NOTES_QUESTION = "{}\nThe pages hold notes: what each part of a longer text says to this question. Answer the question from the notes."


class Reduce(Enum):
    """How several answers that differ become one."""

    EVIDENCE = "evidence"  # the one that the text speaks for most: no model needed
    NOTES = "notes"  # the parts' answers are typeset as notes, and the question is asked again of these

    @classmethod
    def parse(cls, name: str) -> Reduce:
        """Raises OptionError for a name that is none."""
        return by_name(cls, name, "way to reduce")


def is_absent(answer: str) -> bool:
    """Whether an answer says that there is none."""
    told = answer.strip()
    return not told or (len(told) <= LONGEST_ABSENT and _ABSENT.search(told) is not None)


def support(part: PartAnswer, asked: Sequence[str], index: PageIndex) -> float:
    """The share, from 0 to 1, of the question's terms, by their weight, that stand within NEAR code points of the best place where the
    excerpt says the answer word for word; 0 where it does so nowhere.
    """
    total = sum(index.weight(term) for term in asked)
    best = 0.0
    for place in part.places:
        span = next(span for span in part.excerpt.spans if span.start <= place.start < span.end)
        near = set(terms(part.excerpt.whole[max(span.start, place.start - NEAR) : min(span.end, place.end + NEAR)]))
        best = max(best, sum(index.weight(term) for term in asked if term in near))
    return best / total if total else 0.0


def agreed(parts: Sequence[PartAnswer]) -> bool:
    """Whether all say the same, case, spaces and the full stop aside."""
    return len({_plain(part.text) for part in parts}) == 1


def by_evidence(parts: Sequence[PartAnswer], support: Callable[[PartAnswer], float]) -> PartAnswer:
    """The answer with the most support; of equals the one that more parts give, and of these the first."""
    votes = Counter(_plain(part.text) for part in parts)
    return max(parts, key=lambda part: (support(part), votes[_plain(part.text)]))


def notes(parts: Sequence[PartAnswer]) -> str:
    """The parts' answers as a text, a line for each."""
    return "".join(f"Pages {part.pages[0]} to {part.pages[1]}: {' '.join(part.text.split())}\n" for part in parts)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
