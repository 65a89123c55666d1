"""Work off the event loop: readings and answers in bounded thread pools, stopped within a batch of pages or one token.

The event loop never waits for a worker to stop. Whoever closes a `Reading` or an `AnswerRun` says that nobody wants its outcome;
the worker finishes the batch of pages or the token it is at, and then its memory comes back on its own thread.

Answers are computed together by the runtime's step loop. The threads here wait for it, and turn what comes into text. Those that answer
about a long text have its parts read by the threads that read, one part a turn.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from glyph_rt.documents import Document, Progress, ProgressCallback
from glyph_rt.language import Channel, Piece
from glyph_rt.memory.arena import PlaceCallback
from glyph_rt.v1.answers_pb2 import AnswerAccepted

S = TypeVar("S")
T = TypeVar("T")
PIECES_AHEAD = 32  # of an answer, handed over and not sent yet


class Workers:
    """Threads that read, of which there are few, so that readings do not crowd out answers; and one for every stream, so that no answer
    waits for another's next token, or for another's turn at KV memory.
    """

    def __init__(self, readers: int, streams: int) -> None:
        self.readers = Line(readers, "glyph-read")
        self.answerers = ThreadPoolExecutor(streams, "glyph-answer")

    async def do(self, task: Callable[[], T]) -> T:
        """What `task` gives, on a thread of a stream that does not read."""
        return await asyncio.wrap_future(self.answerers.submit(task))

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        self.readers.close()
        self.answerers.shutdown(wait=True, cancel_futures=True)


class Line:
    """A few threads, and those who have one or wait for one, in the order they came, which is the order they get one. Thread-safe."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()
        self._members: list[PlaceCallback] = []

    def submit(self, work: Callable[[], T], member: PlaceCallback) -> Future[T]:
        """Have `work` done on one of the threads; cancel it to leave the line. member: told the place in it, from 1, whenever that
        changes, on any thread, so it must neither block nor raise.
        """

        def leave_behind() -> T:
            try:
                return work()
            finally:
                self._leave(member)  # before whoever waits for the outcome may come again

        with self._lock:  # places are those of the pool's own queue
            future = self._pool.submit(leave_behind)
            self._members.append(member)
            self._tell(len(self._members) - 1)
        future.add_done_callback(lambda ended: self._leave(member) if ended.cancelled() else None)
        return future

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, member: PlaceCallback) -> None:
        with self._lock:
            at = self._members.index(member)
            del self._members[at]
            for moved in range(at, len(self._members)):
                self._tell(moved)

    def _tell(self, at: int) -> None:
        if at >= self._threads:
            self._members[at](at - self._threads + 1)


class _StoppedError(Exception):
    """Unwinds work that nobody waits for any more; seen by no one."""


