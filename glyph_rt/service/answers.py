"""AnswerService: questions in, answers streamed piece by piece."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glyph_rt.answers import check_quoting
from glyph_rt.documents import Answer, Document
from glyph_rt.errors import InputError, InternalError, LimitError, OptionError
from glyph_rt.language import Channel, Constraint, Piece, Sampling
from glyph_rt.language.sampling import MOST_STOPS
from glyph_rt.quotes import Quote, QuoteKind, Quoting
from glyph_rt.service.calls import Call, Context, Desk, check_data, well_formed
from glyph_rt.service.documents import note_reading, timings_message
from glyph_rt.service.library import Entry
from glyph_rt.service.work import AnswerRun, Reading
from glyph_rt.v1 import answers_pb2 as pb
from glyph_rt.v1 import answers_pb2_grpc

if TYPE_CHECKING:
    from glyph_rt.typeset import Layout, Place

_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}
_QUOTING = {pb.QUOTE_MODE_UNSPECIFIED: Quoting.MARK, pb.QUOTE_MODE_MARK: Quoting.MARK, pb.QUOTE_MODE_EXACT: Quoting.EXACT}
_KINDS = {
    QuoteKind.VERBATIM: pb.CITATION_KIND_VERBATIM,
    QuoteKind.MISREAD: pb.CITATION_KIND_MISREAD,
    QuoteKind.AMBIGUOUS: pb.CITATION_KIND_AMBIGUOUS,
}
_CHANNELS = {Channel.THINKING: pb.ANSWER_CHANNEL_THINKING, Channel.ANSWER: pb.ANSWER_CHANNEL_ANSWER}


@dataclass(frozen=True)
class Subject:
    """What a question is about, and what it follows. entry: where the document is kept; None: it was read for this question only."""

    document: Document
    entry: Entry | None = None
    after: Answer | None = None

    @property
    def inline(self) -> bool:
        return self.entry is None


class AnswerService(answers_pb2_grpc.AnswerServiceServicer):
    """See proto/glyph_rt/v1/answers.proto, which is the reference."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Ask(self, request: pb.AskRequest, context: Context) -> None:
        desk = self._desk
        async with desk.call("Ask", context, stream=True) as call:
            well_formed(request)
            check_data(request.question, "question", "question", desk.limits.question_bytes)
            check_data(request.system, "system", "system text", desk.limits.question_bytes)
            sampling, quoting = _sampling(request.sampling), _quoting(request.quotes)
            check_quoting(quoting, sampling)
            with ExitStack() as cleanup:
                subject = await self._subject(request, context, call, cleanup)
                call.stage = "prefill"
                run = AnswerRun(
                    desk.workers.answerers,
                    lambda on_wait: subject.document.ask(request.question, sampling, after=subject.after, quotes=quoting, on_wait=on_wait),
                    lambda answer: _done(answer, subject.inline),
                    request.thinking,
                )
                cleanup.callback(run.close)
                async for place in run.places():
                    call.stage = "queue"
                    await _tell_place(context, place)
                call.stage = "prefill"
                answer = await run.start()
                usage = answer.usage
                cached = 0 if subject.inline else usage.cached_tokens
                accepted = pb.AnswerAccepted(prompt_tokens=usage.prompt_tokens, cached_tokens=cached)
                await context.write(pb.AskResponse(accepted=accepted))
                last = 0.0
                async for piece in run.pieces():
                    call.stage = "decode"
                    now = time.perf_counter()
                    if last:
                        desk.telemetry.piece(now - last)
                    last = now
                    await context.write(pb.AskResponse(piece=_piece(piece)))
                call.stage = "send"
                done = run.conclusion
                run.close()
                if subject.entry is not None:
                    done.conversation_id = desk.library.remember(subject.entry, answer)
                self._note(call, done)
                await context.write(pb.AskResponse(done=done))

    async def _subject(self, request: pb.AskRequest, context: Context, call: Call, cleanup: ExitStack) -> Subject:
        """What is asked about; a document that was read for this question only goes with `cleanup`."""
        desk, limits = self._desk, call.runtime.limits
        kind = request.WhichOneof("subject")
        if kind == "document_id":
            if request.system:
                told = "a system text goes with a text; this document was read before"
                raise InputError(told, public=told, field="system")
            entry = desk.library.get(call.tenant, request.document_id, use=True)
            call.facts["document"] = entry.id
            after = desk.library.answer(entry, request.conversation_id) if request.conversation_id else None
            return Subject(entry.document, entry, after)
        if kind is None:
            told = "a question needs a document_id or a text"
            raise InputError(told, public=told, field="subject")
        if request.conversation_id:
            told = "a text sent along has no conversation"
            raise InputError(told, public=told, field="conversation_id")
        if "\0" in request.text:
            told = "the text holds NUL characters"
            raise InputError(told, public=told, field="text")
        size = len(request.text.encode())
        if size > limits.text_bytes:
            told = f"the text has {size:,} bytes and the limit is {limits.text_bytes:,}"
            raise LimitError(told, public=told, field="text")
        desk.uploads.take(size)
        text, system = request.text, request.system
        call.facts["bytes"], call.stage = size, "read"
        reading = Reading(
            desk.workers,
            lambda progress: call.runtime.read(text, progress, system=system, tenant=call.tenant),
            lambda: desk.uploads.give(size),
        )
        try:
            async for step in reading.progress():
                call.stage = "queue" if step.stage == "wait" else "read"
                if step.stage == "wait":
                    await _tell_place(context, step.total)
            document = await reading.document()
        finally:
            reading.close()
        # A running answer shares the document's memory, so closing both in any order gives all of it back.
        cleanup.callback(document.close)
        note_reading(desk, call, reading.queued_s, document)
        return Subject(document)

    def _note(self, call: Call, done: pb.AnswerDone) -> None:
        """Tell telemetry and the audit log of an answer that has ended."""
        telemetry, usage, timings = self._desk.telemetry, done.usage, done.timings
        telemetry.stage("prefill", timings.prefill_s)
        telemetry.stage("decode", timings.decode_s)
        if timings.restore_s > 0:
            telemetry.stage("restore", timings.restore_s)
        telemetry.answered(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, timings.first_piece_s, timings.decode_s)
        call.facts |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}


