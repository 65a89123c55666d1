"""What a search asks, and what its front is judged on: two sets of questions about different documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glyph_rt.errors import InputError, OptionError
from glyph_rt.evaluate.files import rows
from glyph_rt.evaluate.task import EXACT, Question, Score
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.held_out import AS_EVER
from glyph_rt.export.reader.vocabulary import HELD_OUT
from glyph_rt.typeset import Typesetter

SEARCH_SEED, HELD_OUT_SEED = 70_001, 80_001
PAGES = (0.4, 6.0)  # of the reference style: how long documents are
ASKED = 3  # questions about a document, at most
_FIELDS = 0.35  # share of a document's blocks that are fields
_SAMPLE = 20_000  # characters that tell how many a page holds

RULES: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda answer, expected: answer == expected,
    "contains": lambda answer, expected: expected.casefold() in answer.casefold(),
}


@dataclass(frozen=True)
class Asked:
    """Questions as a task of `evaluate`, right or wrong by one of RULES."""

    name: str
    asked: Sequence[Question] = field(repr=False)
    rule: str = "exact"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise OptionError(f"no rule {self.rule!r} for right answers; there are: {', '.join(RULES)}")

    @property
    def texts(self) -> tuple[str, ...]:
        """The documents, each once."""
        return tuple(dict.fromkeys(question.text for question in self.asked))

    def questions(self) -> Iterator[Question]:
        yield from self.asked

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        return {EXACT: Score(float(RULES[self.rule](answer, question.expected)))}


def made_up(reference: Typesetter, count: int, seed: int) -> list[Question]:
    """`count` questions about fields of made-up documents, which are the same for every style that is asked them. A larger set begins
    with a smaller one."""
    writer = Writer(HELD_OUT, seed)
    sample = reference.measure(Writer(HELD_OUT, SEARCH_SEED).draft(_SAMPLE, _FIELDS).text)
    page = sample.characters / sample.pages
    out: list[Question] = []
    while len(out) < count:
        draft = writer.draft(round(page * writer.rng.uniform(*PAGES)), _FIELDS)
        plain = [fact for fact in draft.facts if draft.text[fact.start - 2 : fact.start] == ": "]
        for fact in writer.rng.sample(plain, min(ASKED, len(plain))):
            out.append(Question(draft.text, AS_EVER.format(fact.key), fact.value, id=str(len(out))))
    return out[:count]


def from_file(file: Path) -> tuple[list[Question], list[Question]]:
    """The user's own questions, JSON lines of `text`, `question` and `answer`: one half of the documents to search on, one to judge on.

    Which half a document is in depends on its text alone. Raises InputError for a file of another kind, and when a half is empty.
    """
    halves: tuple[list[Question], list[Question]] = ([], [])
    for number, row in enumerate(rows(file, ("text", "question", "answer")), 1):
        text, question, answer = (row[key] for key in ("text", "question", "answer"))
        if not all(isinstance(part, str) and part.strip() for part in (text, question, answer)):
            raise InputError(f"{file}, row {number}: text, question and answer must be texts that are not empty")
        halves[_draw(text) & 1].append(Question(text, question, answer, id=str(number)))
    if not all(halves):
        raise InputError(f"{file}: one half of its documents is searched on and the other judged on; it needs more than it has")
    for half in halves:
        half.sort(key=lambda question: _draw(question.text))  # neighbours on one text share one reading
    return halves


def _draw(text: str) -> int:
    """A number that depends on the text, and on nothing else."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
