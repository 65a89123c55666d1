"""Transcripts: whole pages, character by character."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from glyph_rt.evaluate.metrics import character_accuracy, word_accuracy
from glyph_rt.evaluate.task import EXACT, Question, Score
from glyph_rt.typeset import Typesetter


@dataclass(frozen=True)
class Transcripts:
    """Every page of some texts, to be read off as its lines stand.

    Measures: characters and words (1 - their error rates, over all pages together), and pages without an error.
    """

    typesetter: Typesetter
    texts: Sequence[str] = field(repr=False)
    name: str = "transcripts"
    instruction: str = "Transcribe page {}."

    def questions(self) -> Iterator[Question]:
        for number, text in enumerate(self.texts):
            pages = list(self.typesetter.pages(text))
            for page in pages:
                lines = "\n".join(text[start:end] for start, end in page.lines.tolist())
                yield Question(
                    text,
                    self.instruction.format(page.number),
                    lines,
                    pages=len(pages),
                    id=f"{number}/{page.number}",
                    axes={"page": page.number},
                    max_new_tokens=2 * len(lines) + 16,
                )

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        return {
            "characters": character_accuracy(answer, question.expected),
            "words": word_accuracy(answer, question.expected),
            EXACT: Score(float(answer == question.expected)),
        }
