"""From logits to the next token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glyph_rt.errors import OptionError
from glyph_rt.language.constraints import Constraint, Guide

MOST_STOPS, LONGEST_STOP = 16, 256  # strings; characters of one: what is held back of an answer stays short


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn and when it ends. Raises OptionError for values outside their range.

    What reshapes or narrows the distribution is transformers' own, in its order: penalty, temperature, top-k, top-p, min-p.
    """

    max_new_tokens: int | None = None  # None: 512, or what the context leaves if that is less
    temperature: float = 0.0  # 0: always the most likely token; top_k, top_p and min_p then change nothing
    seed: int = 0  # with a temperature: the same seed gives the same answer, whatever else is answered meanwhile
    draft: bool = True  # guess from the document's text what comes next, and check several tokens in one step; changes no token
    top_k: int = 0  # draw among the k most likely tokens; 0: all
    top_p: float = 1.0  # draw among the most likely tokens that together have this probability
    min_p: float = 0.0  # draw among tokens at least this likely, as a share of the likeliest
    repetition_penalty: float = 1.0  # above 1: tokens of prompt and answer become less likely (CTRL, arXiv:1909.05858)
    stop: tuple[str, ...] = ()  # the answer ends before the first of these; no part of it is given out
    constraint: Constraint | None = None  # the form that the answer must have

    @classmethod
    def of(cls, *, json_schema: str | None = None, regex: str | None = None, **others: Any) -> Sampling:
        """From options as command lines, lines of a batch and requests have them: by name, and the constraint's two kinds apart.

        Raises OptionError for both kinds, too.
        """
        return cls(**others, constraint=Constraint.of(json_schema, regex))

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            _refuse("max_new_tokens", f"max-new-tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature <= 100:
            _refuse("temperature", f"temperature must lie between 0 (greedy) and 100, not {self.temperature}")
        if not 0 <= self.seed < 2**63:
            _refuse("seed", f"seed must lie between 0 and 2^63 - 1, not {self.seed}")
        if self.top_k < 0:
            _refuse("top_k", f"top-k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            _refuse("top_p", f"top-p must lie above 0 and not above 1 (all tokens), not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            _refuse("min_p", f"min-p must lie between 0 (all tokens) and 1, not {self.min_p}")
        if not 0.01 <= self.repetition_penalty <= 100:
            _refuse("repetition_penalty", f"repetition-penalty must lie between 0.01 and 100, not {self.repetition_penalty}")
        if len(self.stop) > MOST_STOPS or not all(0 < len(text) <= LONGEST_STOP for text in self.stop):
            _refuse("stop", f"an answer has at most {MOST_STOPS} stop strings of 1 to {LONGEST_STOP} characters each")


def _refuse(name: str, told: str) -> NoReturn:
    raise OptionError(told, public=told, field=f"sampling.{name}")


class Sampler:
    """Draws the tokens of one answer. Its random numbers are its own: an answer never depends on what is drawn beside it.

    prompt: the tokens that the answer is conditioned on, which the repetition penalty counts as repeated, as transformers' `generate`
    does. guide: of the constraint, if there is one.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = (), guide: Guide | None = None) -> None:
        self._greedy = sampling.temperature == 0
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._guide = guide
        penalty = float(sampling.repetition_penalty)
        self._penalty = RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None
        self._repeated = dict.fromkeys(prompt)  # a set in order
        self._counted = 0  # tokens of the answer that are among them
        self._warpers: list[LogitsProcessor] = []
        if not self._greedy:
            self._warpers.append(TemperatureLogitsWarper(max(sampling.temperature, 1e-30)))  # in fp32 what is smaller would be zero
            if sampling.top_k:
                self._warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))
            if sampling.min_p:
                self._warpers.append(MinPLogitsWarper(sampling.min_p))

    def next(self, logits: Tensor, answer: Sequence[int]) -> int:
        """The token id behind `answer`, its tokens so far, from fp32 logits [vocabulary].

        Called once for each token of the answer, in order; between two calls `answer` grows by the token that was returned.
        Raises ConstraintError where the constraint leaves no token.
        """
        scores = self.scores(logits, answer)
        if self._greedy:
            return int(scores.argmax())
        return int(torch.multinomial(torch.softmax(scores, -1).cpu(), 1, generator=self._generator))

    def scores(self, logits: Tensor, answer: Sequence[int]) -> Tensor:
        """The logits [vocabulary] that the next token is drawn from: those of tokens ruled out are minus infinity."""
        scores = logits[None]
        if self._guide is not None:
            scores = scores.masked_fill(~self._guide.allowed(answer).to(scores.device), -torch.inf)
        if self._penalty is not None:
            self._repeated.update(dict.fromkeys(answer[self._counted :]))
            self._counted = len(answer)
            repeated = torch.tensor([list(self._repeated)], dtype=torch.long, device=scores.device)
            scores = self._penalty(repeated, scores)
        if self._warpers:
            scores = scores - scores.max()  # a tiny temperature must not overflow
            for warp in self._warpers:
                scores = warp(None, scores)
        return scores[0]
