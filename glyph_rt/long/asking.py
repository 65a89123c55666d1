"""Putting questions to one reading: a few answers at a time, with their progress, within KV memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from glyph_rt.documents import Answer, Document, Progress, ProgressCallback
from glyph_rt.errors import BusyError, GlyphError
from glyph_rt.language import Piece, Sampling

TOGETHER = 8  # answers on one reading that are worked on at once

Emit = Callable[[Piece], None]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Asking:
    """A question as it is put to a reading. emit: given the pieces of its answer as they come."""

    question: str
    sampling: Sampling
    emit: Emit | None = None


def put(document: Document, askings: Mapping[Key, Asking], watch: Watch) -> Iterator[tuple[Key, Answer | GlyphError]]:
    """Ask questions of a document: each with its answer, which has ended, or with what is wrong with it.

    watch: told of every token, and of places in the queue for KV memory. What it or `emit` raises closes all answers.
    """
    waiting = deque(askings.items())
    running: deque[tuple[Key, Answer]] = deque()
    try:
        while waiting or running:
            while waiting and len(running) < TOGETHER and (not running or _is_room(document, running[-1][1])):
                key, asking = waiting[0]
                try:
                    running.append((key, document.ask(asking.question, asking.sampling, progress=_at_once if running else watch)))
                except BusyError as error:
                    if running:  # these will give room
                        break
                    yield key, error
                except GlyphError as error:
                    yield key, error
                waiting.popleft()
            if running:
                key, answer = running[0]
                try:
                    _run(answer, askings[key].emit, watch)
                    yield key, answer
                except GlyphError as error:
                    yield key, error
                running.popleft()
    finally:
        for _, answer in running:
            answer.close()


def _run(answer: Answer, emit: Emit | None, watch: Watch) -> None:
    for pieces in answer.steps():
        watch.tick()
        if emit is not None:
            for piece in pieces:
                emit(piece)


def _at_once(progress: Progress) -> None:
    """Who has answers running does not wait for memory: they hold some, and those that nobody reads rest. Raises BusyError."""
    if progress.stage == "wait":
        raise BusyError("there is no room for another answer beside those that run")


def _is_room(document: Document, last: Answer) -> bool:
    """Whether another answer like the last finds KV memory at once."""
    arena = document.means.arena
    return arena.budget - arena.used >= last.kv_bytes


class Watch:
    """The progress of one reading as a part of all that is read."""

    def __init__(self, progress: ProgressCallback | None, done: int, total: int) -> None:
        self._progress, self._before, self._total = progress, done, total
        self._last = Progress("read", done, total)

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "wait":
            if self._progress is not None:
                self._progress(progress)
            return
        if progress.stage == "read":
            self._last = Progress("read", self._before + progress.done, self._total)
        self.tick()

    def tick(self) -> None:
        """Tell it again: whoever wants to stop gets to."""
        if self._progress is not None:
            self._progress(self._last)
