"""Quotes: what is found of an answer in a text, what is put right, and above all what is left alone."""

from __future__ import annotations

import random
import string
import uuid
from itertools import pairwise, product

import pytest
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.shares import Shares
from glyph_rt.export.reader.vocabulary import HELD_OUT, TRAINING
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from glyph_rt import nearby
from glyph_rt.quotes import MOST_PLACES, Quote, QuoteKind, Span, corrected, is_code, locate

ID, OTHER = "13f64c95-88c3-46ae-9370-730b40f7c594", "8a1875db-e4f6-4e4b-8a25-682ff521d409"
CLAUSE = "The supplier shall deliver the goods to the warehouse of the buyer within 30 days of the order, free of charge."
TEXT = f"""CONTRACT
invoice id: {ID}
Notice period: 90 days
invoice total: EUR 12,400.00
signed: 1958-05-23 by Blue Line

{CLAUSE} Title passes on
payment.
"""


def found(text: str, answer: str, question: str = "") -> list[tuple[str, str, str]]:
    return [(quote.kind.value, quote.said, quote.text) for quote in locate(text, answer, [question])]


def document(seed: int, characters: int, vocabulary: object = HELD_OUT, shares: Shares = Shares()) -> str:  # noqa: B008
    return Writer(vocabulary, seed, shares).draft(characters, 0.4).text  # type: ignore[arg-type]


# -- what is found


def test_parts_of_a_sentence_are_found_where_they_stand() -> None:
    answer = "The total is EUR 12,400.00 and the period is 90 days, by Blue Line."
    assert found(TEXT, answer) == [("verbatim", told, told) for told in ("EUR 12,400.00", "90 days", "by Blue Line")]
    for quote in locate(TEXT, answer):
        assert answer[quote.start : quote.end] == quote.said
        assert [TEXT[place.start : place.end] for place in quote.places] == [quote.text]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("90 days", ["90 days"]),  # a whole answer needs no length
        ("Blue Line", ["Blue Line"]),
        (" 90 days.\n", ["90 days"]),  # white space and punctuation around it are no part of it
        ("9", []),  # one character shows nothing
        ("12", []),  # part of a number is not the number
        ("lue Line", []),
        ("90 DAYS", []),
        ("", []),
        ("?!", []),
    ],
)
def test_a_whole_answer_is_found_word_for_word(answer: str, expected: list[str]) -> None:
    assert [quote.text for quote in locate(TEXT, answer)] == expected


def test_white_space_may_differ() -> None:
    """A transcript breaks lines where the page does."""
    answer = "within 30 days of\nthe order, free of charge. Title\npasses on payment."
    [quote] = locate(TEXT, answer)
    assert quote.kind == QuoteKind.VERBATIM and quote.said.split() == quote.text.split() and quote.said != quote.text
    assert corrected(answer, [quote]) == answer


def test_places_are_the_first_and_bounded() -> None:
    again = "first line second\n\nline"
    assert [place.start for place in locate(f"first line second line; {again}", again)[0].places] == [0, 24]
    text = "ab " * 50 + "\nfirst line\nsecond line\n"
    [quote] = locate(text, "ab")
    assert quote.places == tuple(Span(3 * n, 3 * n + 2) for n in range(MOST_PLACES))
    assert locate(text * 3, "ab")[0].places == quote.places, "however common it is"


def test_scripts_without_spaces_are_read_character_by_character() -> None:
    text = "合同编号为甲乙丙丁。\n通知期限为九十天，自收到书面通知之日起计算，双方另有约定的除外。\n"
    assert found(text, "九十天，自收到书面通知之日起计算") == [("verbatim", *["九十天，自收到书面通知之日起计算"] * 2)]
    assert found(text, "通知期限") == [("verbatim", "通知期限", "通知期限")]


# -- what is put right


@pytest.mark.parametrize("wrong", [ID[:-1], ID.replace("88c3", "88e3"), ID.replace("46ae", "46aae"), "73f64c95" + ID[8:-1]])
@pytest.mark.parametrize("sentence", ["{}", "The id is {}.", '{{"id": "{}"}}', "see `{}`, and pay"])
def test_a_misread_code_is_put_right(wrong: str, sentence: str) -> None:
    answer = sentence.format(wrong)
    [quote] = locate(TEXT, answer)
    assert quote == Quote(QuoteKind.MISREAD, answer.index(wrong), answer.index(wrong) + len(wrong), wrong, ID, quote.places)
    [place] = quote.places
    assert TEXT[place.start : place.end] == ID
    assert corrected(answer, [quote]) == sentence.format(ID)


def test_a_misread_word_of_a_long_quote_is_put_right() -> None:
    wrong = CLAUSE.replace("warehouse", "wanehouse").replace("30 days", "36 days")
    assert found(TEXT, wrong) == [
        ("verbatim", "The supplier shall deliver the goods to the", "The supplier shall deliver the goods to the"),
        ("misread", "wanehouse", "warehouse"),
        ("verbatim", "of the buyer within", "of the buyer within"),
        ("misread", "36", "30"),
        ("verbatim", "days of the order, free of charge", "days of the order, free of charge"),
    ]
    assert corrected(wrong, locate(TEXT, wrong)) == CLAUSE


