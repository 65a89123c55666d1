"""Formulas against values worked out by hand, and against their definitions written another way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.evaluate import Score, interval, wilson
from glyph_rt.evaluate.metrics import character_accuracy, word_accuracy


def test_wilson_gives_the_textbook_intervals() -> None:
    assert [round(x, 4) for x in (wilson(8, 10).low, wilson(8, 10).high)] == [0.4902, 0.9433]
    nothing_wrong = wilson(20, 20)
    assert nothing_wrong.high == 1 and nothing_wrong.low == pytest.approx(20 / (20 + 1.959964**2))
    assert wilson(0, 5).low == 0


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_its_equation(case: tuple[int, int]) -> None:
    """The bounds are the shares p from which what was seen is 1.96 standard deviations away."""
    successes, trials = case
    found = wilson(successes, trials)
    for p in (found.low, found.high):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(successes / trials - p) / math.sqrt(p * (1 - p) / trials) == pytest.approx(1.959964, rel=1e-6)
    assert 0 <= found.low <= found.share <= found.high <= 1


def test_an_interval_of_graded_scores_is_that_of_their_weighted_mean() -> None:
    found = interval([Score(0.5), Score(1.0), Score(0.75)])
    # mean 0.75; squares 0.0625 + 0.0625; times 3 / 2, by 9: 0.0208333; its root times 1.96: 0.2829
    assert (found.share, found.low, found.high) == (0.75, pytest.approx(0.75 - 0.28290, abs=1e-4), 1.0)
    assert interval([Score(0.9, 9), Score(0.4, 1)]).share == pytest.approx(0.85)
    alone = interval([Score(0.5)])
    assert (alone.low, alone.high) == (0.0, 1.0)


def test_scores_of_right_or_wrong_take_wilsons_interval_whatever_their_weights() -> None:
    assert interval([Score(1.0)] * 8 + [Score(0.0)] * 2) == wilson(8, 10)
    assert interval([Score(1.0, 10), Score(1.0, 10)]) == wilson(2, 2)
    assert interval([Score(1.0, 30), Score(1.0, 10)]) == wilson(1.6, 1.6)  # (40 * 40) / (900 + 100)


@pytest.mark.parametrize(
    ("found", "expected", "errors", "length"),
    [("kitten", "sitting", 3, 7), ("", "abc", 3, 3), ("abc", "abc", 0, 3), ("abcdefgh", "ab", 6, 2), ("", "", 0, 1)],
)
def test_character_accuracy_is_one_minus_levenshtein_by_length(found: str, expected: str, errors: int, length: int) -> None:
    assert character_accuracy(found, expected) == Score(1 - errors / length, length)


def test_word_accuracy_counts_words() -> None:
    assert word_accuracy("the cat sat on mat", "the cat sat on the mat") == Score(1 - 1 / 6, 6)
    assert word_accuracy("a  b\nc", "a b c") == Score(1.0, 3)


@given(st.text("abc ", max_size=8), st.text("abc ", max_size=8))
def test_character_accuracy_against_the_recurrence(a: str, b: str) -> None:
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
        rows.append(row)
    assert character_accuracy(a, b).value == pytest.approx(1 - rows[-1][-1] / max(1, len(b)))