class Reading:
    """One text on its way to a document. Must be closed; `document()` hands the document over, else closing drops it.

    read: reads it, on a worker's thread. on_end: called once the text is let go, on that thread.
    """

    def __init__(self, workers: Workers, read: Callable[[ProgressCallback], Document], on_end: Callable[[], None]) -> None:
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._taken = False
        self._last: Progress | None = None
        self._submitted = time.perf_counter()
        self.queued_s = 0.0  # waited for a thread; known once it has begun
        # Holds at most one entry per page of the document, one per place in either queue, and one for its end.
        self._events: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._future: Future[Document] = workers.readers.submit(self._run, self._wait)
        self._future.add_done_callback(lambda _: on_end())
        self._future.add_done_callback(lambda _: self._post(None))

    async def progress(self) -> AsyncIterator[Progress]:
        """Places in the queues (for a thread, then for KV memory) and pages as they are read, until it has ended, well or not."""
        while (event := await self._events.get()) is not None:
            yield event

    async def document(self) -> Document:
        """The document, which is the caller's from here on. Raises what `read` raised."""
        document = await asyncio.wrap_future(self._future)
        self._taken = True
        return document

    def close(self) -> None:
        """Stop within a batch of pages; a document that nobody took is closed. One that waits, for memory or another's pages, looks after
        `Arena.recheck`."""
        self._stopped = True
        self._future.cancel()
        self._future.add_done_callback(self._drop)

    def _run(self) -> Document:
        self._check()
        self.queued_s = time.perf_counter() - self._submitted
        return self._read(self._advance)

    def _advance(self, progress: Progress) -> None:
        self._check()
        if progress != self._last:  # a place in the queue may be told again
            self._last = progress
            self._post(progress)

    def _wait(self, place: int) -> None:
        self._post(Progress("wait", 0, place))

    def _check(self) -> None:
        if self._stopped:
            raise _StoppedError

    def _post(self, event: Progress | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: the server is gone, and so is whoever listened
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _drop(self, future: Future[Document]) -> None:
        if not self._taken and not future.cancelled() and future.exception() is None:
            future.result().close()


class AnswerRun(Generic[T]):
    """One answer, on a thread that waits for its tokens and runs at most a few pieces ahead of whoever reads them.

    work: makes the answer, on that thread, and says through the methods of the run how it comes along; these raise when nobody wants the
    answer any more. What it gives is the run's `conclusion`. thinking: pieces of the thinking channel are wanted too. on_end: called when
    the work has ended, on that thread. Must be closed.
    """

    def __init__(
        self, workers: Workers, work: Callable[[AnswerRun[T]], T], thinking: bool = False, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._readers, self._thinking = workers.readers, thinking
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._telling = False  # news are on their way to the event loop
        self._last: Progress | None = None
        self._standing: deque[Progress] = deque(maxlen=1)  # where it stands, if that was not taken yet: only the last counts
        self._ready: deque[AnswerAccepted | Piece] = deque()
        self._room = threading.Semaphore(PIECES_AHEAD)
        self._closed = False
        self._turn: Future[Any] | None = None
        self.queued_s = 0.0  # waited for threads that read
        self._future: Future[T] = workers.answerers.submit(lambda: work(self))
        self._future.add_done_callback(lambda _: on_end())
        self._future.add_done_callback(lambda _: self._tell())

    @property
    def conclusion(self) -> T:
        """Once `events` has ended."""
        return self._future.result()

    async def events(self) -> AsyncIterator[Progress | AnswerAccepted | Piece]:
        """Where the work stands, whenever that changes, that the question was accepted, and pieces as they come; until the work has ended.
        Raises what it raised.
        """
        taken = 0
        while True:
            ended = self._future.done()  # looked at first: what was ready then is all there will be
            while self._standing:
                yield self._standing.popleft()
            while self._ready:
                yield self._ready.popleft()
                taken += 1
                if taken == PIECES_AHEAD // 2:  # room for many at a time: a thread that waits for room is not woken for every piece
                    self._room.release(taken)
                    taken = 0
            if ended:
                self._future.result()
                return
            await self._news.wait()
            self._news.clear()

    def close(self) -> None:
        """Stop within one token, or one batch of pages. One that waits, for memory or another's pages, looks after `Arena.recheck`."""
        self._closed = True
        self._room.release()
        self._future.cancel()
        if self._turn is not None:
            self._turn.cancel()

    # -- for the work

    def check(self) -> None:
        """Raises when the run was closed."""
        if self._closed:
            raise _StoppedError

    def progress(self, progress: Progress) -> None:
        """Say where the work stands; never blocks."""
        self.check()
        self._stand(progress)

    def accept(self, accepted: AnswerAccepted) -> None:
        """Say so, before any piece."""
        self._hand_over(accepted)

    def piece(self, piece: Piece) -> None:
        """Hand over a piece; blocks while there is no room for it."""
        if self._thinking or piece.channel != Channel.THINKING:
            self._hand_over(piece)

    def in_turn(self, work: Callable[[], S]) -> S:
        """What `work` gives, done on a thread that reads when it is our turn."""
        self.check()
        submitted = time.perf_counter()

        def begin() -> S:
            self.check()
            self.queued_s += time.perf_counter() - submitted
            return work()

        turn = self._readers.submit(begin, lambda place: self._stand(Progress("wait", 0, place)))
        self._turn = turn
        if self._closed:  # meanwhile
            turn.cancel()
        try:
            return turn.result()
        except CancelledError:
            raise _StoppedError from None

    def _stand(self, progress: Progress) -> None:
        if progress != self._last:  # told again at every token
            self._last = progress
            self._standing.append(progress)
            self._tell()

    def _hand_over(self, event: AnswerAccepted | Piece) -> None:
        self._room.acquire()
        self.check()  # what closing released may have been that room; there will be no more
        self._ready.append(event)
        self._tell()

    def _tell(self) -> None:
        """There is news. What is told while earlier news are on their way goes with them."""
        if not self._telling:
            self._telling = True
            with suppress(RuntimeError):  # the loop has closed: the server is gone, and so is whoever listened
                self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        self._telling = False
        self._news.set()
