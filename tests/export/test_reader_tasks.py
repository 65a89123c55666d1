"""What the reader is asked, against the document it is asked about."""

from __future__ import annotations

import random
import re

import pytest
from glyph_rt.export.reader import held_out, tasks
from glyph_rt.export.reader.documents import Draft, Writer
from glyph_rt.export.reader.questions import ABSENT, COMPARED, COUNTED, LINES, TRAINED
from glyph_rt.export.reader.shares import Shares
from glyph_rt.export.reader.tasks import NOWHERE, Asked
from glyph_rt.export.reader.vocabulary import TRAINING
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glyph_rt.typeset import PRESETS, Typesetter

READER = Typesetter(PRESETS["reader"])
SEEDS = st.integers(0, 2**32 - 1)


def document(seed: int) -> tuple[Draft, list[tuple[int, int]]]:
    """A page or two, and the bounds of its lines."""
    draft = Writer(TRAINING, seed, Shares(figures=0.4, spaced=0.3)).draft(900, 0.4)
    return draft, [(int(start), int(end)) for start, end in READER.layout(draft.text).lines[:, :2]]


def check_places(asked: Asked, text: str) -> None:
    """Every place is that of the character itself, of the one that comes next, or where a part of the answer begins."""
    assert len(asked.looked) == len(asked.question) and len(asked.copied) == len(asked.answer)
    for character, place in zip(asked.answer, asked.copied, strict=True):
        assert place == NOWHERE or text[place] == character
    # What is copied begins anew wherever it does not go on. A first character may stand at place 0, behind NOWHERE.
    begins = {place for before, place in zip((-2, *asked.copied), asked.copied, strict=False) if place not in (before + 1, NOWHERE)}
    known = [(i, place) for i, place in enumerate(asked.looked) if place != NOWHERE]
    assert begins and known, "a reader is told nothing"
    for i, place in known:
        assert place in begins or text[place].lower() == asked.question[i + 1].lower()


def groups(phrasings: tuple[str, ...], question: str) -> tuple[str, ...]:
    """What stands in the place, or the places, of the first phrasing that the question fits."""
    for phrasing in sorted(phrasings, key=len, reverse=True):
        pattern = "(.+)".join(re.escape(part) for part in phrasing.split("{}"))
        if found := re.fullmatch(pattern, question):
            return found.groups()
    raise AssertionError(f"not a phrasing: {question}")


@given(SEEDS)
@settings(max_examples=100)
def test_a_value_stands_where_the_question_looks_for_it(seed: int) -> None:
    draft, _ = document(seed)
    rng = random.Random(seed)
    for fact in draft.facts:
        asked = tasks.value(rng, fact, TRAINED[:3])
        assert (asked.question.lower(), asked.answer) == (f"what is the value of {fact.key}?".lower(), fact.value)
        check_places(asked, draft.text)
        assert asked.looked[-1] == asked.copied[0] == fact.start


@given(SEEDS)
@settings(max_examples=100)
def test_the_line_is_the_only_one_with_the_phrase(seed: int) -> None:
    draft, lines = document(seed)
    asked = tasks.line(random.Random(seed), draft.text, lines)
    assume(asked is not None)
    assert asked is not None
    (phrase,) = groups(LINES, asked.question)
    with_it = [draft.text[a:b].strip() for a, b in lines if phrase.lower() in draft.text[a:b].lower()]
    assert with_it == [asked.answer]
    assert NOWHERE not in asked.copied
    check_places(asked, draft.text)


@given(SEEDS)
@settings(max_examples=100)
def test_words_are_counted_whole_and_in_any_case(seed: int) -> None:
    draft, _ = document(seed)
    asked = tasks.count(random.Random(seed), draft.text)
    assume(asked is not None)
    assert asked is not None
    (word,) = groups(COUNTED, asked.question)
    assert int(asked.answer) == len(re.findall(rf"\b{word}\b", draft.text, re.IGNORECASE)) <= 6
    assert set(asked.looked) == set(asked.copied) == {NOWHERE}


def test_every_number_of_times_is_asked_about_as_often() -> None:
    text = "once " + "twice " * 2 + "other more words here " * 1 + "often " * 6 + "seven " * 7
    rng = random.Random(1)
    answers = [asked.answer for _ in range(300) if (asked := tasks.count(rng, text))]
    assert len(answers) == 300
    assert all(80 < answers.count(number) < 120 for number in ("1", "2", "6"))
    assert tasks.count(rng, "every word differs here") is None, "'1' would always be right"


@given(SEEDS)
@settings(max_examples=100)
def test_a_comparison_gives_both_figures_and_the_right_key(seed: int) -> None:
    draft, _ = document(seed)
    asked = tasks.comparison(random.Random(seed), draft.facts)
    assume(asked is not None)
    assert asked is not None
    values = {fact.key: fact.value for fact in draft.facts}
    a, b = groups(tuple(phrasing for phrasing, _ in COMPARED), asked.question)
    one = asked.answer.removeprefix(f"{values[a]} and {values[b]}: ")
    numbers = {key: float(re.sub(r"[^\d.]", "", re.findall(r"\d[\d,]*(?:\.\d+)?", values[key])[0])) for key in (a, b)}
    larger = any(word in asked.question for word in ("larger", "higher", "greater", "more"))
    assert one in (a, b) and numbers[one] == (max if larger else min)(numbers.values())
    check_places(asked, draft.text)


def test_figures_of_other_units_are_not_compared() -> None:
    def facts(*values: str) -> list[tasks.Fact]:
        return [tasks.Fact(f"key {i}", value, 10 * i, 10 * i + 7) for i, value in enumerate(values)]

    rng = random.Random(0)
    for values in (
        ("12", "12 kg"),
        ("EUR 5", "USD 7"),
        ("12", "12.0"),
        ("A-93", "B-95"),
        ("12", "1234567890"),
        ("2026-04-01", "2027-04-01"),
    ):
        assert tasks.comparison(rng, facts(*values)) is None, values
    for values, larger in ((("EUR 1,250.50", "EUR 960"), "key 0"), (("9 days", "30 days"), "key 1"), (("0.5", "0.25", "word"), "key 0")):
        asked = tasks.comparison(rng, facts(*values), (("Which is larger, {} or {}?", True),))
        assert asked is not None and asked.answer.endswith(f": {larger}")


def test_what_is_missing_has_one_answer_and_no_place() -> None:
    rng = random.Random(0)
    for asked in (tasks.absent(rng, "hourly rate"), tasks.no_line(rng, "hourly rate")):
        assert "hourly rate" in asked.question.lower() and asked.answer == ABSENT
        assert {*asked.looked, *asked.copied} == {NOWHERE}


@pytest.mark.parametrize("task", [held_out.lines, held_out.comparisons, held_out.counts])
def test_what_it_is_judged_on_is_the_same_at_every_call(task) -> None:  # type: ignore[no-untyped-def]
    once, again = task(READER, 8), task(READER, 8)
    assert once == again and len(once) == 8
    assert len({question.text for question in once}) == 8
    assert all(READER.measure(question.text).pages == question.pages for question in once)
