"""Document: a text that has been read, its place in KV memory, and the answers about it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import ClosedError, InputError, LimitError
from glyph_rt.language import Drafter, KVSegment, LanguageModel, PromptTemplate, Sampler, Sampling, Turn
from glyph_rt.memory import KVArena, Reservation
from glyph_rt.typeset import Measure

DEFAULT_NEW_TOKENS = 512


@dataclass(frozen=True)
class Progress:
    """Where a reading stands: `done` of `total` through `stage`. A callback that raises stops the reading there."""

    stage: str  # "layout", of long texts only, in code points; "read", drawn, encoded and prefilled, in pages
    done: int
    total: int


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class ReadTimings:
    """Seconds that reading a document took."""

    typeset_s: float
    encode_s: float
    prefill_s: float


@dataclass(frozen=True)
class Usage:
    """What an answer cost. `compression` is text tokens per visual token, both under the model's own tokenizer."""

    text_tokens: int
    visual_tokens: int
    compression: float
    pages: int
    characters: int
    prompt_tokens: int  # all the answer was conditioned on: the document's tokens and the question's
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

    prefill_s: float
    ttft_s: float  # to the first piece of text
    decode_s: float  # from there to the end
    tokens_per_s: float  # while decoding


@dataclass(frozen=True)
class Answering:
    """What answering needs, shared by all documents of a runtime."""

    model: LanguageModel
    template: PromptTemplate
    arena: KVArena


class Answer:
    """The pieces of an answer as they are made: iterate once, or take `.text`. Closing it early frees its KV memory at once."""

    def __init__(self, document: Document, question: str, sampling: Sampling) -> None:
        means = document.means
        piece = means.template.question(question, document.next_position)
        room = means.model.context - document.tokens - len(piece.tokens)
        most = sampling.max_new_tokens or max(1, min(DEFAULT_NEW_TOKENS, room))
        if most > room:
            told = (
                f"document ({document.tokens} tokens), question ({len(piece.tokens)}) and answer (up to {most}) do not fit the "
                f"model's context of {means.model.context} tokens"
            )
            field = "sampling.max_new_tokens" if sampling.max_new_tokens else "question"
            raise LimitError(f"{told}; ask more briefly or lower --max-new-tokens", public=told, field=field)
        segment, shared = document.share()
        size = (len(piece.tokens) + most) * means.model.kv_shape.bytes_per_token
        try:
            own = means.arena.reserve(size, f"this question with up to {most} tokens of answer")
        except LimitError as error:
            shared.release()
            if size + document.kv_bytes > means.arena.budget:  # room would never come: the document itself is in its way
                told = "document, question and answer together need more KV memory than this server has"
                raise LimitError(str(error), public=told, field="sampling.max_new_tokens") from None
            raise
        self.document, self.question = document, question
        self.kv_bytes = size  # of the turn alone
        self._prompt_tokens = document.tokens + len(piece.tokens)
        self._drafter = Drafter(document.source) if sampling.draft else None
        self._turn = Turn(means.model, (segment,), piece, most, means.template.stop_ids, Sampler(sampling), self._drafter)
        self._detokenizer = means.template.detokenizer()
        self._completion_tokens = 0
        self._pieces: list[str] = []
        self._timings: AnswerTimings | None = None
        self._stream = self._run()
        # Also when an answer is dropped without being read or closed, its memory comes back.
        self._give_back = weakref.finalize(self, _release, self._turn, own, shared)

    def __iter__(self) -> Iterator[str]:
        return (piece for piece in self._stream if piece)

    def steps(self) -> Iterator[str]:
        """Like iterating, but one item per token, so that whoever drives it may stop between any two: empty where a token
        completes no character."""
        return self._stream

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def text(self) -> str:
        """The whole answer; runs whatever has not run yet."""
        for _ in self._stream:
            pass
        return "".join(self._pieces)

    @property
    def finish_reason(self) -> str | None:
        """ "stop", "length" or, when it was closed early, "cancelled"; None while it runs."""
        return self._turn.finish_reason

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens that were run for this answer: the question's, never the document's."""
        return self._turn.prefilled_tokens

    @property
    def usage(self) -> Usage:
        d = self.document
        return Usage(
            text_tokens=d.text_tokens,
            visual_tokens=d.measure.visual_tokens,
            compression=d.text_tokens / d.measure.visual_tokens,
            pages=d.measure.pages,
            characters=d.measure.characters,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=d.tokens,
            completion_tokens=self._completion_tokens,
            drafted_tokens=self._drafter.drafted if self._drafter else 0,
            accepted_tokens=self._drafter.accepted if self._drafter else 0,
        )

    @property
    def timings(self) -> AnswerTimings | None:
        """None until the answer has ended."""
        return self._timings

    def close(self) -> None:
        """Stop, and give the turn's KV memory back."""
        self._stream.close()
        if self._turn.finish_reason is None:
            self._turn.finish_reason = "cancelled"
        self._give_back()

    def _run(self) -> Generator[str, None, None]:
        start = time.perf_counter()
        prefilled = first = 0.0
        try:
            for token in self._turn.tokens():
                now = time.perf_counter()
                prefilled = prefilled or now
                self._completion_tokens += 1
                piece = self._detokenizer.step(token)
                if piece:
                    first = first or now
                    self._pieces.append(piece)
                yield piece
        finally:
            end = time.perf_counter()
            decode = end - (first or end)
            rate = (self._completion_tokens - 1) / decode if decode > 0 else 0.0
            self._timings = AnswerTimings((prefilled or end) - start, (first or end) - start, decode, rate)
            self._give_back()


