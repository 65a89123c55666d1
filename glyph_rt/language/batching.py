"""StepLoop: the one thread that runs the decoder. Every step takes the next rows of each running turn and at most one page of one
reading, all in one forward pass.

So a long reading holds a running answer up by one page at most, many answers cost little more than one, and whoever is cancelled is gone
before the next step. Drawing pages, encoding them and turning tokens into text happen on the threads of those who want them.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from glyph_rt.errors import ClosedError
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.graphs import Recorder, StepGraphs
from glyph_rt.language.model import LanguageModel
from glyph_rt.language.prompt import PromptPiece
from glyph_rt.language.rows import Past, Rows
from glyph_rt.language.turn import PREFILL_ROWS, Turn

TURNS_PER_STEP = 64  # when there are more, documents take turns
PAGES_AHEAD = 2  # of one reading, handed in and not prefilled: keeps the loop busy, and bounds what encoded pages take
LINGER_S = 1.0  # how long the thread waits for work before it ends; new work starts another


class Participant(Protocol):
    """Who may be in a step: a turn or a reading."""

    subject: Hashable  # the document; the loop is fair between subjects
    priority: int  # higher goes first, always
    served: int  # the last step it was in

    def rows(self) -> Rows: ...
    def accept(self, rows: Rows, logits: Tensor) -> None: ...
    def fail(self, error: BaseException) -> None: ...


P = TypeVar("P", bound=Participant)


class Reading:
    """Pages on their way into one tail, handed in by the thread that encodes them. Made by `StepLoop.reading`.

    Must be closed; after that nothing touches the tail any more.
    """

    def __init__(self, loop: StepLoop, past: Past, priority: int) -> None:
        self.past, self.priority, self.served = past, priority, 0
        self.subject: Hashable = self  # a document of its own
        self.done = 0  # pages prefilled
        self.waiting: deque[Rows] = deque()
        self.running: Rows | None = None  # in the step under way
        self._loop = loop
        self._error: BaseException | None = None

    def add(self, piece: PromptPiece, visual: Tensor) -> None:
        """Hand in the next page. Whoever does so keeps at most PAGES_AHEAD waiting."""
        self._loop.hand_in(self, Rows(self.past, piece.tokens, piece.positions, image=piece.image, visual=visual))

    def wait_for(self, pages: int) -> None:
        """Until so many pages are prefilled. Raises what prefilling one raised."""
        self._loop.wait(lambda: self._error is not None or self.done >= pages)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Drop what is not prefilled, and wait for the step under way if it has a page of this reading."""
        self._loop.drop(self)

    # -- the loop's side

    def take(self) -> None:
        """The next page goes into a step."""
        self.running = self.waiting.popleft()

    def rows(self) -> Rows:
        assert self.running is not None, "taken before it is run"
        return self.running

    def accept(self, rows: Rows, logits: Tensor) -> None:
        self.done += 1
        self.running = None

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.waiting.clear()
        self.running = None


