"""Answers about texts of any length: what they cost, what they were made of, and where the text says so."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

from glyph_rt.documents import Answer, AnswerTimings, Document, ReadTimings, Usage
from glyph_rt.long.excerpts import Excerpt
from glyph_rt.long.strategy import Choice
from glyph_rt.nearby import Span
from glyph_rt.quotes import Quote, Quoting, corrected, locate

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Citation:
    """Code points [start, end) of the whole text, and the number, from 1, of its page that they begin on."""

    start: int
    end: int
    page: int


@dataclass(frozen=True)
class Cost:
    """What readings and answers took, one after another.

    usage: pages and tokens of all that was read, be it read twice. kv_bytes: the most KV memory that a reading and its answer held.
    """

    read: ReadTimings
    usage: Usage
    timings: AnswerTimings
    kv_bytes: int

    @classmethod
    def of(cls, document: Document, answer: Answer) -> Cost:
        """Of an answer that has ended, and of reading what it is about."""
        assert answer.timings is not None, "the answer has not ended"
        return cls(document.timings, answer.usage, answer.timings, document.kv_bytes + answer.kv_bytes)

    @classmethod
    def total(cls, costs: Iterable[Cost]) -> Cost:
        """Of at least one, in their order."""
        return reduce(cls._then, costs)

    def _then(self, later: Cost) -> Cost:
        summed = {field.name: getattr(self.usage, field.name) + getattr(later.usage, field.name) for field in fields(Usage)}
        usage = Usage(**summed | {"compression": summed["text_tokens"] / summed["visual_tokens"]})
        read = ReadTimings(*(getattr(self.read, field.name) + getattr(later.read, field.name) for field in fields(ReadTimings)))
        ours, theirs = self.timings, later.timings
        decode_s = ours.decode_s + theirs.decode_s
        timings = AnswerTimings(
            prefill_s=ours.prefill_s + theirs.prefill_s,
            ttft_s=ours.ttft_s + ours.decode_s + theirs.ttft_s,
            decode_s=decode_s,
            tokens_per_s=usage.completion_tokens / decode_s if decode_s > 0 else 0.0,
            restore_s=ours.restore_s + theirs.restore_s,
        )
        return Cost(read, usage, timings, max(self.kv_bytes, later.kv_bytes))


@dataclass(frozen=True)
class PartAnswer:
    """What was answered from one excerpt of the text.

    found: whether it answers, rather than say that the excerpt does not. places: where the excerpt says the same, word for word.
    """

    excerpt: Excerpt
    pages: tuple[int, int]  # first and last of it, numbers from 1
    text: str
    thinking: str
    finish_reason: str
    found: bool
    places: tuple[Span, ...]
    cost: Cost


@dataclass(frozen=True)
class LongAnswer:
    """An answer, how it was come by, and where the whole text says so.

    said: as the model wrote it. quoting: what becomes of quotes that it misread. pages, pages_read: of the whole text, and how many
    different ones of these were read. citations: places that say the answer word for word; where there is none, since it was put in other
    words, the places of the parts' answers that it was made from. reduced_by: how one answer was made of several; empty when there was one.
    """

    question: str
    said: str
    quoting: Quoting
    thinking: str
    finish_reason: str
    choice: Choice
    pages: int
    pages_read: int
    reduced_by: str
    citations: tuple[Citation, ...]
    parts: tuple[PartAnswer, ...]
    cost: Cost

    @property
    def text(self) -> str:
        """The answer, with exact quotes if these were asked for."""
        return corrected(self.said, self.quotes) if self.quoting == Quoting.EXACT else self.said

    @cached_property
    def quotes(self) -> tuple[Quote, ...]:
        """What of `said` the whole text says too, whatever of it was read. Looked for once, which takes seconds at worst."""
        return locate(self.parts[0].excerpt.whole, self.said, [self.question])

    def to_json(self) -> dict[str, Any]:
        """What was answered, how the text was read for it, and where it says so; with exact quotes, also these, as the model wrote them.
        No times: see `cost`.
        """
        parts = [
            {"pages": part.pages, "answer": part.text, "finish_reason": part.finish_reason, "found": part.found} for part in self.parts
        ]
        reading: dict[str, Any] = {
            "strategy": self.choice.strategy.value,
            "reason": self.choice.reason,
            "pages": self.pages,
            "pages_read": self.pages_read,
        }
        if self.reduced_by:
            reading |= {"reduced_by": self.reduced_by, "parts": parts}
        told: dict[str, Any] = {
            "answer": self.text,
            "thinking": self.thinking,
            "finish_reason": self.finish_reason,
            "reading": reading,
            "citations": [asdict(citation) for citation in self.citations],
        }
        if self.quoting == Quoting.EXACT:
            told["quotes"] = [quote.to_json(self.parts[0].excerpt.whole) for quote in self.quotes]
        return told
