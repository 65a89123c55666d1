"""Answer: one question on a document, from its admission to the last piece of text, and what the next question can stand on."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from glyph_rt.errors import InputError, LimitError, OptionError
from glyph_rt.intake import Admission, Effort
from glyph_rt.language import Channel, Drafter, KVSegment, KVTail, Lease, Past, Piece, Sampler, Sampling, Turn
from glyph_rt.memory.arena import Reservation, Take
from glyph_rt.memory.limits import MIB
from glyph_rt.quotes import Quote, Quoting, corrected, locate
from glyph_rt.reading import Progress, ProgressCallback

if TYPE_CHECKING:
    from glyph_rt.documents import Document

DEFAULT_NEW_TOKENS = 512


@dataclass(frozen=True)
class Usage:
    """What an answer cost. `compression` is text tokens per visual token, both under the model's own tokenizer."""

    text_tokens: int
    visual_tokens: int
    compression: float
    pages: int
    characters: int
    prompt_tokens: int  # all the answer was conditioned on: the document's tokens, the conversation's so far and the question's
    cached_tokens: int  # of these, the ones whose KV was there already
    completion_tokens: int
    drafted_tokens: int  # guessed from the document's text
    accepted_tokens: int  # of these, the ones that the model drew too, so that they took no step of their own

    @property
    def characters_per_visual_token(self) -> float:
        """Density that no tokenizer can flatter."""
        return self.characters / self.visual_tokens


@dataclass(frozen=True)
class AnswerTimings:
    """Seconds from the question on."""

    prefill_s: float  # to the first token; waiting for KV memory and for others' steps included
    ttft_s: float  # to the first piece of text
    decode_s: float  # from there to the end
    tokens_per_s: float  # while decoding
    restore_s: float = 0.0  # of prefill_s: bringing a document back whose KV memory others had needed; without the wait for memory


@dataclass(frozen=True)
class Stand:
    """What a question stands on besides the document: earlier turns whose KV was kept, and tokens of earlier turns to be run again."""

    segments: tuple[KVSegment, ...] = ()
    rooms: tuple[Reservation, ...] = ()  # handles on the segments' memory
    unrun: tuple[int, ...] = ()
    spoken: tuple[int, ...] = ()  # what the segments were made of

    @property
    def tokens(self) -> int:
        """Of the segments."""
        return sum(segment.tokens for segment in self.segments)

    def release(self) -> None:
        for room in self.rooms:
            room.release()


class TurnMemory:
    """The KV memory of one turn: its own, the document's and that of earlier turns. With `keep`, its own outlives it until `drop`."""

    def __init__(self, tail: KVTail, own: Reservation, lease: Lease, stand: Stand, keep: bool, lock: threading.RLock) -> None:
        self._tail, self._own, self._lease, self._stand, self._keep = tail, own, lease, stand, keep
        self._lock = lock  # the arena's: a second lock around what takes that one would invite deadlock
        self._kept: KVSegment | None = None

    def end(self) -> None:
        """The turn has ended."""
        with self._lock:
            self._lease.release()
            if self._keep:
                self._kept = self._tail.seal()
            else:
                self._tail.close()
                self.drop()

    def drop(self) -> None:
        """Nobody will stand on this turn: what it kept goes now, or when it ends."""
        with self._lock:
            self._keep, self._kept = False, None
            if self._tail.closed:
                self._own.release()
                self._stand.release()

    def stand_on(self, sequence: list[int]) -> Stand | None:
        """For a question behind this turn, whose prompt and answer are `sequence`; None when nothing was kept."""
        with self._lock:
            if self._kept is None:
                return None
            kept = self._kept.first(min(self._kept.tokens, len(sequence)))
            rooms = (*(room.share() for room in self._stand.rooms), self._own.share())
            run, unrun = sequence[: kept.tokens], sequence[kept.tokens :]
            return Stand((*self._stand.segments, kept), rooms, tuple(unrun), (*self._stand.spoken, *run))


