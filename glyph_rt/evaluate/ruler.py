"""RULER (arXiv:2404.06654): its own files with its own formulas, and families in its style over made-up text.

The formulas are those of scripts/eval/synthetic/constants.py of https://github.com/NVIDIA/RULER. A row of its files has `input`, whose
last line asks and whose rest is the document, and `outputs`. The families here need no download; their figures are not RULER's.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from glyph_rt.evaluate.files import rows
from glyph_rt.evaluate.task import Question, Score
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.vocabulary import HELD_OUT

MATCH = "match"


def match_all(answer: str, wanted: Sequence[str]) -> float:
    """RULER's string_match_all: the share of what is wanted that stands somewhere in the answer, in any case."""
    return sum(each.lower() in answer.lower() for each in wanted) / len(wanted)


def match_part(answer: str, wanted: Sequence[str]) -> float:
    """RULER's string_match_part, for question answering: 1 if any of what is wanted stands in the answer."""
    return max(float(each.lower() in answer.lower()) for each in wanted)


def _clean(answer: str) -> str:
    """As RULER does before it matches: control characters become line ends."""
    return "".join("\n" if c < " " else c for c in answer.strip()).strip()


@dataclass(frozen=True)
class RulerFile:
    """A file that RULER's scripts wrote: `niah_single_1/validation.jsonl`, or one named after its task."""

    file: Path

    @property
    def name(self) -> str:
        return f"ruler/{self._task}"

    @property
    def _task(self) -> str:
        return self.file.parent.name if self.file.stem in ("validation", "test") else self.file.stem

    def questions(self) -> Iterator[Question]:
        for number, row in enumerate(rows(self.file, ("input", "outputs"))):
            document, _, asked = row["input"].strip().rpartition("\n")
            yield Question(
                document,
                asked,
                ", ".join(row["outputs"]),
                id=str(number),
                accepted=tuple(row["outputs"]),
                axes={"tokens": row.get("length", 0)},
                max_new_tokens=128,
            )

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        formula = match_part if self._task.startswith("qa") else match_all
        return {MATCH: Score(formula(_clean(answer), question.accepted))}


@dataclass(frozen=True)
class Haystack:
    """A text in the making: `sentences` of prose, and a generator of random numbers that is its own."""

    rng: random.Random
    sentences: list[str]

    def hide(self, needles: Sequence[str]) -> str:
        """The text with the needles at random places among its sentences, in their order."""
        places = sorted(self.rng.randint(0, len(self.sentences)) for _ in needles)
        out = list(self.sentences)
        for shift, (place, needle) in enumerate(zip(places, needles, strict=True)):
            out.insert(place + shift, needle)
        return "\n".join(out)

    def word(self) -> str:
        return f"{self.rng.choice(HELD_OUT.adjectives)}-{self.rng.choice(HELD_OUT.nouns)}"

    def words(self, count: int) -> list[str]:
        """`count` different words."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.word()] = None
        return list(found)


class Family(Protocol):
    """Hides something in a haystack: the text, the question, and all that its answer has to hold."""

    def __call__(self, hay: Haystack) -> tuple[str, str, Sequence[str]]: ...


@dataclass(frozen=True)
class Needles:
    """Values under keys, one sentence for each; some keys are asked for, others only distract."""

    keys: int = 1
    values: int = 1  # under each key
    asked: int = 1  # keys
    uuids: bool = False  # values are UUIDs instead of numbers of seven digits

    def __call__(self, hay: Haystack) -> tuple[str, str, Sequence[str]]:
        kind = "uuids" if self.uuids else "numbers"
        keys = hay.words(self.keys)
        held = {key: [self._value(hay.rng) for _ in range(self.values)] for key in keys}
        needles = [f"One of the special magic {kind} for {key} is: {value}." for key in keys for value in held[key]]
        hay.rng.shuffle(needles)
        asked = hay.rng.sample(keys, self.asked)
        question = f"What are all the special magic {kind} for {_listed(asked)} mentioned in the provided text?"
        return hay.hide(needles), question, [value for key in asked for value in held[key]]

    def _value(self, rng: random.Random) -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4)) if self.uuids else str(rng.randint(10**6, 10**7 - 1))


@dataclass(frozen=True)
class VariableTracking:
    """A chain of assignments; which variables have the first one's value?"""

    hops: int = 4

    def __call__(self, hay: Haystack) -> tuple[str, str, Sequence[str]]:
        names = ["".join(hay.rng.choices(string.ascii_uppercase, k=5)) for _ in range(self.hops + 1)]
        value = str(hay.rng.randint(10_000, 99_999))
        chain = [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in pairwise(names))]
        return hay.hide(chain), f"Find all variables that are assigned the value {value} in the text above.", names


@dataclass(frozen=True)
class CommonWords:
    """A numbered list of words of which some come often; which are these? As many words as the haystack has."""

    common: int = 10
    often: int = 6
    seldom: int = 1

    def __call__(self, hay: Haystack) -> tuple[str, str, Sequence[str]]:
        room = max(1, (sum(len(s.split()) for s in hay.sentences) - self.common * self.often) // self.seldom)
        vocabulary = hay.words(self.common + min(room, len(HELD_OUT.nouns) * len(HELD_OUT.adjectives) // 2))
        common, rare = vocabulary[: self.common], vocabulary[self.common :]
        words = common * self.often + rare * self.seldom
        hay.rng.shuffle(words)
        text = " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))
        return text, f"What are the {self.common} most common words in the above list?", common


FAMILIES: dict[str, Family] = {
    "single": Needles(),
    "multi-key": Needles(keys=4),
    "multi-value": Needles(values=4),
    "multi-query": Needles(keys=4, asked=4),
    "uuid": Needles(uuids=True),
    "variable tracking": VariableTracking(),
    "common words": CommonWords(),
}


@dataclass(frozen=True)
class RulerStyle:
    """`repeats` texts of about each of `lengths` characters, asked in the manner of one of RULER's families."""

    family: str
    lengths: Sequence[int]
    repeats: int = 10
    seed: int = 50_001

    @property
    def name(self) -> str:
        return f"ruler-style/{self.family}"

    def questions(self) -> Iterator[Question]:
        for length in self.lengths:
            for number in range(self.repeats):
                seed = f"{self.seed} {self.family} {length} {number}"
                writer = Writer(HELD_OUT, random.Random(seed).getrandbits(32))
                sentences: list[str] = []
                while sum(map(len, sentences)) < length:
                    sentences.append(writer.sentence())
                text, asked, wanted = FAMILIES[self.family](Haystack(random.Random(seed), sentences))
                yield Question(
                    text,
                    asked,
                    ", ".join(wanted),
                    id=f"{length}/{number}",
                    accepted=tuple(wanted),
                    axes={"characters": length},
                    max_new_tokens=128 + len(", ".join(wanted)),
                )

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        return {MATCH: Score(match_all(_clean(answer), question.accepted))}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + ", and " + words[-1]
