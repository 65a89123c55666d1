"""Judging a front on documents that the search never saw, question by question against the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from glyph_rt.evaluate.metrics import Z95, Interval, interval
from glyph_rt.evaluate.record import Record
from glyph_rt.evaluate.run import Progress, run
from glyph_rt.evaluate.task import EXACT, Score
from glyph_rt.tune.front import difference
from glyph_rt.tune.search import REFERENCE, Tried
from glyph_rt.tune.trial import Trier
from glyph_rt.typeset import Style

MARGIN = 0.02  # of accuracy: what is not worse by more than this is called as accurate
ROUNDS = 5  # of timing, in turn with the reference

MORE, LESS, EQUAL, UNDECIDED = "more accurate", "less accurate", "as accurate", "undecided"


@dataclass(frozen=True)
class Judgement:
    """What a style comes to on the held-out documents, beside the reference on the same.

    gain: difference of accuracies. denser: how many times as many characters a visual token holds. slower: seconds as a multiple of the
    reference's, the median of alternating rounds and their range.
    """

    tried: Tried
    accuracy: Interval
    gain: Interval
    questions: int
    compression: float
    density: float
    denser: Interval
    slower: Interval

    @property
    def verdict(self) -> str:
        """On its accuracy, by the interval of its difference to the reference's."""
        if self.gain.low > 0:
            return MORE
        if self.gain.low >= -MARGIN:
            return EQUAL
        return LESS if self.gain.high < 0 else UNDECIDED


def judge(trier: Trier, tried: Sequence[Tried], folder: Path, subject: dict[str, str], progress: Progress | None = None) -> list[Judgement]:
    """Judge styles, which are the reference first, by the trier's questions. Answers are kept in `folder`, and not asked for again."""
    assert tried[0].origin == REFERENCE, "every judgement is beside the reference"
    out: list[Judgement] = []
    answers: list[list[Score]] = []
    tokens: list[list[int]] = []
    for each in tried:
        answers.append(_answers(trier, each, folder, subject, progress))
        tokens.append(_tokens(trier, each.style))
        ratios = sorted(own / reference for reference, own in trier.rounds(each.style, ROUNDS if each is not tried[0] else 0)) or [1.0]
        out.append(
            Judgement(
                each,
                interval(answers[-1]),
                difference(*([score.value == 1 for score in scores] for scores in (answers[-1], answers[0]))),
                len(answers[-1]),
                *trier.weigh(each.style),
                ratio(tokens[0], tokens[-1]),
                Interval(median(ratios), ratios[0], ratios[-1]),
            )
        )
    return out


def picks(tried: Sequence[Tried], front: Sequence[Tried]) -> dict[str, Tried]:
    """What a user would choose from the front, by what the search found and nothing that was held out: the most accurate style, and of
    those not less accurate than the reference, within MARGIN, the densest and the fastest."""
    floor = tried[0].finding.accuracy.share - MARGIN
    good = [each for each in front if each.finding.accuracy.share >= floor]
    orders: dict[str, Callable[[Tried], tuple[float, float]]] = {
        "most accurate": lambda each: (each.finding.accuracy.share, each.finding.compression),
        "densest as accurate": lambda each: (each.finding.compression, each.finding.accuracy.share),
        "fastest as accurate": lambda each: (-each.finding.time, each.finding.accuracy.share),
    }
    return {name: max(good, key=order) for name, order in orders.items()}


def ratio(above: Sequence[int], below: Sequence[int]) -> Interval:
    """Of two sums over the same documents, at 95 % (ratio estimator, Cochran 1977, 2.11)."""
    total, count = sum(below), len(below)
    share = sum(above) / total
    if count == 1:
        return Interval(share, share, share)
    spread = sum((a - share * b) ** 2 for a, b in zip(above, below, strict=True)) * count / (count - 1)
    half = Z95 * math.sqrt(spread) / total
    return Interval(share, share - half, share + half)


def _answers(trier: Trier, tried: Tried, folder: Path, subject: dict[str, str], progress: Progress | None) -> list[Score]:
    """A score for every question, in order."""
    name = f"style {tried.number}"
    folder.mkdir(parents=True, exist_ok=True)
    with Record(folder / f"{tried.number:04}.jsonl", {**subject, "style": str(tried.style.to_json())}) as record:
        task = replace(trier.task, name=name)
        run(trier.runtime.with_style(tried.style), [task], record, progress)
        return [record.results[name, question.id].scores[EXACT] for question in trier.task.asked]


def _tokens(trier: Trier, style: Style) -> list[int]:
    """Visual tokens of every document."""
    reading = trier.runtime.with_style(style)
    return [reading.measure(text).visual_tokens for text in trier.task.texts]


def gains(judged: Sequence[Judgement]) -> Iterator[Judgement]:
    """What beats the reference: more accurate, or as accurate and denser or faster."""
    for each in judged[1:]:
        if each.verdict == MORE or (each.verdict == EQUAL and (each.denser.low > 1 or each.slower.high < 1)):
            yield each
