"""AnswerService: questions in, answers streamed piece by piece."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from glyph_rt.answers import check_quoting
from glyph_rt.documents import Answer, Document, Progress
from glyph_rt.errors import InputError, LimitError
from glyph_rt.language import Piece
from glyph_rt.long import Choice, Inquiry, LongText, ReadingRules, Strategy
from glyph_rt.service.answer_messages import (
    answer_message,
    choice_message,
    long_answer_message,
    piece_message,
    quoting_of,
    sampling_of,
    strategy_of,
)
from glyph_rt.service.calls import Call, Context, Desk, check_data, well_formed
from glyph_rt.service.documents import carry_through, note_reading, progress_message
from glyph_rt.service.library import Entry
from glyph_rt.service.work import AnswerRun, Reading
from glyph_rt.v1 import answers_pb2 as pb
from glyph_rt.v1 import answers_pb2_grpc


@dataclass(frozen=True)
class Subject:
    """What a question is about, and what it follows. entry: where the document is kept; None: it was read for this question only."""

    document: Document
    entry: Entry | None = None
    after: Answer | None = None

    @property
    def inline(self) -> bool:
        return self.entry is None


@dataclass(frozen=True)
class Conclusion:
    """What an answer came to. entry: of the document that another question, behind this `answer`, may be asked about."""

    done: pb.AnswerDone
    answer: Answer | None = None
    entry: Entry | None = None


Run = AnswerRun[Conclusion]


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
            inquiry = Inquiry(request.question, sampling_of(request.sampling), strategy_of(request), quoting_of(request.quotes))
            check_quoting(inquiry.quotes, inquiry.sampling)
            with ExitStack() as cleanup:
                if inquiry.strategy is Strategy.WHOLE:
                    subject = await self._subject(request, context, call, cleanup)
                    call.stage = "prefill"
                    run = AnswerRun(desk.workers, lambda run: _ask(run, subject, inquiry), request.thinking)
                else:
                    run = self._long_run(request, inquiry, call)
                cleanup.callback(run.close)
                await self._stream(run, context, call)
                call.stage = "send"
                done, answer, entry = run.conclusion.done, run.conclusion.answer, run.conclusion.entry
                if entry is not None and answer is not None:
                    done.conversation_id = desk.library.remember(entry, answer)
                if done.HasField("reading"):
                    usage = done.usage
                    note_reading(desk, call, run.queued_s, done.timings.read, usage.pages, usage.visual_tokens)
                    call.facts["strategy"] = pb.Strategy.Name(done.reading.choice.strategy)
                self._note(call, done)
                await context.write(pb.AskResponse(done=done))

    async def _stream(self, run: Run, context: Context, call: Call) -> None:
        """Send all that a run tells until it has ended."""
        last = 0.0
        async for event in run.events():
            if isinstance(event, Piece):
                call.stage = "decode"
                now = time.perf_counter()
                if last:
                    self._desk.telemetry.piece(now - last)
                last = now
                await context.write(pb.AskResponse(piece=piece_message(event)))
            elif isinstance(event, pb.AnswerAccepted):
                call.stage = "prefill"
                await context.write(pb.AskResponse(accepted=event))
            elif event.stage == "wait":
                call.stage = "queue"
                await _tell_place(context, event.total)
            else:
                call.stage = "read"
                await context.write(pb.AskResponse(progress=progress_message(event)))

    def _long_run(self, request: pb.AskRequest, inquiry: Inquiry, call: Call) -> Run:
        """Answers about a text that may be longer than the window."""
        desk = self._desk
        size = _check_text(request, call)
        if size > desk.limits.long_bytes:
            told = f"the text has {size:,} bytes and the limit for a strategy other than whole is {desk.limits.long_bytes:,}"
            raise LimitError(told, public=told, field="text")
        with ExitStack() as undo:
            for quota in (desk.uploads, desk.long_texts):
                quota.take(size)
                undo.callback(quota.give, size)
            give_back = undo.pop_all().close
        runtime, tenant, text, system = call.runtime, call.tenant, request.text, request.system
        rules = ReadingRules(desk.limits.window, desk.limits.parts)
        call.facts["bytes"], call.stage = size, "read"

        def work(run: Run) -> Conclusion:
            with LongText(runtime, text, system=system, tenant=tenant, rules=rules, in_turn=run.in_turn) as subject:
                return _ask_long(run, subject, inquiry)

        return AnswerRun(desk.workers, work, request.thinking, give_back)

    async def _subject(self, request: pb.AskRequest, context: Context, call: Call, cleanup: ExitStack) -> Subject:
        """What is asked about; a document that was read for this question only goes with `cleanup`."""
        desk = self._desk
        if request.WhichOneof("subject") == "document_id":
            if request.system:
                told = "a system text goes with a text; this document was read before"
                raise InputError(told, public=told, field="system")
            entry = desk.library.get(call.tenant, request.document_id, use=True)
            call.facts["document"] = entry.id
            after = desk.library.answer(entry, request.conversation_id) if request.conversation_id else None
            return Subject(entry.document, entry, after)
        size = _check_text(request, call)
        desk.uploads.take(size)
        text, system = request.text, request.system
        call.facts["bytes"], call.stage = size, "read"
        reading = Reading(
            desk.workers,
            lambda progress: call.runtime.read(text, progress, system=system, tenant=call.tenant),
            lambda: desk.uploads.give(size),
        )

        async def tell(step: Progress) -> None:
            if step.stage == "wait":
                await _tell_place(context, step.total)

        document = await carry_through(desk, call, reading, tell)
        # A running answer shares the document's memory, so closing both in any order gives all of it back.
        cleanup.callback(document.close)
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


def _check_text(request: pb.AskRequest, call: Call) -> int:
    """Bytes of the text sent along. Raises InputError and LimitError when there is none to read."""
    if request.WhichOneof("subject") is None:
        told = "a question needs a document_id or a text"
        raise InputError(told, public=told, field="subject")
    if request.conversation_id:
        told = "a text sent along has no conversation"
        raise InputError(told, public=told, field="conversation_id")
    check_data(request.text, "text", "text", call.runtime.limits.text_bytes)
    return len(request.text.encode())


def _ask(run: Run, subject: Subject, inquiry: Inquiry) -> Conclusion:
    """Ask about what has been read, on the run's thread."""
    document, inline = subject.document, subject.inline
    with document.ask(inquiry.question, inquiry.sampling, after=subject.after, quotes=inquiry.quotes, progress=run.progress) as answer:
        usage = answer.usage
        run.accept(pb.AnswerAccepted(prompt_tokens=usage.prompt_tokens, cached_tokens=0 if inline else usage.cached_tokens))
        for pieces in answer.steps():
            run.check()
            for piece in pieces:
                run.piece(piece)
        return Conclusion(answer_message(answer, inline), answer, subject.entry)


def _ask_long(run: Run, subject: LongText, inquiry: Inquiry) -> Conclusion:
    """Read and ask, on the run's thread. Accepted is what has got memory for its first page."""
    to_tell: list[Choice] = []

    def progress(where: Progress) -> None:
        if to_tell and where.stage == "read" and where.done:
            run.accept(pb.AnswerAccepted(choice=choice_message(to_tell.pop())))
        run.progress(where)

    answer = subject.ask(
        inquiry.question,
        inquiry.sampling,
        strategy=inquiry.strategy,
        quotes=inquiry.quotes,
        chosen=to_tell.append,
        progress=progress,
        emit=run.piece,
    )
    return Conclusion(long_answer_message(answer, subject))


async def _tell_place(context: Context, place: int) -> None:
    await context.write(pb.AskResponse(waiting=pb.AnswerWaiting(place=place)))