class StepLoop:
    """Owns the decoder: only its thread runs it. Thread-safe. record: how decode steps are captured, if they are."""

    def __init__(self, model: LanguageModel, record: Recorder | None = None) -> None:
        self.model = model
        self.steps = 0
        self._changed = threading.Condition()
        self._turns: list[Turn] = []
        self._readings: list[Reading] = []
        self._thread: threading.Thread | None = None
        self._leaving = False
        self._graphs = None if record is None else StepGraphs(model, record, TURNS_PER_STEP)

    # -- called by any thread

    def submit(self, turn: Turn) -> None:
        """Run a turn to its end."""
        turn.wake = self._wake
        with self._changed:
            self._work_came()
            self._turns.append(turn)

    def reading(self, past: Past, priority: int = 0) -> Reading:
        """A reading that prefills into `past.tail`."""
        reading = Reading(self, past, priority)
        with self._changed:
            self._readings.append(reading)
        return reading

    def hand_in(self, reading: Reading, page: Rows) -> None:
        """One more page of a reading. Raises ClosedError for one that was dropped."""
        with self._changed:
            if reading not in self._readings:
                raise ClosedError("this reading was closed")
            self._work_came()
            reading.waiting.append(page)

    def drop(self, reading: Reading) -> None:
        """Forget a reading, once no step has a page of it."""
        with self._changed:
            if reading in self._readings:
                self._readings.remove(reading)
            reading.waiting.clear()
            self._changed.wait_for(lambda: reading.running is None)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; it is looked at after every step."""
        with self._changed:
            self._changed.wait_for(condition)

    def _wake(self) -> None:
        with self._changed:
            self._work_came()

    def _work_came(self) -> None:
        """With the lock held, until which what came is in its place: the thread takes the lock first."""
        if self._thread is None:
            thread = _LoopThread(self)
            thread.start()
            self._thread = thread
            _THREADS.add(thread)
        self._changed.notify_all()

    def leave(self) -> None:
        """The process ends: the thread ends before its next step."""
        with self._changed:
            self._leaving = True
            self._changed.notify_all()

    # -- the loop's thread

    def run(self) -> None:
        """The thread's life: until there has been no work for a while."""
        try:
            self._run_steps()
        except BaseException as error:  # a defect of ours; whoever waits must not wait for ever
            with self._changed:
                self._thread = None
                turns, self._turns = self._turns, []
                for reading in self._readings:
                    reading.fail(error)
                self._changed.notify_all()
            for turn in turns:
                turn.fail(error)
            raise

    @torch.inference_mode()
    def _run_steps(self) -> None:
        while True:
            with self._changed:
                if self._leaving:
                    return
                cancelled = [turn for turn in self._turns if turn.cancelled]
                self._turns = [turn for turn in self._turns if not turn.cancelled]
                chosen = self._choose()
                if not chosen and not cancelled:
                    if not self._changed.wait_for(self._has_work, LINGER_S):
                        self._thread = None
                        return
                    continue
            for turn in cancelled:  # not under the lock: ending a turn takes the arena's
                turn.end("cancelled")
            self._step([(participant, None) for participant in chosen])
            if self._graphs is not None:
                self._graphs.prune()
            with self._changed:
                self._turns = [turn for turn in self._turns if turn.finish_reason is None]
                self._changed.notify_all()

    def _has_work(self) -> bool:
        return (
            self._leaving
            or any(turn.cancelled or not turn.resting for turn in self._turns)
            or any(reading.waiting for reading in self._readings)
        )

    def _choose(self) -> list[Participant]:
        """Who is in the next step."""
        chosen: list[Participant] = []
        room = PREFILL_ROWS  # of questions, so that the step stays short for those who are being answered
        for turn in fairly([turn for turn in self._turns if not turn.resting]):
            if turn.rows_next and room <= 0:
                continue
            room -= turn.rows_next
            chosen.append(turn)
            if len(chosen) == TURNS_PER_STEP:
                break
        chosen.sort(key=lambda turn: hash(turn.subject))  # neighbours on one document read its KV together
        for reading in fairly([reading for reading in self._readings if reading.waiting])[:1]:
            reading.take()
            chosen.insert(0, reading)
        self.steps += bool(chosen)
        for participant in chosen:
            participant.served = self.steps
        return chosen

    def _step(self, parts: Sequence[tuple[Participant, Rows | None]]) -> None:
        """One forward pass. If it fails everyone gets one alone, so that only who cannot be run fails."""
        ready: list[tuple[Participant, Rows]] = []
        for participant, rows in parts:
            try:
                ready.append((participant, rows or participant.rows()))
            except Exception as error:
                participant.fail(error)
        if not ready:
            return
        try:
            logits = self._forward([rows for _, rows in ready])
        except Exception as error:
            if len(ready) == 1:
                ready[0][0].fail(error)
            else:
                for part in ready:
                    self._step([part])
            return
        for (participant, rows), own in zip(ready, logits, strict=True):
            try:
                participant.accept(rows, own)
            except Exception as error:
                participant.fail(error)

    def _forward(self, parts: Sequence[Rows]) -> Sequence[Tensor]:
        """Run everyone's rows; everyone's logits, until the next step."""
        if self._graphs is not None and (captured := self._graphs.step(parts)) is not None:
            return captured
        embeddings = self.model.embed([token for rows in parts for token in rows.tokens])
        batch = StepBatch(parts, self.model.heads)
        wanted: list[int] = []
        for rows, span in zip(parts, batch.spans, strict=True):
            if rows.image is not None and rows.visual is not None:
                embeddings[span.start : span.stop][rows.image] = rows.visual.to(embeddings)
            wanted += range(span.stop - rows.wanted, span.stop)
        hidden = self.model.forward(embeddings, _positions(parts), batch)
        logits = self.model.logits(hidden if len(wanted) == len(hidden) else hidden[wanted])
        batch.advance()
        return list(torch.split(logits, [rows.wanted for rows in parts]))


class _LoopThread(threading.Thread):
    """Runs a loop; a daemon, since it may have to wait for work for ever."""

    def __init__(self, loop: StepLoop) -> None:
        super().__init__(target=loop.run, name="glyph-decoder", daemon=True)
        self.loop = weakref.ref(loop)


_THREADS: weakref.WeakSet[_LoopThread] = weakref.WeakSet()  # a thread that has ended is in no hands any more


@atexit.register
def _end_threads() -> None:
    """torch aborts the process when it is killed inside a thread, be it that the thread only frees the model which nobody else has."""
    for thread in list(_THREADS):
        loop = thread.loop()
        if loop is not None:
            loop.leave()
        del loop
        thread.join()


def _positions(parts: Sequence[Rows]) -> Tensor:
    """Everyone's rope positions, [3, rows]."""
    if all(isinstance(rows.positions, range) for rows in parts):
        return torch.tensor([at for rows in parts for at in rows.positions]).expand(3, -1)
    each = (torch.tensor(p).expand(3, -1) if isinstance(p, range) else p for p in (rows.positions for rows in parts))
    return torch.cat(list(each), 1)


def fairly(waiting: Iterable[P]) -> list[P]:
    """By priority; then each subject's first, each subject's second, and so on; in every round, whoever was served longest ago first."""
    seen: Counter[tuple[int, Hashable]] = Counter()
    order = []
    for participant in sorted(waiting, key=lambda p: p.served):
        kind = participant.priority, participant.subject
        order.append((-participant.priority, seen[kind], participant))
        seen[kind] += 1
    return [participant for *_, participant in sorted(order, key=lambda entry: entry[:2])]
