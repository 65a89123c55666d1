"""DocumentService: texts in, documents kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from glyph_rt.documents import Document, Progress, ProgressCallback, ReadTimings
from glyph_rt.errors import InputError, LimitError
from glyph_rt.runtime import Runtime
from glyph_rt.service.calls import Call, Context, Desk, check_data, well_formed
from glyph_rt.service.library import Entry
from glyph_rt.service.limits import Quota
from glyph_rt.service.source import draw_from, png
from glyph_rt.service.work import Reading
from glyph_rt.texts import decode_text
from glyph_rt.v1 import documents_pb2 as pb
from glyph_rt.v1 import documents_pb2_grpc

if TYPE_CHECKING:
    from glyph_rt.typeset import Page

Part = pb.ReadDocumentRequest | pb.AppendDocumentRequest
_STAGES = {"layout": pb.READ_STAGE_LAYOUT, "wait": pb.READ_STAGE_WAIT, "read": pb.READ_STAGE_READ, "restore": pb.READ_STAGE_READ}
DEFAULT_PAGE, MOST_PER_PAGE = 50, 100  # documents of one ListDocuments response


class DocumentService(documents_pb2_grpc.DocumentServiceServicer):
    """See proto/glyph_rt/v1/documents.proto, which is the reference."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ReadDocument(self, requests: AsyncIterator[pb.ReadDocumentRequest | None], context: Context) -> None:
        desk = self._desk
        async with desk.call("ReadDocument", context, stream=True) as call:
            with desk.library.place(call.tenant) as keep:
                system = ""

                def begin(options: pb.ReadDocumentOptions) -> None:
                    nonlocal system
                    check_data(options.system, "options.system", "system text", desk.limits.question_bytes)
                    system = options.system

                upload = Upload(desk.uploads, call.runtime.limits.text_bytes)
                document = await self._read(
                    call,
                    upload,
                    upload.receive(requests, begin),
                    lambda progress: call.runtime.read(upload.text(), progress, system=system, tenant=call.tenant),
                    lambda p: _send(context, pb.ReadDocumentResponse(progress=p)),
                )
                entry = keep(document)
            call.facts["document"] = entry.id
            try:
                await context.write(pb.ReadDocumentResponse(document=to_message(entry)))
            except BaseException:  # cancelled at the last moment: nobody knows the id, so nobody could delete it
                desk.library.discard(entry)
                raise

    async def AppendDocument(self, requests: AsyncIterator[pb.AppendDocumentRequest | None], context: Context) -> None:
        desk = self._desk
        async with desk.call("AppendDocument", context, stream=True) as call:
            found: list[Entry] = []

            def find(options: pb.AppendDocumentOptions) -> None:
                found.append(desk.library.get(call.tenant, options.document_id, use=True))
                call.facts["document"] = found[0].id

            def read(progress: ProgressCallback) -> Document:
                # Not its `append`: one that another call replaced meanwhile is closed, and was changed rather than lost.
                document = found[0].document
                return document.means.read(document.text + upload.text(), call.tenant, progress)

            upload = Upload(desk.uploads, call.runtime.limits.text_bytes)
            document = await self._read(
                call,
                upload,
                upload.receive(requests, find),
                read,
                lambda p: _send(context, pb.AppendDocumentResponse(progress=p)),
            )
            try:
                entry = desk.library.replace(found[0], document)
            except BaseException:
                document.close()
                raise
            await context.write(pb.AppendDocumentResponse(document=to_message(entry)))

    async def _read(
        self,
        call: Call,
        upload: Upload,
        receive: Awaitable[int],
        read: Callable[[ProgressCallback], Document],
        progress: Callable[[pb.ReadProgress], Awaitable[None]],
    ) -> Document:
        """Receive an upload and `read` it, which runs on a worker; the document is the caller's."""
        desk = self._desk
        try:
            call.stage = "upload"
            size = call.facts["bytes"] = await receive
            await progress(pb.ReadProgress(stage=pb.READ_STAGE_RECEIVED, done=size, total=size))
            # From here on the worker gives the upload's bytes back, when it has let go of the text.
            call.stage = "queue"
            reading = Reading(desk.workers, read, upload.close)
        except BaseException:
            upload.close()
            raise
        document = await carry_through(desk, call, reading, lambda step: progress(progress_message(step)))
        call.stage = "send"
        return document

    async def GetDocument(self, request: pb.GetDocumentRequest, context: Context) -> pb.GetDocumentResponse:
        async with self._desk.call("GetDocument", context, stream=False) as call:
            well_formed(request)
            entry = self._desk.library.get(call.tenant, request.id)
            call.facts["document"] = entry.id
            return pb.GetDocumentResponse(document=to_message(entry))

    async def ListDocuments(self, request: pb.ListDocumentsRequest, context: Context) -> pb.ListDocumentsResponse:
        async with self._desk.call("ListDocuments", context, stream=False) as call:
            well_formed(request)
            if request.page_size > MOST_PER_PAGE:
                told = f"page_size is {request.page_size} and the limit is {MOST_PER_PAGE}"
                raise LimitError(told, public=told, field="page_size")
            after, size = _parse_token(request.page_token), request.page_size or DEFAULT_PAGE
            entries, next_after = self._desk.library.page(call.tenant, after, size)
            return pb.ListDocumentsResponse(
                documents=[to_message(entry) for entry in entries], next_page_token="" if next_after is None else f"after-{next_after}"
            )

    async def RenderPages(self, request: pb.RenderPagesRequest, context: Context) -> None:
        desk = self._desk
        async with desk.call("RenderPages", context, stream=True) as call:
            well_formed(request)
            entry = desk.library.get(call.tenant, request.id)
            call.facts["document"] = entry.id
            first, last = max(1, request.first_page), entry.document.measure.pages
            if first > last:
                told = f"first_page is {first} and the document has {last} pages"
                raise LimitError(told, public=told, field="first_page")
            call.stage = "send"
            drawing = draw_from(call.runtime.typesetter, entry.document.layout, first)
            for _ in range(min(request.page_count or last, last - first + 1)):
                await context.write(await desk.workers.do(lambda: _render(next(drawing))))

    async def DeleteDocument(self, request: pb.DeleteDocumentRequest, context: Context) -> pb.DeleteDocumentResponse:
        async with self._desk.call("DeleteDocument", context, stream=False) as call:
            well_formed(request)
            self._desk.library.remove(call.tenant, request.id)
            call.facts["document"] = request.id
            return pb.DeleteDocumentResponse()


