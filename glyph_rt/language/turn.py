"""Turn: one question being answered over a shared past, on private bounded KV memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from glyph_rt.language.attention import Past
from glyph_rt.language.model import LanguageModel
from glyph_rt.language.prompt import PromptPiece
from glyph_rt.language.sampling import Sampler
from glyph_rt.language.segments import KVSegment, KVTail


@torch.inference_mode()
def prefill(model: LanguageModel, piece: PromptPiece, past: Past, visual: torch.Tensor | None = None) -> torch.Tensor:
    """Run one prompt piece; `visual` [n, hidden] takes the place of its image tokens. Returns the last hidden state [1, hidden]."""
    embeddings = model.embed(piece.tokens)
    if piece.image is not None:
        if visual is None:
            raise ValueError("a page needs its visual tokens")
        embeddings[piece.image] = visual.to(embeddings)
    return model.forward(embeddings, piece.positions, past)[-1:]


class Turn:
    """Prefills a question and then yields token ids, one per step, until a stop token or `max_new_tokens`.

    Holds `capacity` tokens of KV from the start, so it can never fail for memory later; `close` gives them back.
    """

    def __init__(
        self,
        model: LanguageModel,
        segments: tuple[KVSegment, ...],
        question: PromptPiece,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        sampler: Sampler,
    ) -> None:
        self.prefilled_tokens = 0  # counted as they run, so that a test can prove what was not run again
        self.finish_reason: str | None = None  # "stop" or "length" once the answer has ended
        self._model, self._question, self._sampler = model, question, sampler
        self._max_new_tokens, self._stop_ids = max_new_tokens, stop_ids
        self._past = Past(segments, KVTail(model.kv_shape, len(question.tokens) + max_new_tokens))

    def tokens(self) -> Iterator[int]:
        """Token ids of the answer, without the stop token."""
        hidden = prefill(self._model, self._question, self._past)
        self.prefilled_tokens += len(self._question.tokens)
        position = self._question.end
        for count in range(1, self._max_new_tokens + 1):
            token = self._sampler.next(self._model.logits(hidden)[0])
            if token in self._stop_ids:
                self.finish_reason = "stop"
                return
            if count == self._max_new_tokens:
                self.finish_reason = "length"
            yield token
            if count < self._max_new_tokens:
                at = torch.full((3, 1), position)
                hidden = self._model.forward(self._model.embed([token]), at, self._past)
                position += 1

    def close(self) -> None:
        """Give the turn's KV memory back."""
        self._past.tail.close()
