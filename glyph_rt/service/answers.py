"""AnswerService: questions in, answers streamed piece by piece."""

from __future__ import annotations

from contextlib import ExitStack

from glyph_rt.documents import Answer, Document
from glyph_rt.errors import InputError, InternalError, LimitError
from glyph_rt.language import Sampling
from glyph_rt.runtime import Runtime
from glyph_rt.service.calls import Context, Desk, well_formed
from glyph_rt.service.documents import timings_message
from glyph_rt.service.work import AnswerRun, Reading
from glyph_rt.v1 import answers_pb2 as pb
from glyph_rt.v1 import answers_pb2_grpc

_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


class AnswerService(answers_pb2_grpc.AnswerServiceServicer):
    """See proto/glyph_rt/v1/answers.proto, which is the reference."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Ask(self, request: pb.AskRequest, context: Context) -> None:
        desk = self._desk
        async with desk.call(context, stream=True) as runtime:
            well_formed(request)
            _check_question(request.question, desk.limits.question_bytes)
            sampling = _sampling(request.sampling)
            with ExitStack() as cleanup:
                document, inline = await self._subject(request, runtime, cleanup)
                run = AnswerRun(desk.workers.answerers, lambda: document.ask(request.question, sampling))
                cleanup.callback(run.close)
                answer = await run.start()
                cached = 0 if inline else answer.usage.cached_tokens
                accepted = pb.AnswerAccepted(prompt_tokens=answer.usage.prompt_tokens, cached_tokens=cached)
                await context.write(pb.AskResponse(accepted=accepted))
                async for piece in run.pieces():
                    await context.write(pb.AskResponse(piece=pb.AnswerPiece(text=piece)))
                await context.write(pb.AskResponse(done=_done(answer, inline)))

    async def _subject(self, request: pb.AskRequest, runtime: Runtime, cleanup: ExitStack) -> tuple[Document, bool]:
        """The document asked about, and whether it was read for this question only, and then goes with `cleanup`."""
        desk = self._desk
        kind = request.WhichOneof("subject")
        if kind == "document_id":
            return desk.library.get(request.document_id, use=True).document, False
        if kind is None:
            told = "a question needs a document_id or a text"
            raise InputError(told, public=told, field="subject")
        if "\0" in request.text:
            told = "the text holds NUL characters"
            raise InputError(told, public=told, field="text")
        size = len(request.text.encode())
        if size > runtime.limits.text_bytes:
            told = f"the text has {size:,} bytes and the limit is {runtime.limits.text_bytes:,}"
            raise LimitError(told, public=told, field="text")
        desk.uploads.take(size)
        text = request.text
        reading = Reading(desk.workers.readers, runtime, lambda: text, lambda: desk.uploads.give(size))
        try:
            document = await reading.document()
        finally:
            reading.close()
        # A running answer shares the document's memory, so closing both in any order gives all of it back.
        cleanup.callback(document.close)
        return document, True


def _check_question(question: str, limit: int) -> None:
    size = len(question.encode())
    if size > limit:
        told = f"the question has {size:,} bytes and the limit is {limit:,}"
        raise LimitError(told, public=told, field="question")
    if "\0" in question:
        told = "the question holds NUL characters"
        raise InputError(told, public=told, field="question")


def _sampling(options: pb.SamplingOptions) -> Sampling:
    """Raises OptionError for values out of range."""
    most = options.max_new_tokens if options.HasField("max_new_tokens") else None
    return Sampling(most, options.temperature, options.seed)


def _done(answer: Answer, inline: bool) -> pb.AnswerDone:
    usage, timings, reason = answer.usage, answer.timings, answer.finish_reason
    if timings is None or reason not in _REASONS:
        raise InternalError("an answer ended without saying why")
    return pb.AnswerDone(
        finish_reason=_REASONS[reason],
        usage=pb.AnswerUsage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=0 if inline else usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            visual_tokens=usage.visual_tokens,
            text_tokens=usage.text_tokens,
            pages=usage.pages,
        ),
        timings=pb.AnswerTimings(
            read=timings_message(answer.document.timings) if inline else None,
            prefill_s=timings.prefill_s,
            first_piece_s=timings.ttft_s,
            decode_s=timings.decode_s,
            tokens_per_s=timings.tokens_per_s,
        ),
    )
