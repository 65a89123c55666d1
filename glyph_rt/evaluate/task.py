"""The nouns of measuring: a question with its right answer, the scores of an answer, and a task, which makes and scores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

EXACT = "exact"  # the measure of tasks that know only right and wrong


@dataclass(frozen=True)
class Question:
    """A document, a question about it, and the right answer.

    text, question: what the runtime reads, and is asked.
    expected: the right answer; `accepted` are all that are right, where there are several: the task's formula says whether one will do.
    choices: what its formula has to know besides, such as the classes of a classification.
    pages: of the document in the style it was made for; 0 where no style was asked.
    id: names the question within its task, whenever and wherever that is run.
    axes: where the question stands in the task's tables and plots, such as {"depth": 0.5}.
    max_new_tokens: the longest answer that is waited for.
    """

    text: str
    question: str
    expected: str
    pages: int = 0
    id: str = ""
    accepted: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    axes: Mapping[str, float | str] = field(default_factory=dict)
    max_new_tokens: int = 64


@dataclass(frozen=True)
class Score:
    """How right an answer is, at most 1, and how much that counts: means are weighted by `weight`."""

    value: float
    weight: float = 1.0


class Task(Protocol):
    """A family of questions and the formula that scores their answers."""

    @property
    def name(self) -> str:
        """Names the task in records and reports."""

    def questions(self) -> Iterator[Question]:
        """The same questions at every call. Neighbours on one text share one reading."""

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        """Scores by the name of the measure."""


def exact(question: Question, answer: str) -> dict[str, Score]:
    """1 for the expected answer, character by character, else 0."""
    return {EXACT: Score(float(answer == question.expected))}
