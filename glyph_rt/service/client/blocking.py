"""The client for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

from glyph_rt.service.client.errors import ServiceError, translated
from glyph_rt.service.client.flows import Flow, Give, Pause, ReadCallback, Receive, Send
from glyph_rt.service.client.transcript import Asker, Transcript, is_thought
from glyph_rt.v1 import answers_pb2, documents_pb2, runtime_pb2

T = TypeVar("T")


class Reply(Transcript):
    """An answer as it streams in: iterate once, over the answer or over `pieces`, or take `.text`. Close it early to stop the work on
    the server."""

    def __iter__(self) -> Iterator[str]:
        return (piece.text for piece in self.pieces() if not is_thought(piece))

    def pieces(self) -> Iterator[answers_pb2.AnswerPiece]:
        """Of thoughts, if they were asked for, and answer, as they come."""
        return _run(self._steps)

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def text(self) -> str:
        """The whole answer, with exact quotes if these were asked for; waits for what has not come yet."""
        for _ in self.pieces():
            pass
        return self._text()


class Client(Asker[Reply]):
    """Blocks until what was asked for is there. Thread-safe."""

    _reply = Reply

    def read(self, text: str, progress: ReadCallback | None = None, *, system: str = "") -> documents_pb2.Document:
        """Upload a text and have it read; the document stays on the server until it is deleted or left idle.

        system: what the model is told before the pages, for every question.
        """
        return _last(self._flows.read(text, progress, system))

    def append(self, document: str, text: str, progress: ReadCallback | None = None) -> documents_pb2.Document:
        """Put more text behind a document's; only pages that differ are read."""
        return _last(self._flows.append(document, text, progress))

    def get(self, document: str) -> documents_pb2.Document:
        """One document by its id."""
        return _last(self._flows.get(document))

    def list(self, page_size: int = 100) -> Iterator[documents_pb2.Document]:
        """The caller's documents, oldest first, fetched `page_size` at a time."""
        return _run(self._flows.list(page_size))

    def pages(self, document: str, first: int = 1, count: int = 0) -> Iterator[documents_pb2.RenderPagesResponse]:
        """Pages as PNG images, from number `first` on; count 0: all of them."""
        return _run(self._flows.pages(document, first, count))

    def delete(self, document: str) -> None:
        """Forget a document; answers that run on it end undisturbed."""
        _last(self._flows.delete(document))

    def runtime(self) -> runtime_pb2.GetRuntimeResponse:
        """Model, limits, memory and load of the server."""
        return _last(self._flows.about())

    def close(self) -> None:
        """End the connection, and every call on it."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _last(flow: Flow[T]) -> T:
    """What a flow gives at its end."""
    *_, value = _run(flow)
    return value


def _run(flow: Flow[T]) -> Iterator[T]:
    """Carry out a flow's steps; what it gives."""
    result: Any = None
    failure: ServiceError | None = None
    with suppress(StopIteration):
        while True:
            step = flow.send(result) if failure is None else flow.throw(failure)
            result = failure = None
            if isinstance(step, Give):
                yield step.value
                continue
            try:
                result = _carry_out(step)
            except ServiceError as error:
                failure = error


def _carry_out(step: Send | Receive | Pause) -> Any:
    with translated():
        match step:
            case Send():
                return step.start()
            case Receive():
                return next(step.call, None)
            case Pause():
                time.sleep(step.seconds)
    return None
