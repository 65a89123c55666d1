"""How near an encoder is to the oracle, and where one that is wrong goes wrong: its residual stream beside the oracle's, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_COSINE = 0.999  # of every visual token, and every patch, with the oracle's
# Largest difference from the oracle, relative to its largest value. Measured with the embedded reader and random towers of 1 and 8 blocks
# (tests/vision/test_differential.py), the largest were 1.9e-6, 2.3e-3 and 2.2e-2: room for depth, none for a wrong kernel. In INT8 the
# reader's is 3.1e-2.
MAX_ERROR = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1, "int8": 1e-1}


@dataclass(frozen=True)
class Parity:
    """How near an encoder's values are to the oracle's."""

    cosine: float  # the lowest of any row; NaN when there is one
    error: float  # the largest difference, relative to the oracle's largest value; NaN when there is one

    @classmethod
    def of(cls, found: Tensor, expected: Tensor) -> Parity:
        """Of values fp32 [n, features]."""
        cosine = torch.cosine_similarity(found.double(), expected.double(), -1).min()
        return cls(float(cosine), float((found - expected).abs().max() / expected.abs().max()))

    def within(self, precision: str) -> bool:
        """Whether `precision` explains the difference. False for NaN."""
        return self.cosine >= MIN_COSINE and self.error <= MAX_ERROR[precision]

    def and_also(self, other: Parity) -> Parity:
        """Of both together."""
        return Parity(min(self.cosine, other.cosine), max(self.error, other.error))

    def __str__(self) -> str:
        return f"lowest cosine {self.cosine:.6f}, largest error {self.error:.1e} of the range"


@dataclass(frozen=True)
class Stage:
    """One place of the residual stream."""

    name: str  # of graph.stages, or graph.OUTPUT
    parity: Parity  # at the patches of which the oracle's values are kept
    lost: int  # values that are NaN or infinite, of all patches
    values: int  # in all

    @classmethod
    def of(cls, name: str, found: Tensor, rows: Tensor, expected: Tensor) -> Stage:
        """Of `found` fp32 [n, features], and the oracle's values of some of its rows."""
        return cls(name, Parity.of(found[rows], expected), int((~torch.isfinite(found)).sum()), found.numel())

    def sound(self, precision: str) -> bool:
        return self.lost == 0 and self.parity.within(precision)

    def __str__(self) -> str:
        return f"{self.name}: {self.parity}, {self.lost:,} of {self.values:,} values NaN or infinite"


@dataclass(frozen=True)
class BlockReport:
    """An encoder's stages on one golden page, first to last."""

    page: str
    precision: str
    stages: tuple[Stage, ...]

    @property
    def first_off(self) -> Stage | None:
        """The first stage that is beyond what the precision explains."""
        return next((stage for stage in self.stages if not stage.sound(self.precision)), None)

    @property
    def summary(self) -> str:
        """In a few words, where it goes off."""
        off = self.first_off
        return "looked into, it is not off at any block" if off is None else f"the first to go off is {off}"

    def __str__(self) -> str:
        """A line for each stage, those that are off marked."""
        lines = [f"  {' ' if stage.sound(self.precision) else '!'} {stage}" for stage in self.stages]
        return "\n".join([f"golden page {self.page!r}, block by block beside the oracle, limits of {self.precision}:", *lines])
