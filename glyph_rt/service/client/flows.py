"""The calls of a client as flows: generators that yield what is to be done next, and are sent what came of it.

A flow knows neither threads nor event loops. Whoever runs it carries out each `Send`, `Receive` and `Pause`, throws the ServiceError of a
call that failed back into it, and passes what it `Give`s on to the caller.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from glyph_rt.errors import GlyphError
from glyph_rt.service.client.errors import ServiceError, carried
from glyph_rt.v1 import answers_pb2_grpc, documents_pb2, documents_pb2_grpc, runtime_pb2, runtime_pb2_grpc

T = TypeVar("T")
CHUNK = 256 * 1024  # bytes of text per message of an upload


@dataclass(frozen=True)
class Send:
    """Make a call of one request and one response; sent back: the response."""

    start: Callable[[], Any]


@dataclass(frozen=True)
class Receive:
    """Take the next message of a streaming call; sent back: the message, None at its end."""

    call: Any


@dataclass(frozen=True)
class Pause:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True)
class Give(Generic[T]):
    """A value for the caller. A call with one result gives it last."""

    value: T


Flow = Generator[Send | Receive | Pause | Give[T], Any, None]
ReadCallback = Callable[[documents_pb2.ReadProgress], None]


class Patience:
    """Seconds that one request may wait for room on the server, in all. Waits as long as the server says, and a little more at random,
    so that clients that were refused together do not come back together.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def pause(self, error: ServiceError) -> Pause | None:
        """What to do before trying again; None when that makes no sense, or there is no time for it."""
        if error.retry_s is None:
            return None
        seconds = error.retry_s * random.uniform(1.0, 1.5)
        return Pause(seconds) if time.monotonic() + seconds <= self._end else None


class Flows:
    """What is sent to one server, over a grpc.Channel or a grpc.aio.Channel alike."""

    def __init__(
        self,
        channel: Any,
        metadata: tuple[tuple[str, str], ...],
        timeout_s: float | None,
        patience_s: float,
        stream: Callable[[Any], Any] = lambda call: call,
    ) -> None:
        """stream: makes of a streaming call what `Receive` can take messages from."""
        self.documents: Any = documents_pb2_grpc.DocumentServiceStub(channel)
        self.answers: Any = answers_pb2_grpc.AnswerServiceStub(channel)
        self.runtime: Any = runtime_pb2_grpc.RuntimeServiceStub(channel)
        self._metadata, self._timeout_s, self._patience_s, self._stream = metadata, timeout_s, patience_s, stream

    def patience(self) -> Patience:
        """Of a request that begins now."""
        return Patience(self._patience_s)

    def stream(self, method: Any, request: object) -> Any:
        """A call that streams its response: on its way once this returns, and with a `cancel`."""
        return self._stream(self._call(method, request))

    def read(self, text: str, progress: ReadCallback | None, system: str) -> Flow[documents_pb2.Document]:
        with carried():
            options = documents_pb2.ReadDocumentOptions(system=system)
        return self._upload(self.documents.ReadDocument, documents_pb2.ReadDocumentRequest, options, text, progress)

    def append(self, document: str, text: str, progress: ReadCallback | None) -> Flow[documents_pb2.Document]:
        options = documents_pb2.AppendDocumentOptions(document_id=document)
        return self._upload(self.documents.AppendDocument, documents_pb2.AppendDocumentRequest, options, text, progress)

    def get(self, document: str) -> Flow[documents_pb2.Document]:
        request = documents_pb2.GetDocumentRequest(id=document)
        return self._unary(self.documents.GetDocument, request, lambda response: response.document)

    def list(self, page_size: int) -> Flow[documents_pb2.Document]:
        request = documents_pb2.ListDocumentsRequest(page_size=page_size)

        def page() -> Flow[documents_pb2.Document]:
            response = yield Send(lambda: self._call(self.documents.ListDocuments, request))
            yield from map(Give, response.documents)
            request.page_token = response.next_page_token

        yield from self._patiently(page)
        while request.page_token:
            yield from self._patiently(page)

    def pages(self, document: str, first: int, count: int) -> Flow[documents_pb2.RenderPagesResponse]:
        request = documents_pb2.RenderPagesRequest(id=document, first_page=first, page_count=count)
        call = self.stream(self.documents.RenderPages, request)
        while (page := (yield Receive(call))) is not None:
            yield Give(page)

    def delete(self, document: str) -> Flow[None]:
        request = documents_pb2.DeleteDocumentRequest(id=document)
        return self._unary(self.documents.DeleteDocument, request, lambda response: None)

    def about(self) -> Flow[runtime_pb2.GetRuntimeResponse]:
        return self._unary(self.runtime.GetRuntime, runtime_pb2.GetRuntimeRequest(), lambda response: response)

    def _unary(self, method: Any, request: object, pick: Callable[[Any], T]) -> Flow[T]:
        def attempt() -> Flow[T]:
            yield Give(pick((yield Send(lambda: self._call(method, request)))))

        return self._patiently(attempt)

    def _upload(self, method: Any, message: Any, options: Any, text: str, progress: ReadCallback | None) -> Flow[documents_pb2.Document]:
        data = text.encode("utf-8", "surrogatepass")  # the server says what is wrong with it
        options.size_bytes = len(data)

        def parts() -> Iterator[Any]:
            yield message(options=options)
            for start in range(0, len(data), CHUNK):
                yield message(text=data[start : start + CHUNK])

        def attempt() -> Flow[documents_pb2.Document]:
            found: documents_pb2.Document | None = None
            call = self.stream(method, parts())
            while (event := (yield Receive(call))) is not None:
                if event.WhichOneof("event") == "document":
                    found = event.document
                elif progress is not None:
                    progress(event.progress)
            if found is None:
                raise GlyphError("the server ended the upload without a document")
            yield Give(found)

        return self._patiently(attempt)

    def _call(self, method: Any, request: object) -> Any:
        return method(request, timeout=self._timeout_s, metadata=self._metadata)

    def _patiently(self, attempt: Callable[[], Flow[T]]) -> Flow[T]:
        """An attempt that is repeated while the server has no room. It gives nothing before it has all of it."""
        patience = self.patience()
        while True:
            try:
                yield from attempt()
            except ServiceError as error:
                pause = patience.pause(error)
                if pause is None:
                    raise
                yield pause
            else:
                return
