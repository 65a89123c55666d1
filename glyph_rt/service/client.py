"""A client of a glyph-rt server, for Python programs and for `glyph-rt ask --server`.

with Client("127.0.0.1:50051") as client:
    document = client.read(text)
    for piece in client.ask("What is the notice period?", document=document.id):
        print(piece, end="")

A server on another machine wants TLS, and usually a token: Client("box:50051", Access(ca=Path("ca.pem"), token="...")).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from glyph_rt.errors import GlyphError, OptionError
from glyph_rt.quotes import Quoting
from glyph_rt.service.access import Access
from glyph_rt.service.failures import DETAILS
from glyph_rt.v1 import answers_pb2, answers_pb2_grpc, documents_pb2, documents_pb2_grpc, runtime_pb2, runtime_pb2_grpc

T = TypeVar("T")
CHUNK = 256 * 1024  # bytes of text per message of an upload


class ServiceError(GlyphError):
    """A server refused a call, or could not be reached.

    code: the gRPC status; reason: the server's word for it, empty when the error is not the server's own; field: the part of the
    request at fault; retry_s: seconds after which trying again makes sense, None when it does not as the request stands.
    """

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error
        super().__init__(f"the server: {call.details() or call.code().name.lower()}")
        self.code: grpc.StatusCode = call.code()
        self.reason, self.retry_s = "", None
        trailers = dict(call.trailing_metadata() or ())
        for detail in status_pb2.Status.FromString(trailers.get(DETAILS, b"")).details:
            info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(retry):
                self.retry_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif detail.Unpack(bad) and bad.field_violations:
                self.field = bad.field_violations[0].field


class RefusedError(ServiceError):
    """The request cannot be served as written."""

    exit_code = 2


class Patience:
    """Seconds that one request may wait for room on the server, in all. Waits as long as the server says, and a little more at random,
    so that clients that were refused together do not come back together.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def wait(self, error: ServiceError) -> bool:
        """Wait, if trying again makes sense and there is time for it."""
        if error.retry_s is None:
            return False
        pause = error.retry_s * random.uniform(1.0, 1.5)
        if time.monotonic() + pause > self._end:
            return False
        time.sleep(pause)
        return True


class Reply:
    """An answer as it streams in: iterate once, over the answer or over `pieces`, or take `.text`. Close it early to stop the work on
    the server."""

    def __init__(self, start: Callable[[], Any], patience: Patience) -> None:
        self._start, self._patience = start, patience
        self._call = start()
        self._closed = False
        self._answer: list[str] = []
        self._thoughts: list[str] = []
        self.accepted: answers_pb2.AnswerAccepted | None = None  # known with the first piece
        self.done: answers_pb2.AnswerDone | None = None  # known at the end
        self._stream = self._run()

    def __iter__(self) -> Iterator[str]:
        return (piece.text for piece in self._stream if piece.channel != answers_pb2.ANSWER_CHANNEL_THINKING)

    def pieces(self) -> Iterator[answers_pb2.AnswerPiece]:
        """Of thoughts, if they were asked for, and answer, as they come."""
        return self._stream

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def text(self) -> str:
        """The whole answer, with exact quotes if these were asked for; waits for what has not come yet. Raises ServiceError."""
        said = self.said
        return self.done.text if self.done is not None and self.done.HasField("text") else said

    @property
    def said(self) -> str:
        """The whole answer as the model wrote it, which is what its pieces say; waits like `text`."""
        for _ in self._stream:
            pass
        return "".join(self._answer)

    @property
    def thinking(self) -> str:
        """What the model has thought so far, if that was asked for."""
        return "".join(self._thoughts)

    def close(self) -> None:
        """Stop, if it has not ended."""
        self._closed = True
        self._call.cancel()

    def _run(self) -> Iterator[answers_pb2.AnswerPiece]:
        while True:
            try:
                yield from self._pieces_of_call()
            except ServiceError as error:
                # What has begun cannot be repeated: the caller has seen some of it.
                if self._closed or self.accepted is not None or not self._patience.wait(error):
                    raise
                self._call = self._start()
            else:
                return

    def _pieces_of_call(self) -> Iterator[answers_pb2.AnswerPiece]:
        with _errors():
            for event in self._call:
                kind = event.WhichOneof("event")
                if kind == "accepted":
                    self.accepted = event.accepted
                elif kind == "piece":
                    thought = event.piece.channel == answers_pb2.ANSWER_CHANNEL_THINKING
                    (self._thoughts if thought else self._answer).append(event.piece.text)
                    yield event.piece
                elif kind == "done":
                    self.done = event.done