# -- what is left alone


@pytest.mark.parametrize(
    "answer",
    [
        "91 days",
        "EUR 12,500.00",
        "1958-05-03",
        "1958-05-24",
        "Blue Lime",
        "Notice period: 30 days",
        "invoice total: EUR 12,400.01",
        "within 60 days of the order",  # too little around it
        ID[:8],  # a short form may be meant
        ID[:25],  # so may a longer one, one character more than four groups of it
        f"{ID[24:]}15",  # nearly its last group
        f"v2/{ID}",
        f"v2-{ID}",
        f"https://example.com/{ID}/12?page=3",
        OTHER,
    ],
)
def test_what_may_be_meant_stays(answer: str) -> None:
    assert corrected(answer, locate(TEXT, answer)) == answer


def test_what_counting_may_have_made_stays() -> None:
    text = "serial: 482000123577\nvin: WVWZZZ1JZ3W386752\n"
    for answer in ("482000123578", "482000123601", "WVWZZZ1JZ3W386753"):
        assert found(text, answer) == []
    assert found(text, "48200123577") == [], "11 digits are no code"
    assert found(text, "482900123577") == [("misread", "482900123577", "482000123577")]


def test_what_the_question_says_was_not_read_from_the_document() -> None:
    wrong = ID.replace("88c3", "88e3")
    assert found(TEXT, f"No, {wrong} is not in it.", f"Is {wrong} in it?") == []
    clause = CLAUSE.replace("30", "36")
    assert corrected(clause, locate(TEXT, clause, ["What if the goods came after 36 days?"])) == clause


def test_a_code_in_a_path_is_put_right_alone() -> None:
    for path in ("v2/{}", "https://example.com/orders/{}.pdf", "{}/{}:4"):
        wrong = path.replace("{}", ID[:-1])
        assert corrected(wrong, locate(TEXT, wrong)) == path.replace("{}", ID)
    assert found(TEXT, f"https://example.com/{ID}/12") == [("verbatim", ID, ID)]
    assert found(f"at https://example.com/{ID}/12\n", ID[:-1]) == [("misread", ID[:-1], ID)]


def test_one_word_is_not_taken_for_two() -> None:
    """What stands behind a line end is no part of a code."""
    text = TEXT.replace(f"{ID}\n", f"{ID}\n15. ")
    assert found(text, ID + "15") == [("misread", ID + "15", ID)]


def test_two_texts_as_near_are_told_and_not_guessed_between() -> None:
    first, second = ID, ID.replace("88c3", "88e3")
    text = f"a: {first}\nb: {second}\n"
    [quote] = locate(text, ID.replace("88c3", "88d3"))
    assert quote.kind == QuoteKind.AMBIGUOUS and {text[p.start : p.end] for p in quote.places} == {first, second}
    assert corrected(quote.said, [quote]) == quote.said
    [nearly] = locate(text, second.replace("730b", "780b"))  # two edits from one, one from the other
    assert nearly.kind == QuoteKind.AMBIGUOUS
    assert found(text, second) == [("verbatim", second, second)], "what is exact needs no guess"


def test_a_quote_between_two_lines_as_near_stays() -> None:
    line = "Unit {} temperature was measured at the outlet as 71.{} C at noon of the second day of the trial."
    text = f"{line.format('A', 3)}\n{line.format('B', 8)}\n"
    wrong = line.format("A", 8)
    assert corrected(wrong, locate(text, wrong)) == wrong
    other = line.format("A", 7).replace("outlet", "outlot")
    assert corrected(other, locate(text, other)) == other
    alone = line.format("A", 3).replace("outlet", "outlot")
    assert "outlet" in corrected(alone, locate(text.replace("B", "Bypass valve"), alone))


def test_too_much_to_look_at_counts_as_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT + "13f64c " * 5000
    assert found(text, ID[:-1]) == [], "pieces of it stand everywhere"
    monkeypatch.setattr(nearby, "MOST_WORK", -1)
    assert locate(TEXT, ID) == locate(TEXT, ID[:-1]) == ()


@pytest.mark.parametrize("code", [ID, "a8ebe506c2d63007c3569fec", "WVWZZZ1JZ3W386752", "482000123577", "DE89370400440532013000"])
def test_codes(code: str) -> None:
    assert is_code(code)


@pytest.mark.parametrize(
    "word",
    "2026-11-21T10:00:00Z 20261121T100000Z 12,400,000.00 INV-2026-000043 KV330-X2-M16-L200 6ES7214-1AG40-0XB0 13f64c95 "
    "organisations counterclockwise v1.2.3-rc4+build5 https://example.com/2026/report-v2 +49-30-1234567".split(),
)
def test_what_is_counted_or_spelled_is_no_code(word: str) -> None:
    assert not is_code(word)


