"""Made-up documents: what they hold stands where it is said to, is as hard to read as asked for, and is what it was."""

from __future__ import annotations

import hashlib
import json
import random
import re
from itertools import combinations, pairwise

import pytest
from glyph_rt.export.reader import held_out
from glyph_rt.export.reader.curriculum import SHARES
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.questions import HELD_OUT as JUDGED
from glyph_rt.export.reader.questions import TRAINED, phrased
from glyph_rt.export.reader.shares import Shares
from glyph_rt.export.reader.vocabulary import HELD_OUT, TRAINING

from glyph_rt.typeset import PRESETS, Typesetter

READER = Typesetter(PRESETS["reader"])
CROSSED = Shares(mentions=1, crossed=1)


@pytest.mark.parametrize(
    "shares", [Shares(), SHARES, Shares(mentions=1, sentences=1, long_values=1, hollow=0.3), CROSSED, Shares(listings=1)]
)
def test_answers_are_the_values_of_the_keys_asked_for(shares: Shares) -> None:
    writer = Writer(TRAINING, 21, shares)
    draft = writer.draft(1500, 0.5)
    assert len(draft.facts) > 3
    for fact in draft.facts:
        assert draft.text[fact.start : fact.start + len(fact.value)] == fact.value
        assert draft.text[fact.key_start : fact.key_start + len(fact.key)] == fact.key
    keys = [fact.key.lower() for fact in draft.facts]
    assert not any(a in b for a in keys for b in keys if a is not b), "no key may be part of another"


def test_prose_that_ends_with_a_key_may_stand_before_another_keys_line() -> None:
    draft = Writer(TRAINING, 23, CROSSED).draft(3000, 0.9)
    keys = [fact.key.lower() for fact in draft.facts]
    lines = draft.text.lower().splitlines()
    crossed = [
        (named, following.split(":")[0])
        for line, following in pairwise(lines)
        for named in keys
        if line.endswith(f" the {named}.") and ":" in following
    ]
    assert len(crossed) > 10
    assert sum(named != key for named, key in crossed) > 0.9 * len(crossed), "another key's line, unless that key was taken already"
    assert all(key in keys for _, key in crossed)


def test_documents_hold_keys_that_differ_in_a_word() -> None:
    """And in a digit, and keys behind other words; whose documents are those of the shares alone."""
    draft = Writer(TRAINING, 24, Shares(siblings=0.5, inline=1)).draft(6000, 0.9)
    keys = [re.split("[ _]", fact.key.lower()) for fact in draft.facts]
    alike = [a for a, b in combinations(keys, 2) if len(a) == len(b) > 1 and sum(x != y for x, y in zip(a, b, strict=True)) == 1]
    assert len(alike) > len(keys) / 4
    assert all(draft.text[: fact.key_start].splitlines()[-1].count(" ") >= 2 for fact in draft.facts), "all stand inside their lines"


def test_values_repeat_parts_of_themselves() -> None:
    writer = Writer(TRAINING, 25, Shares(repeating=1))
    values = [writer.value() for _ in range(200)]
    assert len(set(values)) > 190 and all(values)
    assert sum(re.search(r"(.+)\1", value) is not None for value in values) > 120


def test_values_begin_like_an_earlier_one_and_end_otherwise() -> None:
    """Pairs of a document whose first three characters are the same: of values drawn alone almost none."""

    def alike(shares: Shares) -> int:
        facts = Writer(TRAINING, 26, shares).draft(4000, 0.9).facts
        return sum(a.value[:3] == b.value[:3] and a.value != b.value for a, b in combinations(facts[:60], 2))

    assert alike(Shares(echoes=0.5)) > 10 * max(1, alike(Shares()))


def test_codes_are_keys_as_often_as_asked() -> None:
    writer = Writer(TRAINING, 27, Shares(coded=0.5))
    codes = [key for key in (writer.key() for _ in range(400)) if re.search(r"\d", key)]
    assert 0.35 < len(codes) / 400 < 0.6, "of the half and the tenth, those that have a digit"


def test_what_it_is_judged_on_stays_what_it_was() -> None:
    """Figures of other weights, and of other days, are of the same questions: a new share must draw nothing where it is 0."""
    asked = [
        *held_out.questions(READER, 8, (1, 8)),
        *held_out.absent_questions(READER, 8, (1, 4)),
        *held_out.questions(READER, 8, (1,), shares=Shares(sentences=0.5, listings=0.5, long_values=0.2)),
        *held_out.lines(READER, 4),
        *held_out.comparisons(READER, 4),
        *held_out.counts(READER, 4),
    ]
    told = json.dumps([(question.text, question.question, question.expected) for question in asked])
    assert hashlib.sha256(told.encode()).hexdigest() == "02a081e9c38dce83e0496632b94907521ea362f71a897acba663e036ead91fd9"


def test_what_is_asked_in_vain_has_no_value_in_the_document() -> None:
    writer = Writer(TRAINING, 22, Shares(mentions=0.3, sentences=0.3, hollow=0.2))
    kinds = set()
    for _ in range(60):
        draft = writer.draft(900, 0.5)
        key = writer.absent_key(draft, draft.text)
        if key is None:
            continue
        assert not any(key.lower() in fact.key.lower() or fact.key.lower() in key.lower() for fact in draft.facts)
        words = key.lower().split()
        close = any(sum(word in fact.key.lower().split() for word in words) == len(words) - 1 > 0 for fact in draft.facts)
        kinds.add("named" if key.lower() in draft.text.lower() else "close" if close else "any")
    assert kinds == {"named", "close", "any"}


def test_phrasings_keep_the_key_and_the_judged_ones_are_not_trained() -> None:
    assert not set(TRAINED) & set(JUDGED)
    rng = random.Random(3)
    for _ in range(200):
        before, key, after = phrased(rng, "Number of Pumps_2")
        assert key.lower() == "number of pumps_2" and before + "{}" + after in TRAINED


def test_a_seed_names_a_document_and_vocabularies_do_not_overlap() -> None:
    assert Writer(TRAINING, 5).draft(500, 0.4).text == Writer(TRAINING, 5).draft(500, 0.4).text
    assert Writer(TRAINING, 5).draft(500, 0.4).text != Writer(TRAINING, 6).draft(500, 0.4).text
    for group in ("nouns", "verbs", "adjectives"):
        assert not set(getattr(TRAINING, group)) & set(getattr(HELD_OUT, group))
    rng = random.Random(0)
    words = [{vocabulary.invented(rng) for _ in range(3000)} for vocabulary in (TRAINING, HELD_OUT)]
    assert len(words[0] & words[1]) < 10
