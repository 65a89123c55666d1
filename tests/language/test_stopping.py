"""Stopping: stop strings that never show, channels that never mix, and an end that says why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import OptionError
from glyph_rt.language import AnswerStream, Channel, Sampling
from glyph_rt.language.prompt import data_tokenizer
from glyph_rt.language.stopping import Marks, StopStrings
from tests.language.checkpoints import byte_level

TOKENIZER = byte_level()
DATA = data_tokenizer(TOKENIZER.to_str())  # for texts in which hypothesis may well spell a mark
BEGIN, END, ANSWER, STOP = (TOKENIZER.token_to_id(mark) for mark in ("<think>", "</think>", "<answer>", "</answer>"))
MARKS = Marks(frozenset({STOP, TOKENIZER.token_to_id("<|user|>")}), (BEGIN, END), frozenset({ANSWER}))
LETTERS = st.text("ab", max_size=30)


def ids(text: str) -> list[int]:
    return list(DATA.encode(text, add_special_tokens=False).ids)


def said(stream: AnswerStream, tokens: list[int]) -> dict[Channel, str]:
    """The text of each channel, up to where the stream ends."""
    texts = dict.fromkeys(Channel, "")
    for token in tokens:
        for piece in stream.push(token):
            assert piece.text
            texts[piece.channel] += piece.text
        if stream.ended:
            return texts
    for piece in stream.finish():
        texts[piece.channel] += piece.text
    return texts


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """By trying every end in turn."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(st.text("ab", max_size=4), max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3))
def test_the_text_before_the_first_stop_string_however_it_is_cut(pieces: list[str], stops: list[str]) -> None:
    watch = StopStrings(stops)
    given_out = ""
    whole, found = first_stop("".join(pieces), stops)
    for piece in pieces:
        given_out += watch.push(piece)
        assert whole.startswith(given_out), "a part of a stop string was given out"
    if not watch.found:
        # As much as can be told was given out: what is held back begins a stop string.
        held = whole[len(given_out) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)
        given_out += watch.finish()
    assert (given_out, watch.found) == (whole, found)


@settings(max_examples=150, deadline=None)
@given(thought=st.text(max_size=12), text=st.text(max_size=12), most=st.integers(1, 200))
def test_channels_hold_what_was_said_in_them(thought: str, text: str, most: int) -> None:
    tokens = [BEGIN, *ids(thought), END, ANSWER, *ids(text), STOP]
    stream = AnswerStream(TOKENIZER, MARKS, most)
    texts = said(stream, tokens)
    assert stream.ended == ("stop" if most >= len(tokens) else "length")
    assert stream.tokens == tokens[: min(most, len(tokens) - 1)]
    if stream.ended == "stop":
        assert (texts[Channel.THINKING], texts[Channel.ANSWER]) == (thought, text)
    with pytest.raises(ValueError, match="ended"):
        stream.push(0)


def test_a_prompt_that_opens_the_thinking_channel() -> None:
    stream = AnswerStream(TOKENIZER, Marks(MARKS.stop, MARKS.thinking, thinks=True), 99)
    assert said(stream, [*ids("hm"), END, *ids("yes"), STOP]) == {Channel.THINKING: "hm", Channel.ANSWER: "yes"}


def test_stop_strings_end_the_answer_and_not_a_thought() -> None:
    stream = AnswerStream(TOKENIZER, MARKS, 99, ["\n\n", "END"])
    texts = said(stream, [BEGIN, *ids("one\n\ntwo END"), END, *ids("the answer\nEN dEND and more")])
    assert stream.ended == "stop"
    assert texts == {Channel.THINKING: "one\n\ntwo END", Channel.ANSWER: "the answer\nEN d"}


@settings(max_examples=100, deadline=None)
@given(text=LETTERS, stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=2), cut=st.integers(1, 30))
def test_what_was_held_back_is_given_out_at_the_end(text: str, stops: list[str], cut: int) -> None:
    """Also when the length ends the answer just there."""
    tokens = ids(text)
    stream = AnswerStream(TOKENIZER, MARKS, cut, stops)
    texts = said(stream, [*tokens, STOP])
    assert texts[Channel.ANSWER] == first_stop(TOKENIZER.decode(tokens[:cut]), stops)[0]


def test_half_a_character_at_a_mark_or_at_the_end_is_not_lost() -> None:
    half = ids("🙂")[:2]
    assert said(AnswerStream(TOKENIZER, MARKS, 99), [BEGIN, *half, END, *half, STOP]) == dict.fromkeys(Channel, "\ufffd")


@pytest.mark.parametrize("stop", [("",), ("x" * 257,), ("x",) * 17])
def test_stop_strings_are_bounded(stop: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match="stop strings of 1 to 256"):
        Sampling(stop=stop)
