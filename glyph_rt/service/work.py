"""Work off the event loop: readings and answers in bounded thread pools, stopped within a batch of pages or one token.

The event loop never waits for a worker to stop. Whoever closes a `Reading` or an `AnswerRun` says that nobody wants its outcome;
the worker finishes the batch of pages or the token it is at, and then its memory comes back on its own thread.

Answers are computed together by the runtime's step loop. The threads here wait for it, and turn what comes into text.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from glyph_rt.documents import Answer, Document, Progress, ProgressCallback
from glyph_rt.language import Channel, Piece
from glyph_rt.memory.arena import PlaceCallback

T = TypeVar("T")
PIECES_AHEAD = 32  # of an answer, handed over and not sent yet


class Workers:
    """Threads that read, of which there are few, so that readings do not crowd out answers; and one for every stream, so that no answer
    waits for another's next token, or for another's turn at KV memory.
    """

    def __init__(self, readers: int, streams: int) -> None:
        self.readers = ThreadPoolExecutor(readers, "glyph-read")
        self.line = Line(readers)
        self.answerers = ThreadPoolExecutor(streams, "glyph-answer")

    async def draw(self, task: Callable[[], T]) -> T:
        """What `task` gives, on a thread of a stream that does not read."""
        return await asyncio.wrap_future(self.answerers.submit(task))

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        for pool in (self.readers, self.answerers):
            pool.shutdown(wait=True, cancel_futures=True)


class Line:
    """Those who have one of a pool's threads or wait for one, in the order they came, which is the order they get one.

    Each is a callback that is told its place, from 1, whenever it changes. Used from the event loop only.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._members: list[PlaceCallback] = []

    def join(self, member: PlaceCallback) -> None:
        """Come last."""
        self._members.append(member)
        if len(self._members) > self._threads:
            member(len(self._members) - self._threads)

    def leave(self, member: PlaceCallback) -> None:
        """Need no thread any more."""
        at = self._members.index(member)
        del self._members[at]
        for place, moved in enumerate(self._members[self._threads :], 1):
            if place > at - self._threads:
                moved(place)


class _StoppedError(Exception):
    """Unwinds work that nobody waits for any more; seen by no one."""


class Reading:
    """One text on its way to a document. Must be closed; `document()` hands the document over, else closing drops it.

    read: reads it, on a worker's thread. on_end: called once the text is let go, on that thread.
    """

    def __init__(self, workers: Workers, read: Callable[[ProgressCallback], Document], on_end: Callable[[], None]) -> None:
        self._read, self._line = read, workers.line
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._taken = False
        self._last: Progress | None = None
        self._submitted = time.perf_counter()
        self.queued_s = 0.0  # waited for a thread; known once it has begun
        # Holds at most one entry per page of the document, one per place in either queue, and one for its end.
        self._events: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._line.join(self._wait)
        self._future: Future[Document] = workers.readers.submit(self._run)
        self._future.add_done_callback(lambda _: on_end())
        self._future.add_done_callback(lambda _: self._post(self._end))

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
        """Stop within a batch of pages; a document that nobody took is closed. One that waits for memory looks after `Arena.recheck`."""
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
            self._post(lambda: self._events.put_nowait(progress))

    def _wait(self, place: int) -> None:
        self._events.put_nowait(Progress("wait", 0, place))

    def _end(self) -> None:
        self._events.put_nowait(None)
        self._line.leave(self._wait)

    def _check(self) -> None:
        if self._stopped:
            raise _StoppedError

    def _post(self, act: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has closed: the server is gone, and so is whoever listened
            self._loop.call_soon_threadsafe(act)

    def _drop(self, future: Future[Document]) -> None:
        if not self._taken and not future.cancelled() and future.exception() is None:
            future.result().close()


class AnswerRun(Generic[T]):
    """One answer, on a thread that waits for its tokens and runs at most a few pieces ahead of whoever reads them.

    make: admits the question, on that thread, and tells the place in the queue for KV memory while it waits there. conclude: called
    with the answer when it has come to its end, on that thread; what it gives is `conclusion`. thinking: pieces of the thinking channel
    are wanted too.
    Must be closed. Only one of its coroutines may run at a time.
    """

    def __init__(
        self, pool: Executor, make: Callable[[PlaceCallback], Answer], conclude: Callable[[Answer], T], thinking: bool = False
    ) -> None:
        self._make, self._conclude, self._thinking = make, conclude, thinking
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._telling = False  # news are on their way to the event loop
        self._place = 0
        self._answer: Answer | None = None
        self._ready: deque[Piece] = deque()
        self._room = threading.Semaphore(PIECES_AHEAD)
        self._closed = False
        self._future: Future[T | None] = pool.submit(self._work)
        self._future.add_done_callback(lambda _: self._tell())

    @property
    def conclusion(self) -> T:
        """Once the answer has ended."""
        concluded = self._future.result()
        assert concluded is not None, "an answer that was closed has no conclusion"
        return concluded

    async def places(self) -> AsyncIterator[int]:
        """Places in the queue for KV memory, from 1, as they change, until the question is admitted or refused."""
        told = 0
        while self._answer is None and not self._future.done():
            if self._place != told:
                told = self._place
                yield told
            await self._hear()

    async def start(self) -> Answer:
        """Wait until the question is admitted. Raises what `Document.ask` raises."""
        while self._answer is None:
            if self._future.done():
                self._future.result()
            await self._hear()
        return self._answer

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces that are wanted, as they come."""
        taken = 0
        while True:
            ended = self._future.done()  # looked at first: what was ready then is all there will be
            while self._ready:
                yield self._ready.popleft()
                taken += 1
                if taken == PIECES_AHEAD // 2:  # room for many at a time: a thread that waits for room is not woken for every piece
                    self._room.release(taken)
                    taken = 0
            if ended:
                self._future.result()
                return
            await self._hear()

    def close(self) -> None:
        """Stop within one token and give the answer's memory back. One that waits for memory looks after `Arena.recheck`."""
        self._closed = True
        self._room.release()
        self._future.cancel()
        self._future.add_done_callback(lambda _: self._finish())

    async def _hear(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _tell(self) -> None:
        """There is news. Called by the answer's thread; what is told while earlier news are on their way goes with them."""
        if not self._telling:
            self._telling = True
            with suppress(RuntimeError):  # the loop has closed: the server is gone, and so is whoever listened
                self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        self._telling = False
        self._news.set()

    def _work(self) -> T | None:
        # Kept from the first moment on: a caller that has gone meanwhile closes it all the same.
        answer = self._answer = self._make(self._wait)
        self._tell()
        for pieces in answer.steps():
            for piece in pieces:
                if piece.channel == Channel.THINKING and not self._thinking:
                    continue
                self._room.acquire()
                if self._closed:  # what closing released may have been that room; there will be no more
                    break
                self._ready.append(piece)
                self._tell()
            if self._closed:
                answer.close()  # waits for the decoder's step, here where it holds nobody up
                return None
        return self._conclude(answer)

    def _wait(self, place: int) -> None:
        if self._closed:
            raise _StoppedError
        self._place = place
        self._tell()

    def _finish(self) -> None:
        if self._answer is not None:
            self._answer.cancel()  # not close: that waits for the decoder's step, and this may be the event loop