class Upload:
    """The text of one upload as it arrives. Its bytes are taken from `quota` before they are kept; must be closed.

    A text over `limit` bytes is refused by the size it declares, or with the message that would take it over.
    """

    def __init__(self, quota: Quota, limit: int) -> None:
        self._quota, self._limit = quota, limit
        self._held = 0
        self._begun = False
        self._declared: int | None = None
        self._data = bytearray()

    async def receive(self, requests: AsyncIterator[Part | None], begin: Callable[[Any], None]) -> int:
        """Take all messages; the size in bytes. begin: called with the options, when they have come.

        Raises InputError, LimitError, and BusyError when the server holds too much text now.
        """
        async for request in requests:
            well_formed(request)
            assert request is not None
            first = not self._begun
            self._add(request)
            if first:
                begin(request.options)
        return self._end()

    def _add(self, request: Part) -> None:
        kind = request.WhichOneof("content")
        if (kind == "options") == self._begun or kind is None:
            told = "the first message of an upload carries the options, and every other one text"
            raise InputError(told, public=told, field="content")
        if not self._begun:
            self._begun = True
            if request.options.HasField("size_bytes"):
                self._reserve(request.options.size_bytes, "options.size_bytes")
                self._declared = request.options.size_bytes
            return
        size = len(self._data) + len(request.text)
        if self._declared is not None and size > self._declared:
            self._refuse_declared(size)
        if size > self._held:
            self._reserve(size, "text")
        self._data += request.text

    def _end(self) -> int:
        if not self._begun:
            told = "the upload is empty; it begins with the options"
            raise InputError(told, public=told, field="content")
        if self._declared is not None and len(self._data) != self._declared:
            self._refuse_declared(len(self._data))
        return len(self._data)

    def text(self) -> str:
        """The whole text. Raises InputError for what is not UTF-8; run it off the event loop, since it may be long."""
        data, self._data = self._data, bytearray()
        return decode_text(bytes(data), "the text")

    def close(self) -> None:
        """Let the bytes go."""
        self._data = bytearray()
        self._quota.give(self._held)
        self._held = 0

    def _reserve(self, size: int, field: str) -> None:
        if size > self._limit:
            told = f"the text has more than {self._limit:,} bytes, the limit for one text"
            raise LimitError(told, public=told, field=field)
        self._quota.take(size - self._held)
        self._held = size

    def _refuse_declared(self, size: int) -> None:
        told = f"the text has {size:,} bytes so far and {self._declared:,} were announced"
        raise InputError(told, public=told, field="options.size_bytes")


