"""Captured decode steps: what a step puts on the GPU is recorded once, as a CUDA graph, and put there again by one call.

A decode step is some thirty kernels a layer, and fifty for eight turns; Python takes longer to launch them than the GPU to run them. A
graph launches all at once, but always the same kernels on the same addresses. So a step to be captured is brought into a *static form*:
what changes from step to step (tokens, rope positions, how long each tail is) is read from fixed buffers, keys and values are written at
an index that stands in device memory, and a row's own tail has columns ahead of it that are masked until they are written.

A graph is good for one membership: the same turns in the same order, a row from each. Graphs by batch size alone, with rows of padding,
would not do, since keys and values are read where they lie, and those of other turns and documents lie elsewhere. Two ways around that
were weighed. A table of addresses in device memory (paged attention) needs a kernel of our own: torch has none over segments of any size,
and copying documents into pages is what segments are there to avoid. Capturing only what lies between two attentions serves every step of
so many rows, drafts too, but leaves a third of the kernels to Python, and more than half in a batch. Answers are long and memberships
few, so the whole step is captured once a membership has lasted a while. All else (questions, pages, drafts, turns that come and go) runs
as ever, and a graph may be used again behind it.

Sampling is outside: logits come out in a buffer that the next step overwrites.

Nothing here has run on a GPU yet. Everything but `CudaRecorder` is tested on a CPU, where `eagerly` takes its place.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glyph_rt.errors import ClosedError, OptionError
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.model import LanguageModel
from glyph_rt.language.rows import Group, Past, Rows, grouped
from glyph_rt.language.scores import ScoreAttention, StaticScoreAttention
from glyph_rt.language.segments import KVSegment, KVTail
from glyph_rt.memory.limits import MIB, KVDtype

SETTLED = 4  # steps in a row with the same members, after which they are captured; a capture costs about as much as a few steps
GRAPHS = 4  # kept at once; the least recently used goes first
AHEAD = 32  # tokens that a new graph's columns have room for, at least; columns come in powers of two, so that few graphs are outgrown
CAPTURED_SCORES_BYTES = 256 * MIB  # of a step: 8 rows of GLM-4.1V over 130,000 tokens; a larger step is not captured
ATTEMPTS = 3  # captures that may fail before none is tried any more; torch keeps the memory of each (pytorch pull request 190308)

Work = Callable[[], None]
Recorder = Callable[[Work], Work]
"""Gives what does a piece of work again, on the addresses it had. The work may be run for that, any number of times. Raises RuntimeError
when it cannot be recorded; the work may then have been done or not."""

_log = logging.getLogger(__name__)


def eagerly(work: Work) -> Work:
    """Records nothing: doing it again is doing it. For tests without a GPU."""
    return work


class CudaRecorder:
    """Records CUDA graphs. They share one pool of memory, so only one may run at a time, and what they leave in it is not to be read.

    Never run on a GPU yet. Captures are restricted to the calling thread, since others encode pages meanwhile; a thread that waits for
    the whole device at the wrong moment makes one fail all the same (NVIDIA/TensorRT issue 2888). Raises OptionError for a device that
    is no GPU.
    """

    def __init__(self, device: str) -> None:
        if torch.device(device).type != "cuda":
            raise OptionError(f"CUDA graphs (--cuda-graphs) need the decoder on a GPU, and it runs on {device}")
        self._stream = torch.cuda.Stream(torch.device(device))  # type: ignore[no-untyped-call]
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def __call__(self, work: Work) -> Work:
        caller = torch.cuda.current_stream(self._stream.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):  # a capture that fails does not put the caller's stream back by itself
            self._stream.wait_stream(caller)
            work()  # kernels and workspaces of libraries are loaded at their first use, which no capture survives
            caller.wait_stream(self._stream)
            with torch.cuda.graph(graph, self._pool(), self._stream, capture_error_mode="thread_local"):
                work()
        self._graphs.add(graph)
        return graph.replay

    def _pool(self) -> Any:
        """That of the graphs there are. torch refuses a pool again whose graphs are all gone (vllm issue 28426)."""
        return next((graph.pool() for graph in self._graphs), None) or torch.cuda.graph_pool_handle()


@dataclass(frozen=True)
class _Member:
    """The past of a turn in a captured step. A graph keeps nobody's memory from being given back, so it only watches."""

    tail: weakref.ref[KVTail]
    segments: tuple[weakref.ref[KVSegment], ...]

    @classmethod
    def of(cls, past: Past) -> _Member:
        return cls(weakref.ref(past.tail), tuple(weakref.ref(segment) for segment in past.segments))

    @property
    def past(self) -> Past | None:
        """None once any of it was given back, after which no address of it is good."""
        tail, segments = self.tail(), [segment() for segment in self.segments]
        if tail is None or tail.closed:
            return None
        alive = tuple(segment for segment in segments if segment is not None)
        return Past(alive, tail) if len(alive) == len(segments) else None


Members = tuple[_Member, ...]


