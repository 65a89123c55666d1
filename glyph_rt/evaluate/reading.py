"""Two measures of reading: exact answers to questions, and the character error of transcripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glyph_rt.language import Sampling
from glyph_rt.runtime import Runtime


@dataclass(frozen=True)
class Question:
    """A document, a question about it, and the one right answer."""

    text: str
    question: str
    expected: str
    pages: int


@dataclass(frozen=True)
class Transcript:
    """A text of one page, as its lines stand on the page, and what the model read there."""

    expected: str
    found: str


@dataclass(frozen=True)
class Interval:
    """A share and its 95 % confidence interval."""

    share: float
    low: float
    high: float


def ask_all(runtime: Runtime, questions: Sequence[Question], progress: Callable[[int], None] | None = None) -> list[str]:
    """Greedy answers, in order. Neighbouring questions on one text share one reading."""
    answers: list[str] = []
    document = None
    text = None
    try:
        for question in questions:
            if question.text != text:
                if document is not None:
                    document.close()
                document, text = runtime.read(question.text), question.text
            assert document is not None
            answers.append(document.ask(question.question, Sampling(max_new_tokens=64)).text)
            if progress is not None:
                progress(len(answers))
    finally:
        if document is not None:
            document.close()
    return answers


def transcribe_all(runtime: Runtime, texts: Sequence[str], instruction: str = "Transcribe page 1.") -> list[Transcript]:
    """What the model reads on the first page of every text, beside what stands there."""
    transcripts = []
    for text in texts:
        page = next(runtime.typesetter.pages(text))
        expected = "\n".join(text[start:end] for start, end in page.lines.tolist())
        with runtime.read(text) as document:
            found = document.ask(instruction, Sampling(max_new_tokens=2 * len(expected) + 16)).text
        transcripts.append(Transcript(expected, found))
    return transcripts


def character_error(transcripts: Sequence[Transcript]) -> float:
    """Levenshtein distance over all transcripts, by the characters there were to read. Needs the `bench` extra."""
    from rapidfuzz.distance import Levenshtein

    errors = sum(Levenshtein.distance(t.found, t.expected) for t in transcripts)
    return errors / sum(len(t.expected) for t in transcripts)


def wilson(successes: int, trials: int) -> Interval:
    """Wilson score interval at 95 % (Wilson 1927): sound for shares near 0 and 1."""
    z = 1.959964
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
