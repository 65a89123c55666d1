"""The client for programs that run on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc

from glyph_rt.service.access import Access
from glyph_rt.service.client.errors import ServiceError, translated
from glyph_rt.service.client.flows import Flow, Give, Pause, ReadCallback, Receive, Send
from glyph_rt.service.client.transcript import Asker, Transcript, is_thought
from glyph_rt.v1 import answers_pb2, documents_pb2, runtime_pb2

T = TypeVar("T")


class AsyncReply(Transcript):
    """An answer as it streams in: iterate once, over the answer or over `pieces`, or await `text()`. Close it early to stop the work on
    the server."""

    async def __aiter__(self) -> AsyncIterator[str]:
        async for piece in self.pieces():
            if not is_thought(piece):
                yield piece.text

    def pieces(self) -> AsyncIterator[answers_pb2.AnswerPiece]:
        """Of thoughts, if they were asked for, and answer, as they come."""
        return _run(self._steps)

    async def __aenter__(self) -> AsyncReply:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def text(self) -> str:
        """The whole answer, with exact quotes if these were asked for; waits for what has not come yet."""
        async for _ in self.pieces():
            pass
        return self._text()


class AsyncClient(Asker[AsyncReply]):
    """Made and used on one event loop. What its methods do is what `Client`'s do; `ask` sends the question at once, as that does."""

    _reply = AsyncReply

    def _open(self, address: str, access: Access) -> Any:
        return access.channel(address, aio=True)

    def _stream(self, call: Any) -> Any:
        return _Stream(call)

    async def read(self, text: str, progress: ReadCallback | None = None, *, system: str = "") -> documents_pb2.Document:
        """Upload a text and have it read."""
        return await _last(self._flows.read(text, progress, system))

    async def append(self, document: str, text: str, progress: ReadCallback | None = None) -> documents_pb2.Document:
        """Put more text behind a document's."""
        return await _last(self._flows.append(document, text, progress))

    async def get(self, document: str) -> documents_pb2.Document:
        """One document by its id."""
        return await _last(self._flows.get(document))

    def list(self, page_size: int = 100) -> AsyncIterator[documents_pb2.Document]:
        """The caller's documents, oldest first."""
        return _run(self._flows.list(page_size))

    def pages(self, document: str, first: int = 1, count: int = 0) -> AsyncIterator[documents_pb2.RenderPagesResponse]:
        """Pages as PNG images."""
        return _run(self._flows.pages(document, first, count))

    async def delete(self, document: str) -> None:
        """Forget a document."""
        await _last(self._flows.delete(document))

    async def runtime(self) -> runtime_pb2.GetRuntimeResponse:
        """Model, limits, memory and load of the server."""
        return await _last(self._flows.about())

    async def close(self) -> None:
        """End the connection, and every call on it."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Stream:
    """A streaming call that raises AioRpcError however it was ended, with the status that it ended with."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._ended: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def cancel(self) -> None:
        self._call.cancel()

    async def receive(self) -> Any:
        """The next message, None at the end."""
        try:
            return await anext(aiter(self._call), None)
        except grpc.aio.AioRpcError as error:
            raise self._ended or error from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._ended is None or task is None or task.cancelling():
                raise
            raise self._ended from None  # `cancel` was called, and nobody cancelled the task

    def _note(self, call: Any) -> None:
        """Keep the status. Where a message is being sent in the moment that the server ends the call, gRPC overwrites what the server said
        with INTERNAL (github.com/grpc/grpc/issues/36066, open in November 2026).
        """
        parts = (call.code(), call.initial_metadata(), call.trailing_metadata(), call.details())
        code, initial, trailing, details = map(_at_hand, parts)
        if code != grpc.StatusCode.OK and self._ended is None:
            self._ended = grpc.aio.AioRpcError(code, initial, trailing, details)


def _at_hand(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("it had something to wait for")


async def _last(flow: Flow[T]) -> T:
    """What a flow gives at its end."""
    *_, value = [value async for value in _run(flow)]
    return value


async def _run(flow: Flow[T]) -> AsyncIterator[T]:
    """Carry out a flow's steps; what it gives."""
    result: Any = None
    failure: ServiceError | None = None
    while True:
        try:
            step = flow.send(result) if failure is None else flow.throw(failure)
        except StopIteration:
            return
        result = failure = None
        if isinstance(step, Give):
            yield step.value
            continue
        try:
            result = await _carry_out(step)
        except ServiceError as error:
            failure = error


async def _carry_out(step: Send | Receive | Pause) -> Any:
    with translated():
        match step:
            case Send():
                return await step.start()
            case Receive():
                return await step.call.receive()
            case Pause():
                await asyncio.sleep(step.seconds)
    return None