class _Desk:
    """The buffers that all static steps share, for up to `rows` rows: what goes in, and logits, which come out."""

    def __init__(self, model: LanguageModel, rows: int) -> None:
        self._inputs = torch.zeros((3, rows), dtype=torch.int64, device=model.device)
        self._logits = torch.empty((rows, model.vocabulary), device=model.device)
        self.tokens, self.positions, self.lengths = self._inputs.unbind(0)  # each [rows]

    @property
    def rows(self) -> int:
        return len(self._logits)

    def lay(self, parts: Sequence[Rows]) -> None:
        """Put a step's inputs in their place, by one copy."""
        each = [(rows.tokens[0], rows.positions[0], rows.past.tail.length) for rows in parts]
        self._inputs[:, : len(parts)] = torch.tensor(each).T

    def logits(self, rows: int) -> Tensor:
        """[rows, vocabulary], fp32; until the next step."""
        return self._logits[:rows]


class StaticStep:
    """A decode step of `members` in static form. `run` reads the desk's inputs and leaves logits there; tails are not advanced.

    columns: what the members' own tails get; a tail as long has outgrown the step.
    """

    def __init__(self, model: LanguageModel, members: Members, desk: _Desk, columns: int) -> None:
        self.columns = columns
        self._model, self._members, self._desk = model, members, desk
        for part in self._parts():  # what a row has no weight for counts nothing, unless it is NaN, which fresh memory may hold
            tail = part.past.tail
            tail.first(tail.capacity).part(tail.length, columns).kv.zero_()

    def run(self) -> None:
        parts, desk, rows = self._parts(), self._desk, len(self._members)
        batch = StepBatch(parts, self._model.heads, self._attentions)
        hidden = self._model.forward(self._model.embed(desk.tokens[:rows]), desk.positions[:rows].expand(3, -1), batch)
        desk.logits(rows).copy_(self._model.logits(hidden))

    def _parts(self) -> list[Rows]:
        """A row of each member; of its inputs only the past counts."""
        pasts = [member.past for member in self._members]
        if not all(pasts):
            raise ClosedError("a turn of this step has ended")
        return [Rows(past, [0], range(1), wanted=1) for past in pasts if past is not None]

    def _attentions(self, groups: Sequence[Group], heads: int) -> Iterator[StaticScoreAttention]:
        for group in groups:
            yield StaticScoreAttention(group, heads, self.columns, self._desk.lengths[group.start : group.stop])


@dataclass(frozen=True)
class _Captured:
    columns: int
    replay: Work


class StepGraphs:
    """The captured steps of one loop, which alone calls this. At most GRAPHS are kept, for as long as their members live."""

    def __init__(self, model: LanguageModel, record: Recorder, rows: int) -> None:
        self.captures = 0  # so far
        self._model, self._record = model, record
        self._desk = _Desk(model, rows)
        self._captured: OrderedDict[Members, _Captured] = OrderedDict()  # least recently used first
        self._last: Members = ()
        self._lasted = 0  # steps in a row of the last members
        self._attempts = ATTEMPTS

    def step(self, parts: Sequence[Rows]) -> list[Tensor] | None:
        """Run a step that is captured, or is to be now, and advance its tails: everyone's logits [1, vocabulary], until the next step.

        None, and nothing is done, for any other step.
        """
        if not self._attempts or len(parts) > self._desk.rows or not all(map(_decodes, parts)):
            return None
        members = tuple(_Member.of(rows.past) for rows in parts)
        captured = self._captured.get(members)
        longest = max(rows.past.tail.length for rows in parts)
        if captured is None and not self._settled(members):
            return None
        self._desk.lay(parts)
        if captured is None or longest >= captured.columns:
            captured = self._capture(members, parts, longest)
            if captured is None:
                return None
        self._captured.move_to_end(members)
        captured.replay()
        for rows in parts:
            rows.past.tail.advance(1)
        return list(torch.split(self._desk.logits(len(parts)), 1))

    def prune(self) -> None:
        """Drop what turns that have ended leave behind."""
        for members in [members for members in self._captured if not all(member.past for member in members)]:
            del self._captured[members]

    def __len__(self) -> int:
        return len(self._captured)

    def _settled(self, members: Members) -> bool:
        if members != self._last:
            self._last, self._lasted = members, 0
        self._lasted += 1
        return self._lasted > SETTLED

    def _capture(self, members: Members, parts: Sequence[Rows], longest: int) -> _Captured | None:
        """With the inputs laid out. None when the step is too large, or could not be captured."""
        self._captured.pop(members, None)
        columns = 1 << (longest + AHEAD).bit_length()
        if _scores_bytes(parts, self._model.heads, columns) > CAPTURED_SCORES_BYTES:
            return None
        while len(self._captured) >= GRAPHS:
            self._captured.popitem(last=False)
        try:
            replay = self._record(StaticStep(self._model, members, self._desk, columns).run)
        except (RuntimeError, MemoryError) as error:
            if self._attempts == ATTEMPTS:
                _log.warning("a decode step could not be captured and runs without: %s", " ".join(str(error).split())[:300])
            self._attempts -= 1
            return None
        self.captures += 1
        self._captured[members] = _Captured(columns, replay)
        return self._captured[members]


def _decodes(rows: Rows) -> bool:
    """Whether it is one token of text whose logits are wanted, and there is room for its keys and values as they come."""
    tail = rows.past.tail
    alone = len(rows.tokens) == rows.wanted == 1 and rows.image is None and isinstance(rows.positions, range)
    return alone and not tail.closed and tail.length < tail.capacity and tail.shape.kept == KVDtype.MODEL


def _scores_bytes(parts: Sequence[Rows], heads: int, columns: int) -> int:
    return sum(ScoreAttention.bytes(group, heads, columns) for group in grouped(parts))
