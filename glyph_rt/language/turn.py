"""Turn: one question being answered over a shared past, on private bounded KV memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from glyph_rt.language.attention import Past
from glyph_rt.language.drafting import Drafter
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
    """Prefills a question and then yields token ids until a stop token or `max_new_tokens`. A step gives one token, and with a drafter
    as many more as it guessed right.

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
        drafter: Drafter | None = None,
    ) -> None:
        self.prefilled_tokens = 0  # counted as they run, so that a test can prove what was not run again
        self.finish_reason: str | None = None  # "stop" or "length" once the answer has ended
        self.steps = 0  # forward passes of the answer
        self._model, self._question, self._sampler, self._drafter = model, question, sampler, drafter
        self._max_new_tokens, self._stop_ids = max_new_tokens, stop_ids
        self._past = Past(segments, KVTail(model.kv_shape, len(question.tokens) + max_new_tokens))

    def tokens(self) -> Iterator[int]:
        """Token ids of the answer, without the stop token."""
        hidden = prefill(self._model, self._question, self._past)
        self.prefilled_tokens += len(self._question.tokens)
        position = self._question.end
        answer: list[int] = []
        draft: list[int] = []  # hidden[i] tells what follows the answer and draft[:i]
        while True:
            drawn = self._draw(hidden, draft)
            for token in drawn:
                if token in self._stop_ids:
                    self.finish_reason = "stop"
                    return
                answer.append(token)
                if len(answer) == self._max_new_tokens:
                    self.finish_reason = "length"
                yield token
                if self.finish_reason is not None:
                    return
            # All drawn but the last token have been run, as drafts. What was drafted behind them is forgotten.
            kept = len(drawn) - 1
            self._past.tail.truncate(self._past.tail.length - (len(draft) - kept))
            position += kept
            draft = [] if self._drafter is None else self._drafter.propose(answer, self._max_new_tokens - len(answer) - 1)
            at = (position + torch.arange(1 + len(draft))).expand(3, -1)
            hidden = self._model.forward(self._model.embed([drawn[-1], *draft]), at, self._past)
            self.steps += 1
            position += 1

    def _draw(self, hidden: torch.Tensor, draft: list[int]) -> list[int]:
        """The model's own tokens, up to the first that the draft does not have."""
        logits = self._model.logits(hidden)
        drawn: list[int] = []
        for row in logits:
            drawn.append(self._sampler.next(row))
            if drawn[-1] in self._stop_ids or drawn != draft[: len(drawn)]:
                break
        if self._drafter is not None and draft:
            self._drafter.learn(len(draft), len(drawn) - 1)
        return drawn

    def close(self) -> None:
        """Give the turn's KV memory back."""
        self._past.tail.close()