async def carry_through(desk: Desk, call: Call, reading: Reading, tell: Callable[[Progress], Awaitable[None]]) -> Document:
    """A reading's document, once it is there; where it stands is told meanwhile. Closes the reading."""
    try:
        async for step in reading.progress():
            call.stage = "queue" if step.stage == "wait" else "read"
            await tell(step)
        document = await reading.document()
    finally:
        reading.close()
    note_reading(desk, call, reading.queued_s, document.timings, document.measure.pages, document.measure.visual_tokens)
    return document


def note_reading(desk: Desk, call: Call, queued_s: float, timings: ReadTimings | pb.ReadTimings, pages: int, visual_tokens: int) -> None:
    """Tell telemetry and the audit log of a text that was read."""
    telemetry = desk.telemetry
    stages = {
        "queue": queued_s,
        "memory": timings.wait_s,
        "typeset": timings.typeset_s,
        "encode": timings.encode_s,
        "read": timings.prefill_s,
    }
    for name, seconds in stages.items():
        telemetry.stage(name, seconds)
    telemetry.read(pages, visual_tokens)
    call.facts["pages"] = pages


def pages_limit(runtime: Runtime) -> int:
    """Pages of one document: the limit that was set, or what the context holds."""
    return min(runtime.pages_in_context, runtime.limits.pages or runtime.pages_in_context)


def progress_message(progress: Progress) -> pb.ReadProgress:
    """Where a reading stands, for the wire."""
    return pb.ReadProgress(stage=_STAGES[progress.stage], done=progress.done, total=progress.total)


def timings_message(timings: ReadTimings) -> pb.ReadTimings:
    """Seconds of a reading, for the wire."""
    return pb.ReadTimings(typeset_s=timings.typeset_s, encode_s=timings.encode_s, prefill_s=timings.prefill_s, wait_s=timings.wait_s)


def to_message(entry: Entry) -> pb.Document:
    """A kept document, for the wire."""
    document = entry.document
    message = pb.Document(
        id=entry.id,
        digest=document.digest,
        pages=document.measure.pages,
        visual_tokens=document.measure.visual_tokens,
        text_tokens=document.text_tokens,
        characters=document.measure.characters,
        missing_characters=sum(document.measure.missing.values()),
        compression=document.compression,
        kv_bytes=document.kv_bytes,
        timings=timings_message(document.timings),
        prefilled_tokens=document.prefilled_tokens,
    )
    message.create_time.FromNanoseconds(int(entry.created_s * 1e9))
    return message


def _render(page: Page) -> pb.RenderPagesResponse:
    return pb.RenderPagesResponse(page=page.number, width=page.width, height=page.height, png=png(page))


async def _send(context: Context, message: object) -> None:
    await context.write(message)


def _parse_token(token: str) -> int:
    """The entry number behind a page token. Raises InputError for what this server never gave out."""
    number = token.removeprefix("after-")
    if not token:
        return 0
    if token == number or not (number.isascii() and number.isdigit()) or len(token) > 64:
        told = "page_token is none that this server gave out"
        raise InputError(told, public=told, field="page_token")
    return int(number)
