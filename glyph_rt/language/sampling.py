"""From logits to the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from glyph_rt.errors import OptionError


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. Raises OptionError for values outside their range."""

    max_new_tokens: int | None = None  # None: 512, or what the context leaves if that is less
    temperature: float = 0.0  # 0: always the most likely token
    seed: int = 0  # with a temperature: the same seed gives the same answer
    draft: bool = True  # guess from the document's text what comes next, and check several tokens in one step; changes no token

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            _refuse("max_new_tokens", f"max-new-tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature <= 100:
            _refuse("temperature", f"temperature must lie between 0 (greedy) and 100, not {self.temperature}")
        if not 0 <= self.seed < 2**63:
            _refuse("seed", f"seed must lie between 0 and 2^63 - 1, not {self.seed}")


def _refuse(name: str, told: str) -> NoReturn:
    raise OptionError(told, public=told, field=f"sampling.{name}")


class Sampler:
    """Draws the tokens of one answer."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def next(self, logits: Tensor) -> int:
        """One token id from fp32 logits [vocabulary]."""
        if self._temperature == 0:
            return int(logits.argmax())
        # The maximum goes first: a tiny temperature must not overflow.
        weights = torch.softmax((logits.cpu() - logits.max().cpu()) / self._temperature, -1)
        return int(torch.multinomial(weights, 1, generator=self._generator))
