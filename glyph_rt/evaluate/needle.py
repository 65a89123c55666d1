"""A needle in a haystack: one field at a given depth of a text of a given length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from glyph_rt.evaluate.task import Question, Score, exact
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.vocabulary import HELD_OUT

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class NeedleGrid:
    """`repeats` questions for every depth (0 is the first line, 1 the last) and every length (about so many characters).

    The needle is a line `KEY: VALUE`. With `distractors`, this share of the other blocks are such lines too.
    """

    lengths: Sequence[int]
    depths: Sequence[float] = DEPTHS
    repeats: int = 10
    distractors: float = 0.2
    seed: int = 60_001
    name: str = "needle"

    def questions(self) -> Iterator[Question]:
        for length in self.lengths:
            for depth in self.depths:
                for number in range(self.repeats):
                    writer = Writer(HELD_OUT, Random(f"{self.seed} {length} {depth} {number}").getrandbits(32))
                    draft = writer.draft(length, self.distractors)
                    lines = draft.text.splitlines()
                    while draft.knows(key := writer.key()) or not (value := writer.value()):
                        pass
                    lines.insert(round(depth * len(lines)), f"{key}: {value}")
                    yield Question(
                        "\n".join(lines),
                        f"What is the value of {key}?",
                        value,
                        id=f"{length}/{depth:g}/{number}",
                        axes={"characters": length, "depth": depth},
                    )

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        return exact(question, answer)