async def _tell_place(context: Context, place: int) -> None:
    await context.write(pb.AskResponse(waiting=pb.AnswerWaiting(place=place)))


def _sampling(options: pb.SamplingOptions) -> Sampling:
    """Raises OptionError for values out of range."""
    form = options.WhichOneof("constraint")
    return Sampling(
        max_new_tokens=options.max_new_tokens if options.HasField("max_new_tokens") else None,
        temperature=options.temperature,
        seed=options.seed,
        draft=options.draft if options.HasField("draft") else True,
        top_k=options.top_k,
        top_p=options.top_p if options.HasField("top_p") else 1.0,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty if options.HasField("repetition_penalty") else 1.0,
        stop=tuple(options.stop[: MOST_STOPS + 1]),  # one too many is refused, however many there are
        constraint=None if form is None else Constraint(form, getattr(options, form)),
    )


def _quoting(mode: pb.QuoteMode) -> Quoting:
    """Raises OptionError for a mode that this server does not know."""
    if mode not in _QUOTING:
        told = f"no quote mode has the number {mode}"
        raise OptionError(told, public=told, field="quotes")
    return _QUOTING[mode]


def _piece(piece: Piece) -> pb.AnswerPiece:
    return pb.AnswerPiece(text=piece.text, channel=_CHANNELS[piece.channel])


def _citations(quote: Quote, layout: Layout) -> Iterator[pb.Citation]:
    """One per place of the quote."""
    for place in quote.places:
        yield pb.Citation(
            start=place.start,
            end=place.end,
            boxes=[_box(line) for line in layout.find_all(place.start, place.end)],
            answer_start=quote.start,
            answer_end=quote.end,
            kind=_KINDS[quote.kind],
            text="" if quote.kind == QuoteKind.VERBATIM else layout.text[place.start : place.end],
        )


def _box(place: Place) -> pb.PageBox:
    box = place.box
    return pb.PageBox(page=place.page, left=box.left, top=box.top, right=box.right, bottom=box.bottom)


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
            drafted_tokens=usage.drafted_tokens,
            accepted_tokens=usage.accepted_tokens,
        ),
        timings=pb.AnswerTimings(
            read=timings_message(answer.document.timings) if inline else None,
            prefill_s=timings.prefill_s,
            first_piece_s=timings.ttft_s,
            decode_s=timings.decode_s,
            tokens_per_s=timings.tokens_per_s,
            restore_s=timings.restore_s,
        ),
        citations=[citation for quote in answer.quotes for citation in _citations(quote, answer.document.layout)],
        text=answer.text if answer.quoting == Quoting.EXACT else None,
    )