# -- whatever the texts


CODES = st.one_of(
    st.integers(0, 2**128 - 1).map(lambda n: str(uuid.UUID(int=n, version=4))),
    st.text("0123456789abcdef", min_size=12, max_size=40).filter(is_code),
    st.text("0123456789", min_size=12, max_size=24),
)


def edited(code: str, chance: random.Random, edits: int) -> str:
    for _ in range(edits):
        at, kind = chance.randrange(len(code)), chance.randrange(3)
        code = code[:at] + ("" if kind == 0 else chance.choice("0123456789abcdef")) + code[at + (kind != 1) :]
    return code


@settings(deadline=None)
@given(CODES, st.integers(0, 2**32), st.data())
def test_a_change_is_near_alone_and_told(code: str, seed: int, data: st.DataObject) -> None:
    """Whatever is changed becomes a word of the document within the bound, with both texts told; and nothing else is changed."""
    chance = random.Random(seed)
    text = f"{document(seed % 50, 300)}\nkey: {code}\n{document(seed % 50 + 1, 300)}"
    wrong = edited(code, chance, data.draw(st.integers(0, 1 + len(code) // 8)))
    answer = f"It is {wrong}, they say."
    quotes = locate(text, answer)
    said = answer
    for quote in reversed(quotes):
        assert answer[quote.start : quote.end] == quote.said
        assert text[quote.places[0].start : quote.places[0].end] == quote.text
        if quote.kind == QuoteKind.VERBATIM:
            assert quote.said.split() == quote.text.split()
        elif quote.kind == QuoteKind.MISREAD:
            assert (quote.said, quote.text) == (wrong, code)
            assert 0 < Levenshtein.distance(wrong, code) <= len(wrong) // 8
            said = said[: quote.start] + quote.text + said[quote.end :]
    assert corrected(answer, quotes) == said
    assert all(a.end <= b.start for a, b in pairwise(quotes))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200), st.one_of(st.text(max_size=300), st.integers(0, 10_000)))
def test_what_is_not_of_the_document_is_not_changed(seed: int, other: str | int) -> None:
    """Random text, and text of another document in the same words or in others."""
    text = document(seed, 2000, shares=Shares(long_values=0.3))
    vocabulary = HELD_OUT if seed % 2 else TRAINING
    answer = other if isinstance(other, str) else document(10_000 + other, 500, vocabulary, Shares(long_values=0.3))
    assert corrected(answer, locate(text, answer)) == answer


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_a_plain_value_one_character_off_is_not_changed(seed: int) -> None:
    """The dangerous case: another number, date, amount or name than the document's, and near it."""
    writer = Writer(HELD_OUT, seed)
    draft = writer.draft(1500, 0.5)
    chance = random.Random(seed)
    for fact in draft.facts:
        at = chance.randrange(len(fact.value))
        answer = fact.value[:at] + chance.choice(string.ascii_lowercase + string.digits) + fact.value[at + 1 :]
        assert corrected(answer, locate(draft.text, answer)) == answer
        sentence = f"{fact.key}: {answer}"
        assert corrected(sentence, locate(draft.text, sentence)) == sentence


@settings(deadline=None)
@given(st.text(), st.text(), st.text(max_size=40))
@example("a b " * 400, "a b " * 40 + "z", "")
@example("\u0301a\u0301 \u0301", "a\u0301", "")
@example("我" * 50, "我" * 20 + "你" + "我" * 30, "")
@example("\u200b" * 9 + "x" * 40, "x" * 39, "")
def test_any_texts_give_quotes_that_hold(text: str, answer: str, question: str) -> None:
    for quote in locate(text, answer + text[:20] + answer, [question]):
        assert quote.places and len(quote.places) <= MOST_PLACES
        if quote.kind == QuoteKind.VERBATIM:
            assert quote.said.split() == quote.text.split()


@settings(deadline=None, max_examples=200)
@given(st.text("ab1 ", min_size=1, max_size=60), st.text("ab1", min_size=4, max_size=12), st.integers(1, 3))
def test_no_near_text_is_overlooked(text: str, phrase: str, edits: int) -> None:
    """Against looking at every text of whole words. Of texts that overlap, one that is no farther is enough."""
    found = nearby.Searched(text).near(phrase, edits)
    if len(phrase) <= 3 * edits:
        assert found is None
        return
    assert found is not None
    spans = [(other.distance, place) for other in found.values() for place in other.places]
    begins = [at for at in range(len(text)) if nearby.begins(text, at)]
    for begin, end in product(begins, range(len(text) + 1)):
        there = nearby.plain(text[begin:end])
        distance = Levenshtein.distance(phrase, there)
        if begin < end and nearby.ends(text, end) and distance <= edits and " " not in there:  # one word is not several
            assert any(least <= distance and p.start < end and begin < p.end for least, p in spans)
    assert all(other.distance == Levenshtein.distance(phrase, told) for told, other in found.items())