class Answer:
    """The pieces of an answer as they are made: iterate once, or take `.text`. Closing it early frees its KV memory.

    The answer is worked on from the start, whether or not it is read, beside all others that run: asking several questions before reading
    the first answer gives them to the decoder together.
    """

    def __init__(
        self,
        document: Document,
        question: str,
        sampling: Sampling,
        after: Answer | None = None,
        keep: bool = False,
        priority: int = 0,
        quoting: Quoting = Quoting.MARK,
        progress: ProgressCallback = lambda progress: None,
    ) -> None:
        self._asked = time.perf_counter()
        check_quoting(quoting, sampling)
        means = document.means
        model, template, arena = means.loop.model, means.template, means.arena
        own = template.follow_up(question) if after else template.question(question, document.end_position).tokens
        guide = template.grammars.guide(sampling.constraint) if sampling.constraint else None

        def claim(take: Take) -> tuple[Stand, list[int], int, Admission]:
            """All the question needs, and nothing when there is no room: what it follows may go while it waits, as its document may."""
            stand = after._to_stand_on(document) if after else Stand()
            try:
                prompt = [*stand.unrun, *own]
                most = _check_fit(document, document.tokens + stand.tokens + len(prompt), sampling)
                size = (len(prompt) + most) * model.kv_shape.bytes_per_token
                purpose = f"this question with up to {most} tokens of answer"
                _check_budget(document, size, purpose)
                return stand, prompt, most, document.claim(size, purpose, take, priority)
            except BaseException:
                stand.release()
                raise

        stand, prompt, most, admission = arena.admit(claim, lambda place: progress(Progress("wait", 0, place)))
        with ExitStack() as undo:
            undo.callback(stand.release)
            undo.callback(admission.own.release)
            gone, restored = not admission.intake.whole, Effort()

            def tell(done: int) -> None:
                if gone:
                    progress(Progress("restore", done, document.measure.pages))

            lease = admission.lease(tell, restored)
            undo.callback(lease.release)
            tail = KVTail(model.kv_shape, len(prompt) + most)
            self._memory = TurnMemory(tail, admission.own, lease, stand, keep, arena.lock)
            self._reply = template.stream(most, sampling.stop)
            self._drafter = Drafter(document.source) if sampling.draft else None
            self._turn = Turn(
                Past((*lease.segments, *stand.segments), tail),
                prompt,
                document.end_position + stand.tokens,
                most,
                template.stop_ids,
                Sampler(sampling, [*template.frame, *stand.spoken, *prompt], guide),
                self._drafter,
                subject=document.digest,
                priority=priority,
                on_end=self._memory.end,
            )
            means.loop.submit(self._turn)
            undo.pop_all()  # all of it is the turn's now, however it ends
        # Also when an answer is dropped without being read or closed, its memory comes back: later, since this may run in any thread.
        weakref.finalize(self, _abandon, self._turn, self._memory, means.store.later).atexit = False
        self.document, self.question, self.after, self.quoting = document, question, after, quoting
        self.kv_bytes = admission.own.size  # of the turn alone
        self._restore_s, self._prompt_tokens = restored.wall_s, document.tokens + stand.tokens + len(prompt)
        self._cached_tokens = document.tokens + stand.tokens - restored.prefilled_tokens
        self._own, self._prompt = own, prompt
        self._texts: dict[Channel, list[str]] = {channel: [] for channel in Channel}
        self._finish_reason: str | None = None
        self._quotes: tuple[Quote, ...] | None = None
        self._timings: AnswerTimings | None = None
        self._stream = self._run()

    def __iter__(self) -> Iterator[str]:
        return (piece.text for piece in self.pieces() if piece.channel == Channel.ANSWER)

    def pieces(self) -> Iterator[Piece]:
        """Thoughts and answer as they are made."""
        return (piece for pieces in self._stream for piece in pieces)

    def steps(self) -> Iterator[list[Piece]]:
        """Like `pieces`, but one item per token, so that whoever drives it may stop between any two: empty where a token completes no
        character."""
        return self._stream

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def text(self) -> str:
        """The whole answer, with exact quotes if these were asked for; waits for whatever has not come yet."""
        return corrected(self.said, self.quotes) if self.quoting == Quoting.EXACT else self.said

    @property
    def said(self) -> str:
        """The whole answer as the model wrote it, which is what its pieces say; waits like `text`."""
        for _ in self._stream:
            pass
        return "".join(self._texts[Channel.ANSWER])

    @property
    def quotes(self) -> tuple[Quote, ...]:
        """What of `said` the document says too, and where; waits like `text`. Looked for once, which takes seconds at worst."""
        said = self.said
        if self._quotes is None:
            questions, answer = [self.question], self.after
            while answer is not None:
                questions, answer = [*questions, answer.question], answer.after
            self._quotes = locate(self.document.text, said, questions)
        return self._quotes

    @property
    def thinking(self) -> str:
        """What the model has thought so far, of models that think aloud before they answer."""
        return "".join(self._texts[Channel.THINKING])

    @property
    def tokens(self) -> list[int]:
        """Token ids read so far, thoughts and marks included, without the one that ended the answer."""
        return list(self._reply.tokens)

    @property
    def finish_reason(self) -> str | None:
        """ "stop", "length" or, when it was closed before it was read to its end, "cancelled"; None until then."""
        return self._finish_reason

    @property
    def prefilled_tokens(self) -> int:
        """Tokens of the prompt that were run for this answer: the question's, not the document's."""
        return self._turn.prefilled_tokens

    @property
    def usage(self) -> Usage:
        d = self.document
        return Usage(
            text_tokens=d.text_tokens,
            visual_tokens=d.measure.visual_tokens,
            compression=d.compression,
            pages=d.measure.pages,
            characters=d.measure.characters,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=len(self._reply.tokens),
            drafted_tokens=self._drafter.drafted if self._drafter else 0,
            accepted_tokens=self._drafter.accepted if self._drafter else 0,
        )

    @property
    def timings(self) -> AnswerTimings | None:
        """None until the answer has ended."""
        return self._timings

    def cancel(self) -> None:
        """Stop. Returns at once; the memory comes back before the decoder's next step."""
        self._stream.close()
        self._finish_reason = self._finish_reason or "cancelled"
        self._memory.drop()
        self._turn.cancel()

    def close(self) -> None:
        """Stop, and give the turn's KV memory back, what was kept of it included; waits for the step that is under way."""
        self.cancel()
        self._turn.cancel(wait=True)

    def _run(self) -> Generator[list[Piece], None, None]:
        prefilled = first = last = 0.0
        try:
            for token, drawn in self._turn.tokens():
                prefilled, last = prefilled or drawn, drawn
                pieces = self._reply.push(token)
                first = first or (drawn if pieces else 0.0)
                stopped = self._reply.ended == "stop"
                if stopped:  # by a stop string: the turn does not know
                    self._turn.cancel(wait=True)
                yield self._keep(pieces)
                if stopped:
                    break
            else:
                yield self._keep(self._reply.finish())
            self._finish_reason = self._reply.ended or self._turn.finish_reason
        finally:
            last = last or time.perf_counter()
            decode = last - (first or last)
            rate = (len(self._reply.tokens) - 1) / decode if decode > 0 else 0.0
            self._timings = AnswerTimings((prefilled or last) - self._asked, (first or last) - self._asked, decode, rate, self._restore_s)

    def _keep(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            self._texts[piece.channel].append(piece.text)
        return pieces

    @cached_property
    def _exchange(self) -> list[int]:
        """Question and answer in the template's own form, which may leave thoughts out; of an answer that has ended."""
        return self.document.means.template.exchange(self.question, self.said, first=self.after is None)

    def _to_stand_on(self, document: Document) -> Stand:
        """For a question behind this answer. Raises InputError when it has not ended, or was about something else."""
        if self.document.digest != document.digest:
            raise InputError("the answer that this question follows is about another document")
        if self._finish_reason is None:
            raise InputError("the answer that this question follows has not been read to its end")
        template, run = document.means.template, [*self._own, *self._reply.tokens]
        if set(run) & set(template.marks.thinking or ()):  # the template, not we, says what becomes of thoughts: the answer is run again
            run = self._exchange
        else:
            kept = self._memory.stand_on([*self._prompt, *self._reply.tokens])
            if kept is not None:
                return kept
        before = self.after._to_stand_on(document) if self.after else Stand()
        return Stand(before.segments, before.rooms, (*before.unrun, *run), before.spoken)


def check_quoting(quoting: Quoting, sampling: Sampling) -> None:
    """Raises OptionError for exact quotes in an answer of a constrained form."""
    if quoting == Quoting.EXACT and sampling.constraint is not None:
        told = "exact quotes change an answer that has been made, so its form could not be promised: ask for one of the two"
        raise OptionError(told, public=told, field="quotes")


def _check_fit(document: Document, before: int, sampling: Sampling) -> int:
    """The most tokens the answer may have. Raises LimitError when these and the `before` before it do not fit the context."""
    context = document.means.loop.model.context
    most = sampling.max_new_tokens or max(1, min(DEFAULT_NEW_TOKENS, context - before))
    if before + most > context:
        told = (
            f"document ({document.tokens} tokens), question ({before - document.tokens}) and answer (up to {most}) do not fit the "
            f"model's context of {context} tokens"
        )
        field = "sampling.max_new_tokens" if sampling.max_new_tokens else "question"
        raise LimitError(f"{told}; ask more briefly or lower --max-new-tokens", public=told, field=field)
    return most


def _check_budget(document: Document, size: int, purpose: str) -> None:
    """Raises LimitError when room would never come, since the document itself is in its way."""
    budget = document.means.arena.budget
    if size + document.kv_bytes > budget:
        raise LimitError(
            f"{purpose} needs {size / MIB:,.1f} MiB of KV memory, the document {document.kv_bytes / MIB:,.1f} MiB, and the budget is "
            f"{budget / MIB:,.1f} MiB; raise --kv-bytes",
            public="document, question and answer together need more KV memory than this server has",
            field="sampling.max_new_tokens",
        )


def _abandon(turn: Turn, memory: TurnMemory, later: Callable[[Callable[[], None]], None]) -> None:
    later(memory.drop)
    turn.cancel()
