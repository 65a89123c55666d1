"""Turn: one question being answered over a shared past, on private bounded KV memory. What it does between two steps of the loop."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

from torch import Tensor

from glyph_rt.errors import NonFiniteError
from glyph_rt.language.drafting import Drafter
from glyph_rt.language.rows import Past, Rows
from glyph_rt.language.sampling import Sampler

PREFILL_ROWS = 512  # tokens of a question prefilled in one step, so that a long one does not hold up the answers of others
UNREAD_TOKENS = 256  # drawn ahead of whoever reads the answer; then the turn rests


class Turn:
    """Runs its prompt and then draws token ids until a stop token or `max_new_tokens`; a step gives one token, and with a drafter as many
    more as it guessed right.

    past: the shared segments, and a tail with room for the prompt and the answer, so that a turn never fails for memory later.
    position: rope position of the prompt's first token. subject: turns on one document have an equal one; the loop is fair between
    subjects and puts their turns side by side. on_end: called once, before the answer's end can be seen, by whoever ends the turn.

    The loop calls `rows`, `accept`, `fail` and `end`; any thread may call `tokens` (one reader) and `cancel`.
    """

    def __init__(
        self,
        past: Past,
        prompt: Sequence[int],
        position: int,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        sampler: Sampler,
        drafter: Drafter | None = None,
        *,
        subject: Hashable = None,
        priority: int = 0,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.past, self.subject, self.priority = past, subject, priority
        self.max_new_tokens = max_new_tokens
        self.prefilled_tokens = 0  # counted as they run, so that a test can prove what was not run again
        self.steps = 0  # forward passes of the answer
        self.answer: list[int] = []  # drawn so far
        self.finish_reason: str | None = None  # "stop", "length", "cancelled" or "error" once the turn has ended
        self.cancelled = False
        self.wake: Callable[[], None] = lambda: None  # set by the loop that runs the turn
        self.served = 0  # the loop's step that last had rows of this turn
        self._prompt, self._position = prompt, position
        self._stop_ids, self._sampler, self._drafter = stop_ids, sampler, drafter
        self._draft: list[int] = []
        self._on_end = on_end
        self._outbox: queue.SimpleQueue[tuple[float, list[int]] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._read = 0

    # -- the loop's side

    @property
    def resting(self) -> bool:
        """Nobody reads the answer, so nothing is drawn."""
        return len(self.answer) - self._read >= UNREAD_TOKENS

    @property
    def rows_next(self) -> int:
        """How many rows of the prompt the next step would take; 0 once the answer is being drawn."""
        return min(PREFILL_ROWS, len(self._prompt) - self.prefilled_tokens)

    def rows(self) -> Rows:
        """What to run next."""
        if self.rows_next:
            tokens = self._prompt[self.prefilled_tokens : self.prefilled_tokens + self.rows_next]
            last = self.prefilled_tokens + len(tokens) == len(self._prompt)
            return Rows(self.past, tokens, range(self._position, self._position + len(tokens)), wanted=1 if last else 0)
        room = self.max_new_tokens - len(self.answer) - 1
        self._draft = [] if self._drafter is None else self._drafter.propose(self.answer, room)
        tokens = [self.answer[-1], *self._draft]
        return Rows(self.past, tokens, range(self._position, self._position + len(tokens)), wanted=len(tokens))

    def accept(self, rows: Rows, logits: Tensor) -> None:
        """The rows are part of the tail. logits: fp32 [rows.wanted, vocabulary]. Ends the turn when the answer has ended.

        Raises NonFiniteError rather than let noise be drawn.
        """
        if self.rows_next:
            self.prefilled_tokens += len(rows.tokens)
            self._position += len(rows.tokens)
        else:
            self.steps += 1
            self._position += 1
        if rows.wanted:
            if not math.isfinite(logits.sum()):
                raise NonFiniteError("the decoder produced NaN or infinity; use fp32 or bf16 weights")
            self._take(self._draw(logits))

    def fail(self, error: BaseException) -> None:
        """The rows could not be run."""
        self.end("error", error)

    def _draw(self, logits: Tensor) -> list[int]:
        """The model's own tokens, up to the first that the draft does not have. What was drafted behind it is forgotten."""
        draft, self._draft = self._draft, []
        answer, drawn = list(self.answer), []
        for row in logits:
            drawn.append(self._sampler.next(row, answer))
            answer.append(drawn[-1])
            if drawn[-1] in self._stop_ids or drawn != draft[: len(drawn)]:
                break
        kept = len(drawn) - 1  # drafts that are now part of the answer
        self.past.tail.truncate(self.past.tail.length - (len(draft) - kept))
        self._position += kept
        if self._drafter is not None and draft:
            self._drafter.learn(len(draft), kept)
        return drawn

    def _take(self, drawn: list[int]) -> None:
        """Hand drawn tokens out; the one place where an answer ends by its tokens. Ends by its text are the reader's, who cancels."""
        stop = drawn[-1] in self._stop_ids
        new = drawn[:-1] if stop else drawn
        self.answer += new
        if new:
            self._outbox.put((time.perf_counter(), new))
        if stop:
            self.end("stop")
        elif len(self.answer) == self.max_new_tokens:
            self.end("length")

    def end(self, reason: str, error: BaseException | None = None) -> None:
        """Give the memory back and tell the reader. Later calls do nothing."""
        if self.finish_reason is not None:
            return
        self.finish_reason, self._error = reason, error
        self._on_end()
        self.past = Past((), self.past.tail)  # an answer may be kept for long; the memory it stood on is not its to keep
        self._outbox.put(None)
        self._ended.set()

    # -- the reader's side

    def tokens(self) -> Iterator[tuple[int, float]]:
        """Token ids of the answer, without the stop token, and when each was drawn (time.perf_counter). Raises what ended the turn."""
        while (batch := self._outbox.get()) is not None:
            stamp, new = batch
            for token in new:
                was_resting = self.resting
                self._read += 1
                if was_resting:
                    self.wake()
                yield token, stamp
        if self._error is not None:
            raise self._error

    def cancel(self, wait: bool = False) -> None:
        """Nobody wants the rest: the loop ends the turn before its next step. `wait`: until it has."""
        if self.finish_reason is None:
            self.cancelled = True
            self.wake()
        if wait:
            self._ended.wait()
