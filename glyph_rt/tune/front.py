"""What a trial of a style found, and the Pareto front of such findings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from glyph_rt.evaluate.metrics import Z95, Interval, wilson

UNREADABLE, DOMINATED = "unreadable", "dominated"  # why a style was asked no further


@dataclass(frozen=True)
class Finding:
    """What reading in a style came to.

    right: for each question that was asked, in order, 1 where it was answered rightly, else 0. compression: text tokens per visual token
    of all documents, density: characters per visual token. time: of reading a document and answering, as a multiple of what the
    reference style takes. stopped: why it was asked no further, where it was; such a style is on no front.
    """

    right: str
    compression: float
    density: float
    time: float
    stopped: str = ""

    @property
    def accuracy(self) -> Interval:
        """Share of right answers."""
        return wilson(self.right.count("1"), len(self.right))

    @property
    def objectives(self) -> tuple[float, float, float]:
        """More is better in all three."""
        return self.accuracy.share, self.compression, -self.time

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def difference(own: Sequence[object], reference: Sequence[object]) -> Interval:
    """Of two shares of right answers to the same questions, at 95 %: Wald's with half an observation added to each cell of the table
    (Agresti and Min 2005, Statistics in Medicine 24). What is right is "1", or true. Where both are alike tells nothing.
    """
    pairs = [(a in ("1", True), b in ("1", True)) for a, b in zip(own, reference, strict=True)]
    better, worse = pairs.count((True, False)), pairs.count((False, True))
    count = len(pairs) + 2
    middle = (better - worse) / count
    half = Z95 * math.sqrt(max(0.0, better + worse + 1 - (better - worse) ** 2 / count)) / count
    share = (better - worse) / len(pairs)
    return Interval(share, max(-1.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def dominates(a: Finding, b: Finding) -> bool:
    """Whether `a` is at least as good as `b` in every objective, and better in one."""
    pairs = list(zip(a.objectives, b.objectives, strict=True))
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def clearly_dominated(finding: Finding, others: Iterable[Finding]) -> bool:
    """Whether another style that costs no more read better, on the questions that both were asked, by more than chance explains (95 %)."""
    return any(
        other.compression >= finding.compression
        and other.time <= finding.time
        and difference(*(each.right[: min(len(finding.right), len(other.right))] for each in (finding, other))).high < 0
        for other in others
        if not other.stopped
    )


T = TypeVar("T")


def front(items: Sequence[tuple[T, Finding]]) -> list[tuple[T, Finding]]:
    """Of the items that were not stopped, those that no other of them dominates, the most accurate first. Of equal findings the first
    stays."""
    whole = [(item, finding) for item, finding in items if not finding.stopped]
    kept: list[tuple[T, Finding]] = []
    for item, finding in whole:
        beaten = any(dominates(other, finding) for _, other in whole)
        if not beaten and all(other.objectives != finding.objectives for _, other in kept):
            kept.append((item, finding))
    return sorted(kept, key=lambda pair: pair[1].objectives, reverse=True)
