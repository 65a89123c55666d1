"""What a trial of a style found, and the Pareto front of such findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from glyph_rt.evaluate.metrics import Interval


@dataclass(frozen=True)
class Finding:
    """What reading in a style came to.

    accuracy: share of right answers among so many `questions`. compression: text tokens per visual token of all documents, density:
    characters per visual token. time: of reading a document and answering, as a multiple of what the reference style takes.
    readable: whether it reads well enough to be of any use.
    """

    accuracy: Interval
    questions: int
    compression: float
    density: float
    time: float
    readable: bool = True

    @property
    def objectives(self) -> tuple[float, float, float]:
        """More is better in all three."""
        return self.accuracy.share, self.compression, -self.time

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        return cls(**{**data, "accuracy": Interval(**data["accuracy"])})


def dominates(a: Finding, b: Finding) -> bool:
    """Whether `a` is at least as good as `b` in every objective, and better in one. What is not readable dominates nothing that is."""
    if a.readable != b.readable:
        return a.readable
    pairs = list(zip(a.objectives, b.objectives, strict=True))
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def clearly_dominated(finding: Finding, others: Iterable[Finding]) -> bool:
    """Whether another style is certain to read better and costs no more: no further question can bring this one to the front."""
    return any(
        other.accuracy.low > finding.accuracy.high and other.compression >= finding.compression and other.time <= finding.time
        for other in others
        if other.readable
    )


T = TypeVar("T")


def front(items: Sequence[tuple[T, Finding]]) -> list[tuple[T, Finding]]:
    """The readable items that no other dominates, the most accurate first. Of equal findings the first stays."""
    kept: list[tuple[T, Finding]] = []
    for item, finding in items:
        beaten = any(dominates(other, finding) for _, other in items)
        doubled = any(other.objectives == finding.objectives for _, other in kept)
        if finding.readable and not beaten and not doubled:
            kept.append((item, finding))
    return sorted(kept, key=lambda pair: pair[1].objectives, reverse=True)