class Client:
    """A connection to one server. Thread-safe. Every call raises ServiceError, and OptionError for what no message can carry.

    timeout_s: of one call; None: the server's cap. patience_s: a request that finds no room is repeated, as the server says when, for
    at most so long; 0: never.
    """

    def __init__(self, address: str, access: Access | None = None, *, timeout_s: float | None = None, patience_s: float = 0.0) -> None:
        """Raises AddressError for an address that no glyph-rt serves at. Connects with the first call."""
        access = access or Access()
        self._channel = access.channel(address)
        self.timeout_s, self.patience_s = timeout_s, patience_s
        self._metadata = access.metadata
        self._documents: Any = documents_pb2_grpc.DocumentServiceStub(self._channel)
        self._answers: Any = answers_pb2_grpc.AnswerServiceStub(self._channel)
        self._runtime: Any = runtime_pb2_grpc.RuntimeServiceStub(self._channel)

    def read(
        self, text: str, progress: Callable[[documents_pb2.ReadProgress], None] | None = None, *, system: str = ""
    ) -> documents_pb2.Document:
        """Upload a text and have it read; the document stays on the server until it is deleted or left idle.

        system: what the model is told before the pages, for every question.
        """
        with _carried():
            options = documents_pb2.ReadDocumentOptions(system=system)
        return self._upload(self._documents.ReadDocument, documents_pb2.ReadDocumentRequest, options, text, progress)

    def append(
        self, document: str, text: str, progress: Callable[[documents_pb2.ReadProgress], None] | None = None
    ) -> documents_pb2.Document:
        """Put more text behind a document's; only pages that differ are read."""
        options = documents_pb2.AppendDocumentOptions(document_id=document)
        return self._upload(self._documents.AppendDocument, documents_pb2.AppendDocumentRequest, options, text, progress)

    def ask(
        self,
        question: str,
        *,
        document: str | None = None,
        text: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        draft: bool = True,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        json_schema: str | None = None,
        regex: str | None = None,
        thinking: bool = False,
        system: str = "",
        after: str = "",
        quotes: Quoting = Quoting.MARK,
    ) -> Reply:
        """Ask about a document by its id, or about a text that is read for this question only.

        The options are those of `SamplingOptions` in proto/glyph_rt/v1/answers.proto. json_schema, regex: the form of the answer, at most
        one of them. thinking: also send thoughts. system: what the model is told before a text sent along. after:
        `Reply.done.conversation_id` of an answer on the same document that the question refers to. quotes: with EXACT, `Reply.text` has
        the document's own characters where the model misread what it quotes; either way `Reply.done.citations` tells of them.
        """
        if json_schema is not None and regex is not None:
            raise OptionError("an answer has one form: give json_schema or regex")
        with _carried():
            sampling = answers_pb2.SamplingOptions(
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                draft=draft,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                stop=stop,
                json_schema=json_schema,
                regex=regex,
            )
            request = answers_pb2.AskRequest(
                document_id=document,
                text=text,
                question=question,
                sampling=sampling,
                conversation_id=after,
                thinking=thinking,
                system=system,
                quotes=f"QUOTE_MODE_{quotes.upper()}",
            )
        return Reply(lambda: self._call(self._answers.Ask, request), Patience(self.patience_s))

    def get(self, document: str) -> documents_pb2.Document:
        """One document by its id."""
        request = documents_pb2.GetDocumentRequest(id=document)
        response: documents_pb2.GetDocumentResponse = self._patiently(lambda: self._call(self._documents.GetDocument, request))
        return response.document

    def list(self, page_size: int = 100) -> Iterator[documents_pb2.Document]:
        """The caller's documents, oldest first, fetched `page_size` at a time."""
        request = documents_pb2.ListDocumentsRequest(page_size=page_size)
        while True:
            response: documents_pb2.ListDocumentsResponse = self._patiently(lambda: self._call(self._documents.ListDocuments, request))
            yield from response.documents
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def pages(self, document: str, first: int = 1, count: int = 0) -> Iterator[documents_pb2.RenderPagesResponse]:
        """Pages as PNG images, from number `first` on; count 0: all of them."""
        request = documents_pb2.RenderPagesRequest(id=document, first_page=first, page_count=count)
        with _errors():
            yield from self._call(self._documents.RenderPages, request)

    def delete(self, document: str) -> None:
        """Forget a document; answers that run on it end undisturbed."""
        request = documents_pb2.DeleteDocumentRequest(id=document)
        self._patiently(lambda: self._call(self._documents.DeleteDocument, request))

    def runtime(self) -> runtime_pb2.GetRuntimeResponse:
        """Model, limits, memory and load of the server."""
        request = runtime_pb2.GetRuntimeRequest()
        response: runtime_pb2.GetRuntimeResponse = self._patiently(lambda: self._call(self._runtime.GetRuntime, request))
        return response

    def close(self) -> None:
        """End the connection, and every call on it."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _upload(
        self, method: Any, message: Any, options: Any, text: str, progress: Callable[[documents_pb2.ReadProgress], None] | None
    ) -> documents_pb2.Document:
        data = text.encode("utf-8", "surrogatepass")  # the server says what is wrong with it
        options.size_bytes = len(data)

        def parts() -> Iterator[Any]:
            yield message(options=options)
            for start in range(0, len(data), CHUNK):
                yield message(text=data[start : start + CHUNK])

        def attempt() -> documents_pb2.Document:
            found: documents_pb2.Document | None = None
            for event in self._call(method, parts()):
                if event.WhichOneof("event") == "document":
                    found = event.document
                elif progress is not None:
                    progress(event.progress)
            if found is None:
                raise GlyphError("the server ended the upload without a document")
            return found

        return self._patiently(attempt)

    def _call(self, method: Any, request: object) -> Any:
        return method(request, timeout=self.timeout_s, metadata=self._metadata)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        patience = Patience(self.patience_s)
        while True:
            try:
                with _errors():
                    return attempt()
            except ServiceError as error:
                if not patience.wait(error):
                    raise


@contextmanager
def _carried() -> Iterator[None]:
    """Raises OptionError for a value that a message cannot hold."""
    try:
        yield
    except ValueError as error:  # protobuf's: a number out of its field's range, or lone surrogates
        raise OptionError(f"the request cannot be sent: {error}") from None


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        call: Any = error
        kind = RefusedError if call.code() == grpc.StatusCode.INVALID_ARGUMENT else ServiceError
        raise kind(error) from None
