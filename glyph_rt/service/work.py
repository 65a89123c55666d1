"""Work off the event loop: readings and answers in bounded thread pools, stopped within a batch of pages or one token.

The event loop never waits for a worker to stop. Whoever closes a `Reading` or an `AnswerRun` says that nobody wants its outcome;
the worker finishes the batch of pages or the token it is at, and then its memory comes back on its own thread.

Answers are computed together by the runtime's step loop. The threads here wait for it, and turn what comes into text.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from glyph_rt.documents import Answer, Document, Progress
from glyph_rt.runtime import Runtime

T = TypeVar("T")
_Slice = tuple[list[str], bool]  # pieces, and whether the answer has ended
_SLICE_S = 0.002  # how long pieces are gathered: longer than handing them over takes, shorter than anybody sees
_MOST_PIECES = 32  # of one slice


class Workers:
    """Threads that read, of which there are few, so that readings do not crowd out answers; and one for every stream, so that no answer
    waits for another's next token, or for another's turn at KV memory.
    """

    def __init__(self, readers: int, streams: int) -> None:
        self.readers = ThreadPoolExecutor(readers, "glyph-read")
        self.answerers = ThreadPoolExecutor(streams, "glyph-answer")

    async def draw(self, task: Callable[[], T]) -> T:
        """What `task` gives, on a thread of a stream that does not read."""
        return await asyncio.wrap_future(self.answerers.submit(task))

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        for pool in (self.readers, self.answerers):
            pool.shutdown(wait=True, cancel_futures=True)


class _StoppedError(Exception):
    """Unwinds a reading that nobody waits for any more; seen by no one."""


class Reading:
    """One text on its way through `Runtime.read`. Must be closed; `document()` hands the document over, else closing drops it.

    on_end: called once the text is let go, on a worker's thread.
    """

    def __init__(self, pool: Executor, runtime: Runtime, tenant: str, text: Callable[[], str], on_end: Callable[[], None]) -> None:
        self._runtime, self._tenant, self._text = runtime, tenant, text
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._taken = False
        self._submitted = time.perf_counter()
        self.queued_s = 0.0  # waited for a thread; known once it has begun
        # Holds at most one entry per page of the document and one for its end.
        self._events: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._future: Future[Document] = pool.submit(self._run)
        self._future.add_done_callback(lambda _: on_end())
        self._future.add_done_callback(lambda _: self._post(None))

    async def progress(self) -> AsyncIterator[Progress]:
        """Pages as they are read, until the reading has ended, well or not."""
        while (event := await self._events.get()) is not None:
            yield event

    async def document(self) -> Document:
        """The document, which is the caller's from here on. Raises what `Runtime.read` raised."""
        document = await asyncio.wrap_future(self._future)
        self._taken = True
        return document

    def close(self) -> None:
        """Stop within a batch of pages; a document that nobody took is closed."""
        self._stop.set()
        self._future.cancel()
        self._future.add_done_callback(self._drop)

    def _run(self) -> Document:
        self._check()
        self.queued_s = time.perf_counter() - self._submitted
        return self._runtime.read(self._text(), self._page, tenant=self._tenant)

    def _page(self, progress: Progress) -> None:
        self._check()
        self._post(progress)

    def _check(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _post(self, event: Progress | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: the server is gone, and so is whoever listened
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _drop(self, future: Future[Document]) -> None:
        if not self._taken and not future.cancelled() and future.exception() is None:
            future.result().close()


class AnswerRun(Generic[T]):
    """One answer, handed over slice by slice, so that it does not run ahead of whoever reads it.

    conclude: called with the answer when it has come to its end, on a worker's thread; what it gives is `conclusion`.
    Must be closed. Only one of its coroutines may run at a time.
    """

    def __init__(self, pool: Executor, make: Callable[[], Answer], conclude: Callable[[Answer], T]) -> None:
        self._pool, self._make, self._conclude = pool, make, conclude
        self._answer: Answer | None = None
        self._steps: Iterator[str] = iter(())
        self._closed = threading.Event()
        self._last: Future[_Slice] | None = None
        self.conclusion: T | None = None

    async def start(self) -> Answer:
        """Admit the question, and go on to its first piece meanwhile. Raises what `Document.ask` raises."""
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[Answer] = loop.create_future()

        def tell(settle: Callable[[], object]) -> None:
            with suppress(RuntimeError):  # the loop has closed: the server is gone, and so is whoever listened
                loop.call_soon_threadsafe(lambda: admitted.done() or settle())

        def begin() -> _Slice:
            try:
                # Kept from the first moment on: a caller that has gone meanwhile closes it all the same.
                answer = self._answer = self._make()
            except Exception as error:
                tell(partial(admitted.set_exception, error))
                return [], True
            self._steps = answer.steps()
            tell(partial(admitted.set_result, answer))
            return self._slice(0.0)

        future = self._submit(begin)
        future.add_done_callback(lambda done: tell(admitted.cancel) if done.cancelled() else None)
        return await admitted

    async def pieces(self) -> AsyncIterator[str]:
        """Pieces of the answer, never empty. The first comes as soon as it is there, later ones within a slice."""
        assert self._last is not None, "start comes first"
        future, slice_s = self._last, 0.0
        while True:
            pieces, ended = await asyncio.wrap_future(future)
            for piece in pieces:
                yield piece
            if ended:
                return
            slice_s = _SLICE_S if pieces else slice_s
            future = self._submit(partial(self._slice, slice_s))

    def close(self) -> None:
        """Stop within one token and give the answer's memory back."""
        self._closed.set()
        if self._last is not None:
            self._last.cancel()
            self._last.add_done_callback(lambda _: self._finish())

    def _submit(self, step: Callable[[], _Slice]) -> Future[_Slice]:
        self._last = self._pool.submit(step)
        return self._last

    def _slice(self, seconds: float) -> _Slice:
        """Pieces of at least one token."""
        end = time.perf_counter() + seconds
        pieces: list[str] = []
        for piece in self._steps:
            if piece:
                pieces.append(piece)
            if self._closed.is_set() or len(pieces) == _MOST_PIECES or time.perf_counter() >= end:
                return pieces, False
        if self._answer is not None:
            self.conclusion = self._conclude(self._answer)
        return pieces, True

    def _finish(self) -> None:
        if self._answer is not None:
            self._answer.close()
