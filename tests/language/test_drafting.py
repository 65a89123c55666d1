"""Drafting: guesses are what the source says, and change no token of any answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt import Runtime, Sampling
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


@pytest.fixture(scope="module")
def runtimes(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runtime]:
    store = tmp_path_factory.mktemp("store")
    return {
        "reader": Runtime.open(encoder="torch", store=store),  # quotes: drafts are taken
        "random": Runtime.open(random_model, encoder="torch", store=store),  # babbles: they are not
    }


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


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), limit=st.integers(1, 30))
def test_any_seed_and_limit(runtimes: dict[str, Runtime], seed: int, limit: int) -> None:
    with runtimes["random"].read(TEXT) as document:
        answers = [document.ask("?", Sampling(max_new_tokens=limit, temperature=0.3, seed=seed, draft=d)).text for d in (False, True)]
    assert answers[0] == answers[1]
