"""Formulas that several tasks share: error rates of transcripts, and confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from glyph_rt.evaluate.task import Score

Z95 = 1.959964  # standard deviations on each side of the mean that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Interval:
    """A share or a mean, and its 95 % confidence interval."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(successes: float, trials: float) -> Interval:
    """Wilson score interval at 95 % (Wilson 1927): sound for shares near 0 and 1."""
    share = successes / trials
    centre = (share + Z95 * Z95 / (2 * trials)) / (1 + Z95 * Z95 / trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + Z95 * Z95 / (4 * trials * trials)) / (1 + Z95 * Z95 / trials)
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def interval(scores: Sequence[Score]) -> Interval:
    """Of the weighted mean of some scores.

    Wilson's where every score is 0 or 1; with unlike weights, of Kish's effective number sum(w)^2 / sum(w^2) of them. Else the
    normal one of a ratio estimator (Cochran 1977, 2.11): the variance of the weighted mean m is
    n / (n - 1) * sum(w^2 (v - m)^2) / sum(w)^2. One such score alone tells nothing: 0 to 1.
    """
    total = sum(s.weight for s in scores)
    mean = sum(s.value * s.weight for s in scores) / total
    if {s.value for s in scores} <= {0.0, 1.0}:
        effective = total**2 / sum(s.weight**2 for s in scores)
        return wilson(mean * effective, effective)
    if len(scores) == 1:
        return Interval(mean, 0.0, 1.0)
    spread = sum((s.weight * (s.value - mean)) ** 2 for s in scores) / total**2
    half = Z95 * math.sqrt(spread * len(scores) / (len(scores) - 1))
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def character_accuracy(found: str, expected: str) -> Score:
    """1 - character error rate: Levenshtein distance by the characters there were to read. Below 0 where far too much was read."""
    return _accuracy(found, expected)


def word_accuracy(found: str, expected: str) -> Score:
    """1 - word error rate: Levenshtein distance between the words, by the words there were to read (what jiwer calls wer)."""
    return _accuracy(found.split(), expected.split())


def _accuracy(found: Sequence[str], expected: Sequence[str]) -> Score:
    return Score(1 - Levenshtein.distance(found, expected) / max(1, len(expected)), max(1, len(expected)))
