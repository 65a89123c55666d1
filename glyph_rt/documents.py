"""Document: a text that has been read. Its KV is shared by every question on it, and given to others while nobody asks."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glyph_rt.answers import Answer, AnswerTimings, Usage
from glyph_rt.errors import ClosedError, InputError
from glyph_rt.intake import Admission, Effort
from glyph_rt.language import PromptTemplate, Sampling, SegmentStore, StepLoop
from glyph_rt.memory.arena import Arena, Reservation, Take
from glyph_rt.quotes import Quoting
from glyph_rt.reading import PageName, PageReader, Progress, ProgressCallback
from glyph_rt.typeset import Layout

__all__ = ["Answer", "AnswerTimings", "Document", "Means", "Progress", "ProgressCallback", "ReadTimings", "Usage"]


@dataclass(frozen=True)
class ReadTimings:
    """Seconds that reading a document took; they add up. What was read before, in any document that begins alike, takes none."""

    typeset_s: float
    encode_s: float
    prefill_s: float  # less what typesetting and encoding took at the same time; or waiting for who had the same pages read
    wait_s: float = 0.0  # for KV memory that others used


@dataclass(frozen=True)
class Means:
    """What documents work with, shared by all of a runtime."""

    reader: PageReader
    read: Callable[[str, str, ProgressCallback | None], Document]  # a text, for a tenant

    @property
    def loop(self) -> StepLoop:
        return self.reader.loop

    @property
    def template(self) -> PromptTemplate:
        return self.reader.template

    @property
    def store(self) -> SegmentStore:
        return self.reader.store

    @property
    def arena(self) -> Arena:
        return self.reader.arena


class Document:
    """A document that has been read. Made by `Runtime.read`.

    Close it (or use it as a context manager) to give its memory back. While it is open, its KV stays as long as nobody else needs the
    room; the next question brings back what is gone. Documents that begin alike share the KV of the pages they share.
    """

    def __init__(
        self,
        means: Means,
        layout: Layout,
        names: tuple[PageName, ...],
        source: NDArray[np.int32],
        tenant: str,
        room: Reservation,
        effort: Effort,
    ) -> None:
        self.means, self.measure, self.tenant = means, layout.measure, tenant
        self.timings = ReadTimings(effort.typeset_s, effort.encode_s, effort.prefill_s, effort.wait_s)
        self.source = source  # token ids of the text behind the pages, which answers are drafted from
        self.end_position = means.reader.end_position(names)  # rope position behind the document; not its number of tokens
        self.tokens = sum(name.tokens for name in names)  # cache slots
        self.prefilled_tokens = effort.prefilled_tokens  # of these, the ones that reading it had to run
        self.digest = names[-1].key
        self.kv_bytes = self.tokens * means.reader.kv_shape.bytes_per_token
        self.keys = keys = tuple(name.key for name in names)  # what the pages' KV is known by
        self._layout, self._names = layout, names
        self._closed = False
        means.store.want(keys)
        self._give_back = weakref.finalize(self, means.store.later, lambda: _give_back(means.store, keys, room))
        self._give_back.atexit = False

    @property
    def text(self) -> str:
        return self._layout.text

    @property
    def layout(self) -> Layout:
        """Its lines and pages, and where on them every character stands."""
        return self._layout

    @property
    def text_tokens(self) -> int:
        """What a text model would have to read."""
        return len(self.source)

    @property
    def compression(self) -> float:
        """Text tokens per visual token, both under the model's own tokenizer."""
        return self.text_tokens / self.measure.visual_tokens

    def ask(
        self,
        question: str,
        sampling: Sampling | None = None,
        *,
        after: Answer | None = None,
        keep: bool = False,
        priority: int = 0,
        quotes: Quoting = Quoting.MARK,
        progress: ProgressCallback = lambda progress: None,
    ) -> Answer:
        """Answer a question. Only the question is prefilled, and whatever of the document others had to be given room for.

        after: an answer that has ended and that this question refers to. keep: keep the turn's KV until the answer is closed, so that a
        question after it prefills nothing of it. priority: higher goes first, before any other. quotes: with EXACT, `Answer.text` has the
        document's own characters where the model misread what it quotes; either way `Answer.quotes` tells of them. progress: told the place
        in the queue while there is no room, and then of the pages that are brought back, if any have to be; what it raises ends the
        question, and nobody else's.

        Raises InputError for a question that is empty or no Unicode text, OptionError for exact quotes in an answer of a constrained form,
        LimitError, before any work, when question and answer can never fit the context or the KV budget, BusyError when they found no room
        in time, and ClosedError after `close`.
        """
        check_question(question)
        if self._closed:
            raise ClosedError("this document was closed; read it again")
        return Answer(self, question, sampling or Sampling(), after, keep, priority, Quoting.parse(quotes), progress)

    def append(self, text: str) -> Document:
        """A document of this one's text and `text` behind it. Only pages that differ are prefilled: the last one, and the new ones."""
        if self._closed:
            raise ClosedError("this document was closed; read it again")
        return self.means.read(self.text + text, self.tenant, None)

    def claim(self, own: int, purpose: str, take: Take, priority: int = 0) -> Admission:
        """For `Arena.admit`: the document's KV, there or on its way back, and `own` bytes beside it, of which `purpose` says what for.

        Also of a document that was closed while its question waited: it is answered as if it were there.
        """
        return self.means.reader.claim(self._names, self._layout, own, purpose, take, priority)

    def evict(self) -> None:
        """Give the KV memory to others now, as far as no answer is using it. The document stays open."""
        self.means.store.evict(self.keys)

    def close(self) -> None:
        """Give the memory back: at once, or when the last running answer ends."""
        self._closed = True
        self._give_back()
        self.means.store.settle()

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_question(question: str) -> None:
    """Raises InputError for a question that is empty or no Unicode text."""
    if not question.strip():
        raise InputError("the question is empty; ask something", public="the question shows nothing to answer", field="question")
    if any("\ud800" <= c <= "\udfff" for c in question):
        raise InputError("the question is not valid Unicode (it holds lone surrogates); check the terminal's encoding")


def _give_back(store: SegmentStore, keys: tuple[str, ...], room: Reservation) -> None:
    store.unwant(keys)
    room.release()
