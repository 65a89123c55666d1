"""Drafting: guesses are what the source says, and change no token of any answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt import Document, Runtime, Sampling
from glyph_rt.language import JSON_SCHEMA, REGEX, Constraint
from glyph_rt.language.drafting import LONGEST_DRAFT, LONGEST_MATCH, SHORTEST_MATCH, Drafter
from tests.conftest import TEXT

TOKENS = st.lists(st.integers(0, 3), max_size=60)


def longest_match(source: list[int], answer: list[int]) -> int:
    """Length of the longest end of `answer` that stands in `source` with something behind it."""
    ends = range(min(LONGEST_MATCH, len(answer)), 0, -1)
    return next((n for n in ends if any(source[i : i + n] == answer[-n:] for i in range(len(source) - n))), 0)


@given(source=TOKENS, answer=TOKENS, room=st.integers(-1, 40))
def test_a_draft_is_what_follows_the_longest_match(source: list[int], answer: list[int], room: int) -> None:
    draft = Drafter(np.array(source, np.int32)).propose(answer, room)
    length = longest_match(source, answer)
    if length < SHORTEST_MATCH or room < 1:
        assert draft == []
        return
    starts = [i + length for i in range(len(source) - length) if source[i : i + length] == answer[-length:]]
    assert 1 <= len(draft) <= min(room, LONGEST_DRAFT)
    assert any(source[start : start + len(draft)] == draft for start in starts)


def test_a_quotation_is_followed_where_it_goes_on() -> None:
    """The same words stand twice; having quoted the second place, the draft goes on there."""
    source = np.array([1, 2, 3, 7, 7, 1, 2, 3, 8, 9, 4, 1, 2, 3, 5], np.int32)
    drafter = Drafter(source)
    assert drafter.propose([7, 1, 2], 2) == [3, 8]
    drafter.learn(2, 2)
    assert drafter.propose([7, 1, 2, 3, 8, 9], 3) == [4, 1, 2]


def test_failing_drafts_get_rarer_and_shorter_and_come_back() -> None:
    drafter = Drafter(np.array([1, 2, 3] * 50, np.int32))
    first = len(drafter.propose([1, 2], 99))
    for _ in range(20):
        drafter.learn(4, 0)
    assert drafter.propose([1, 2, 3], 99) == []
    assert len(drafter.propose([1, 2, 3] * 5, 99)) < first
    for _ in range(20):
        drafter.learn(4, 4)
    assert len(drafter.propose([1, 2], 99)) == LONGEST_DRAFT
    assert (drafter.drafted, drafter.accepted) == (160, 80)


@pytest.mark.parametrize("name", ["reader", "random"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 3}, {"max_new_tokens": 7}, {"max_new_tokens": 1}], ids=str)
@pytest.mark.parametrize("question", ["Transcribe page 1.", "What is the value of order number?"])
def test_drafting_changes_no_token(runtimes: dict[str, Runtime], name: str, sampling: dict[str, float], question: str) -> None:
    options = {"max_new_tokens": 80} | sampling
    with runtimes[name].read(TEXT) as document:
        plain, drafted = (document.ask(question, Sampling(**options, draft=draft)) for draft in (False, True))  # type: ignore[arg-type]
        assert drafted.text == plain.text and drafted.finish_reason == plain.finish_reason
        assert drafted.usage.completion_tokens == plain.usage.completion_tokens
        assert plain.usage.drafted_tokens == 0 and drafted.usage.accepted_tokens <= drafted.usage.drafted_tokens
        steps = drafted._turn.steps
        assert steps + drafted.usage.accepted_tokens >= drafted.usage.completion_tokens - 1
        assert steps <= plain._turn.steps
    assert runtimes[name].arena.used == 0


def test_a_transcript_takes_few_steps(runtimes: dict[str, Runtime]) -> None:
    with runtimes["reader"].read(TEXT) as document:
        answer = document.ask("Transcribe page 1.", Sampling(max_new_tokens=200))
        assert len(answer.text) > 60 and answer.usage.completion_tokens > 60 and answer._turn.steps < 0.4 * answer.usage.completion_tokens


CONSTRAINTS = (
    None,
    Constraint(REGEX, r"[A-Z]{2}-\d{2,5}"),
    Constraint(REGEX, r"(order|weight|carrier): [ -~]{1,12}"),
    Constraint(JSON_SCHEMA, '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a"]}'),
)


@pytest.mark.parametrize("name", ["reader", "random", "thinking"])
@settings(max_examples=8, deadline=None)
@given(
    question=st.sampled_from(["Transcribe page 1.", "What is the value of order number?", "?"]),
    most=st.integers(1, 24),
    temperature=st.sampled_from([0.0, 0.3, 1.5]),
    seed=st.integers(0, 10_000),
    narrowing=st.sampled_from([{}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 20, "top_p": 0.9, "min_p": 0.01}]),
    penalty=st.sampled_from([1.0, 1.1, 3.0]),
    stop=st.sampled_from([(), ("r",), ("OT", "number:\nQ", "e\n")]),
    constraint=st.sampled_from(CONSTRAINTS),
)
def test_drafting_changes_no_token_under_any_options(
    readings: dict[str, Document],
    name: str,
    question: str,
    most: int,
    temperature: float,
    seed: int,
    narrowing: dict[str, Any],
    penalty: float,
    stop: tuple[str, ...],
    constraint: Constraint | None,
) -> None:
    options = Sampling(most, temperature, seed, repetition_penalty=penalty, stop=stop, constraint=constraint, **narrowing)
    plain, drafted = (readings[name].ask(question, replace(options, draft=draft)) for draft in (False, True))
    assert drafted.text == plain.text and drafted.thinking == plain.thinking
    assert drafted.tokens == plain.tokens and drafted.finish_reason == plain.finish_reason
    assert not any(text in plain.text for text in stop)
