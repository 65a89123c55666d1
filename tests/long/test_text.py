"""Texts ten times as long as the window, by every strategy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glyph_rt import Constraint, Progress, Runtime, Sampling
from glyph_rt.errors import InputError, LimitError
from glyph_rt.language import REGEX, Channel, Piece
from glyph_rt.long import Inquiry, LongAnswer, LongText, PartAnswer, ReadingRules, Reduce, Strategy
from glyph_rt.long.answer import Cost
from glyph_rt.long.excerpts import Excerpt
from glyph_rt.long.reduce import ABSENT, agreed, by_evidence, is_absent, notes
from glyph_rt.nearby import Span

CONTRACT = (Path(__file__).parents[2] / "examples" / "contract.txt").read_text()
FILLER = "".join(f"Clause {n} was left out of this print on purpose, as had been agreed before.\n" for n in range(95))
LONG = FILLER + CONTRACT + FILLER
ASKED, SAID = "What is the value of Notice period?", "90 days"
WINDOW = ReadingRules(window=4)
SHORT = Sampling(max_new_tokens=24)


@pytest.mark.parametrize("strategy", [Strategy.RETRIEVE_PAGES, Strategy.MAP_REDUCE, Strategy.AUTO])
def test_a_needle_is_found_and_cited_in_the_whole_text(reader_runtime: Runtime, strategy: Strategy) -> None:
    pieces: list[Piece] = []
    with LongText(reader_runtime, LONG, rules=WINDOW) as text:
        answer = text.ask(ASKED, SHORT, strategy=strategy, emit=pieces.append)
        pages = list(reader_runtime.typesetter.pages(LONG))
    assert (answer.text, answer.finish_reason) == (SAID, "stop") and len(pages) >= 40
    assert "".join(piece.text for piece in pieces if piece.channel == Channel.ANSWER) == SAID
    (cited,) = answer.citations
    assert LONG[cited.start : cited.end] == SAID and LONG[: cited.start].endswith("Notice period: ")
    assert pages[cited.page - 1].lines[0, 0] <= cited.start < pages[cited.page - 1].lines[-1, 1]
    assert answer.cost.usage.pages == sum(part.cost.usage.pages for part in answer.parts)
    assert all(part.cost.usage.pages <= 4 for part in answer.parts)
    assert len(answer.parts) > 10 if strategy is Strategy.MAP_REDUCE else len(answer.parts) == 1
    assert reader_runtime.arena.used == 0


def test_what_fits_is_read_whole_and_answered_as_a_document_is(reader_runtime: Runtime) -> None:
    with LongText(reader_runtime, CONTRACT) as text, reader_runtime.read(CONTRACT) as document:
        pump = "What is the value of Pump type?"
        first, second = text.ask(ASKED, SHORT), text.ask(pump, SHORT)
        assert (first.text, second.text) == (
            document.ask(ASKED, SHORT).text,
            document.ask(pump, SHORT).text,
        )
        assert first.choice.strategy is Strategy.WHOLE and first.reduced_by == ""
        assert second.cost.usage.cached_tokens == document.tokens, "the text was read once"
    with LongText(reader_runtime, LONG * 5) as text, pytest.raises(LimitError, match="another --strategy"):
        text.ask(ASKED, strategy=Strategy.WHOLE)


def test_questions_asked_together_are_answered_as_alone_and_fail_alone(reader_runtime: Runtime) -> None:
    inquiries = [
        Inquiry(ASKED, SHORT, Strategy.MAP_REDUCE),
        Inquiry("What is the value of Monthly fee?", SHORT),
        Inquiry(" ", SHORT, Strategy.MAP_REDUCE),
        Inquiry("\udc80", SHORT),
        Inquiry("zyx wvu?", SHORT, Strategy.RETRIEVE_PAGES),
        Inquiry("What is the value of Pump type?", SHORT, Strategy.MAP_REDUCE),
        Inquiry(ASKED, SHORT, Strategy.WHOLE),
        Inquiry(ASKED, Sampling(max_new_tokens=9000)),
    ]
    seen: list[Progress] = []
    with LongText(reader_runtime, CONTRACT + FILLER[:1500], rules=WINDOW) as text:
        got = dict(text.ask_all(inquiries, seen.append))
        for number, inquiry in enumerate(inquiries):
            outcome = got[number]
            try:
                alone = text.ask(inquiry.question, inquiry.sampling, strategy=inquiry.strategy)
                assert isinstance(outcome, LongAnswer) and outcome.text == alone.text and outcome.citations == alone.citations
            except (InputError, LimitError) as error:
                assert type(outcome) is type(error) and str(outcome) == str(error)
    kinds = [LongAnswer] * 2 + [InputError] * 3 + [LongAnswer] * 2 + [LimitError]
    assert [type(got[number]) for number in range(len(inquiries))] == kinds
    assert all(progress.done <= progress.total for progress in seen)


class StopError(Exception):
    """Whoever asked has gone."""


@pytest.mark.parametrize("strategy", [Strategy.RETRIEVE_PAGES, Strategy.MAP_REDUCE, Strategy.WHOLE])
def test_a_cancel_stops_at_any_page_and_token_and_gives_all_memory_back(reader_runtime: Runtime, strategy: Strategy) -> None:
    calls = 0

    def stop_at(most: int) -> Callable[[Progress], None]:
        def progress(_: Progress) -> None:
            nonlocal calls
            calls += 1
            if calls == most:
                raise StopError

        return progress

    subject = CONTRACT if strategy is Strategy.WHOLE else LONG
    for most in (1, 2, 4, 5, 9):  # pages come first, then tokens
        calls = 0
        with LongText(reader_runtime, subject, rules=WINDOW) as text, pytest.raises(StopError):
            text.ask(ASKED, SHORT, strategy=strategy, progress=stop_at(most))
        assert calls == most
        reader_runtime.store.settle()
        assert reader_runtime.arena.used == 0


def test_kv_memory_for_one_part_is_enough(reader_runtime: Runtime) -> None:
    kv_bytes = 6 * (reader_runtime.style.visual_tokens + 2) * reader_runtime.model.kv_shape.bytes_per_token
    runtime = reader_runtime.with_kv(kv_bytes)
    questions = [f"What is the value of {key}?" for key in ("Notice period", "Pump type", "Monthly fee")]
    with LongText(runtime, LONG) as text:
        got = dict(text.ask_all([Inquiry(question, SHORT, Strategy.MAP_REDUCE) for question in questions]))
        assert [answer.text for _, answer in sorted(got.items()) if isinstance(answer, LongAnswer)] == [SAID, "KV-330", "EUR 2,450"]
    assert runtime.arena.used == 0
    with LongText(runtime, LONG, rules=ReadingRules(parts=3)) as text, pytest.raises(LimitError, match=r"the limit is 3; raise --parts"):
        text.ask(questions[0], SHORT, strategy=Strategy.MAP_REDUCE)


def test_notes_are_typeset_and_asked_in_the_form_that_was_wanted(reader_runtime: Runtime) -> None:
    """The embedded reader makes nothing sensible of them; what is held here is what it is given, and the form."""
    rules = ReadingRules(window=4, reduce=Reduce.NOTES)
    sampling = Sampling(max_new_tokens=12, constraint=Constraint(REGEX, "(yes|no): [0-9]{2}"))
    with LongText(reader_runtime, LONG[: len(LONG) // 2], rules=rules) as text:
        answer = text.ask(ASKED, sampling, strategy=Strategy.MAP_REDUCE)
    assert answer.reduced_by == "notes" and re.fullmatch("(yes|no): [0-9]{2}", answer.text)
    assert not any(re.fullmatch("(yes|no): [0-9]{2}", part.text) for part in answer.parts), "parts may say that they do not tell"
    assert answer.cost.usage.pages > sum(part.cost.usage.pages for part in answer.parts)
    assert {place for part in answer.parts for place in part.places} >= {Span(c.start, c.end) for c in answer.citations}


def part(text: str, pages: tuple[int, int] = (1, 2)) -> PartAnswer:
    cost: Cost = None  # type: ignore[assignment]  # counts for nothing here
    return PartAnswer(Excerpt("", ()), pages, text, "", "stop", not is_absent(text), (), cost)


@pytest.mark.parametrize(
    "text",
    [
        "", " \n", ABSENT, "Not in the document.", "The notice period is not mentioned in this text.", "These pages do not say.", "N/A",
        "I couldn't find it in the provided pages; it isn't stated.", "unknown", "No information about that.", "文中没有提到。",
    ],
)  # fmt: skip
def test_what_says_that_there_is_no_answer_is_known_as_such(text: str) -> None:
    assert is_absent(text)


@pytest.mark.parametrize("text", ["90 days", "No", "KV-330", "Not before May", "none of the pumps may run", "The tenant may not sublet."])
def test_what_answers_is_taken_for_an_answer(text: str) -> None:
    assert not is_absent(text)


def test_the_answer_with_the_most_support_wins_then_votes_then_the_first() -> None:
    parts = [part("blue"), part("red"), part("Red."), part("green")]
    assert by_evidence(parts, lambda p: float(p.text == "green")).text == "green"
    assert by_evidence(parts, lambda p: 0.0).text == "red"
    assert by_evidence(parts[:2], lambda p: 0.0).text == "blue"
    assert agreed(parts[1:3]) and not agreed(parts)
    assert notes([part("a\nb", (3, 7))]) == "Pages 3 to 7: a b\n"


def test_a_part_that_says_nothing_never_wins(reader_runtime: Runtime) -> None:
    """Even when most parts say so: the reduce step is given parts' answers as a model that knows what is missing would give them."""
    with LongText(reader_runtime, LONG, rules=WINDOW) as text:
        asked = text.ask(ASKED, SHORT, strategy=Strategy.MAP_REDUCE)
        right = next(p for p in asked.parts if p.text == SAID)
        absent = [replace(p, text=ABSENT, found=False, places=()) for p in asked.parts if p is not right]
        plan = text._plan(Inquiry(ASKED, SHORT), None, None)
        for rules in (Reduce.EVIDENCE, Reduce.NOTES):
            text._reduce = rules
            got = text._reduced(plan, [*absent, right, *absent], None)
            assert isinstance(got, LongAnswer) and (got.text, got.reduced_by) == (SAID, "one part says") and len(got.citations) == 1
            got = text._reduced(plan, absent, None)
            assert isinstance(got, LongAnswer) and (got.text, got.reduced_by, got.citations) == (ABSENT, "no part says", ())
