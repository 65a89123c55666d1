"""What turns and readings bring into a step, and which of it attends to the same keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from glyph_rt.language.segments import KVSegment, KVTail


@dataclass(frozen=True)
class Past:
    """What a turn's tokens attend to besides themselves: segments in order, then the tail."""

    segments: tuple[KVSegment, ...]
    tail: KVTail


@dataclass(frozen=True)
class Rows:
    """What one turn or reading brings into a step.

    tokens: ids; positions: rope positions, a range or int64 [3, tokens]; wanted: for how many of the last tokens logits are wanted;
    visual: what takes the place of the tokens at `image`, [n, hidden].
    """

    past: Past
    tokens: Sequence[int]
    positions: range | Tensor
    wanted: int = 0
    image: slice | None = None
    visual: Tensor | None = None


@dataclass(frozen=True)
class Span:
    """Rows [start, stop) of a step, whose keys and values one tail gets."""

    tail: KVTail
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def seen(self) -> int:
        """Tokens of the tail that the last row attends to, itself included."""
        return self.tail.length + self.rows


@dataclass(frozen=True)
class Shared:
    """Rows [start, stop) of a step, which all attend to `segment`. before: tokens of the chain before it."""

    segment: KVSegment
    before: int
    start: int
    stop: int


@dataclass(frozen=True)
class Group:
    """Neighbours in a step whose pasts begin with the same segment; or one part whose past has none."""

    spans: tuple[Span, ...]
    shared: tuple[Shared, ...]

    @property
    def start(self) -> int:
        return self.spans[0].start

    @property
    def stop(self) -> int:
        return self.spans[-1].stop

    @property
    def chain(self) -> int:
        """Tokens of the longest chain of segments."""
        return max((shared.before + shared.segment.tokens for shared in self.shared), default=0)


def grouped(parts: Sequence[Rows]) -> Iterator[Group]:
    """The parts of a step, laid behind each other. Neighbours that stand on the same segments share them."""
    spans: list[Span] = []
    shared: list[Shared] = []
    before: list[Shared] = []  # what the part before attends to, in order
    at = 0
    for part in parts:
        stop = at + len(part.tokens)
        here = _attended(part.past.segments, before, at, stop)
        if spans and not (here and before and here[0].segment is before[0].segment):
            yield Group(tuple(spans), tuple(shared))
            spans, shared = [], []
        spans.append(Span(part.past.tail, at, stop))
        shared = [each for each in shared if not any(each.segment is mine.segment and each.start == mine.start for mine in here)] + here
        before, at = here, stop
    if spans:
        yield Group(tuple(spans), tuple(shared))


def _attended(segments: Sequence[KVSegment], before: Sequence[Shared], start: int, stop: int) -> list[Shared]:
    """What rows [start, stop) attend to: together with the rows before as far as the chains are the same."""
    here: list[Shared] = []
    tokens, common = 0, True
    for place, segment in enumerate(segment for segment in segments if segment.tokens):
        common = common and place < len(before) and before[place].segment is segment
        here.append(Shared(segment, tokens, before[place].start if common else start, stop))
        tokens += segment.tokens
    return here