def _release(turn: Turn, own: Reservation, shared: Reservation) -> None:
    turn.close()
    own.release()
    shared.release()


class Document:
    """A document that has been read: its KV is shared by every question on it. Made by `Runtime.read`.

    Close it (or use it as a context manager) to give its KV memory back.
    """

    def __init__(
        self,
        means: Answering,
        segment: KVSegment,
        reservation: Reservation,
        next_position: int,
        measure: Measure,
        source: NDArray[np.int32],
        timings: ReadTimings,
    ) -> None:
        self.means, self.measure, self.timings = means, measure, timings
        self.source = source  # token ids of the text behind the pages, which answers are drafted from
        self.next_position = next_position  # rope position behind the document; not its number of tokens
        self.tokens = segment.tokens  # cache slots
        self.digest = segment.digest
        self.kv_bytes = reservation.size
        self._segment: KVSegment | None = segment
        self._reservation = reservation
        self._give_back = weakref.finalize(self, reservation.release)

    @property
    def text_tokens(self) -> int:
        """What a text model would have to read."""
        return len(self.source)

    def ask(self, question: str, sampling: Sampling | None = None) -> Answer:
        """Answer a question. Only the question is prefilled.

        Raises InputError for a question that is empty or no Unicode text, LimitError, before any work, when question and
        answer do not fit the context or the KV budget, and ClosedError after `close`.
        """
        if not question.strip():
            raise InputError("the question is empty; ask something", public="the question shows nothing to answer", field="question")
        if any("\ud800" <= c <= "\udfff" for c in question):
            raise InputError("the question is not valid Unicode (it holds lone surrogates); check the terminal's encoding")
        return Answer(self, question, sampling or Sampling())

    def share(self) -> tuple[KVSegment, Reservation]:
        """The document's KV, and a handle on its memory to be released by whoever asked. Raises ClosedError."""
        segment = self._segment
        if segment is None:
            raise ClosedError("this document was closed; read it again")
        return segment, self._reservation.share()

    def close(self) -> None:
        """Give the KV memory back: at once, or when the last running answer ends."""
        self._segment = None
        self._give_back()

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
