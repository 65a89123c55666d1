"""Constrained answers: whatever the model, the form holds, and what no model can follow is refused."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from tokenizers import Tokenizer

from glyph_rt import Runtime, Sampling
from glyph_rt.errors import ConstraintError, OptionError
from glyph_rt.language import JSON_SCHEMA, REGEX, Constraint, constraints
from glyph_rt.language.constraints import Grammars
from glyph_rt.language.stopping import Marks
from tests.conftest import TEXT
from tests.language.checkpoints import byte_fallback, byte_level, per_character

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "maxLength": 6},
        "weight": {"type": "integer", "minimum": 0, "maximum": 99},
        "paid": {"type": "boolean"},
    },
    "required": ["number", "weight", "paid"],
    "additionalProperties": False,
}
PATTERNS = (r"(yes|no)", r"[A-Z]{2}-[0-9]{5}", r"[a-c]{0,3}", r"[0-9]{1,9}\.[0-9]{2} EUR", r"[^\n]{1,9}")
KINDS = {make.__name__: make() for make in (byte_level, byte_fallback, per_character)}


def grammars(tokenizer: Tokenizer, thinking: bool = False, spare: int = 7) -> tuple[Grammars, Marks]:
    """Stop tokens 1 and 2, which no text is made of in any of the three; and `spare` logits that no token stands for."""
    ids = [tokenizer.token_to_id(mark) for mark in ("<think>", "</think>")]
    stop = {1, 2} if ids[0] is None else {tokenizer.token_to_id("<|user|>"), tokenizer.token_to_id("<|endoftext|>")}
    marks = Marks(frozenset(stop), (ids[0], ids[1]) if thinking else None)
    return Grammars(tokenizer, marks, tokenizer.get_vocab_size() + spare), marks


def babble(tokenizer: Tokenizer, constraint: Constraint, data: st.DataObject, most: int = 200) -> str | None:
    """Text of tokens drawn from what is allowed; None when it did not end."""
    maker, marks = grammars(tokenizer)
    guide, answer = maker.guide(constraint), []
    while len(answer) < most:
        allowed = guide.allowed(answer).nonzero().flatten().tolist()
        assert max(allowed) < tokenizer.get_vocab_size()
        token = allowed[data.draw(st.integers(0, len(allowed) - 1))]
        if token in marks.stop:
            return str(tokenizer.decode(answer))
        answer.append(token)
    return None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(pattern=st.sampled_from(PATTERNS), data=st.data())
def test_tokens_that_are_allowed_make_text_that_matches(kind: str, pattern: str, data: st.DataObject) -> None:
    text = babble(KINDS[kind], Constraint(REGEX, pattern), data)
    lost = " " if kind == "byte_fallback" else ""  # its decoder drops a leading blank
    assert text is None or re.fullmatch(pattern, text) or re.fullmatch(pattern, lost + text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_tokens_that_are_allowed_make_json_of_the_schema(kind: str, data: st.DataObject) -> None:
    text = babble(KINDS[kind], Constraint(JSON_SCHEMA, json.dumps(SCHEMA)), data)
    if text is not None:
        found = json.loads(text)
        assert set(found) == {"number", "weight", "paid"}
        assert isinstance(found["paid"], bool) and 0 <= found["weight"] <= 99 and len(found["number"]) <= 6


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_text_that_matches_can_be_said(pattern: str) -> None:
    """The form is all that is ruled out: the tokenizer's own spelling of a text that matches stays possible."""
    tokenizer = KINDS["byte_level"]
    text = {0: "no", 1: "QX-58213", 2: "abc", 3: "12.40 EUR", 4: "你好 🙂"}[PATTERNS.index(pattern)]
    maker, marks = grammars(tokenizer)
    guide, tokens = maker.guide(Constraint(REGEX, pattern)), tokenizer.encode(text).ids
    for i, token in enumerate(tokens):
        assert guide.allowed(tokens[:i])[token]
    assert guide.allowed(tokens)[list(marks.stop)].all()


def test_thoughts_are_free_and_the_answer_is_not() -> None:
    tokenizer = KINDS["byte_level"]
    maker, marks = grammars(tokenizer, thinking=True)
    assert marks.thinking is not None
    begin, end = marks.thinking
    free = tokenizer.encode("what now?").ids
    guide = maker.guide(Constraint(REGEX, "yes|no"))
    stop, said = list(marks.stop), tokenizer.encode("no").ids
    start = guide.allowed([])
    assert start[begin] and not start[free[0]] and not start[stop].any()
    thinking = guide.allowed([begin])
    assert thinking[free[0]] and thinking[end] and not thinking[stop].any(), "an answer has to come of it"
    after = guide.allowed([begin, *free, end])
    assert not after[free[0]] and not after[begin] and after[said[0]]
    assert guide.allowed([begin, *free, end, *said])[stop].all()


def test_a_prompt_that_opens_the_thinking_channel_is_free_at_once() -> None:
    tokenizer = KINDS["byte_level"]
    _, marks = grammars(tokenizer, thinking=True)
    opened = Grammars(tokenizer, Marks(marks.stop, marks.thinking, thinks=True), tokenizer.get_vocab_size())
    assert opened.guide(Constraint(REGEX, "x")).allowed([])[tokenizer.encode("y").ids[0]]


@pytest.mark.parametrize("name", ["reader", "random", "thinking"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_have_the_form(runtimes: dict[str, Runtime], name: str, temperature: float) -> None:
    with runtimes[name].read(TEXT) as document:
        for seed in range(3):
            asked = Sampling(40, temperature, seed, constraint=Constraint(REGEX, r"[A-Z]{2}-\d{5}"), repetition_penalty=1.1)
            answer = document.ask("What is the value of order number?", asked)
            if name == "thinking" and answer.finish_reason == "length":
                continue  # it thought to the end
            assert re.fullmatch(r"[A-Z]{2}-\d{5}", answer.text) and answer.finish_reason == "stop"


def test_a_constraint_that_the_model_means_anyway_changes_nothing(runtimes: dict[str, Runtime]) -> None:
    with runtimes["reader"].read(TEXT) as document:
        plain = document.ask("What is the value of order number?")
        held = document.ask("What is the value of order number?", Sampling(constraint=Constraint(REGEX, r"[A-Z]{2}-\d{5}")))
        assert held.text == plain.text == "QX-58213"


@pytest.mark.parametrize(
    ("kind", "source", "reason"),
    [
        (REGEX, "(", "unclosed group"),
        (REGEX, r"(?=x)y", "look-around"),
        (REGEX, "x" * 70_000, "at most 65,536 bytes"),
        (JSON_SCHEMA, "no json", "is not JSON"),
        (JSON_SCHEMA, "[" * 100_000, "at most"),
        (JSON_SCHEMA, "[" * 60_000, "is not JSON"),
        (JSON_SCHEMA, "[1]", "must be a JSON object"),
        (JSON_SCHEMA, '{"type": "nope"}', "nope"),
        (JSON_SCHEMA, '{"$ref": "http://example.org/schema"}', "cannot be used"),
        (JSON_SCHEMA, '{"$ref": "file:///etc/passwd"}', "cannot be used"),
        (JSON_SCHEMA, '{"not": {"type": "string"}}', "Unimplemented"),
        ("lark", "start: x", "json_schema or a regex"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_constraint_is_refused(runtimes: dict[str, Runtime], kind: str, source: str, reason: str) -> None:
    runtime = runtimes["random"]
    with runtime.read(TEXT) as document:
        with pytest.raises(OptionError, match=reason) as caught:
            document.ask("?", Sampling(constraint=Constraint(kind, source)))
        assert caught.value.field == "sampling.constraint" and "\n" not in str(caught.value)
        assert runtime.arena.used == document.kv_bytes


def test_what_the_model_has_no_token_for_ends_in_an_error(runtimes: dict[str, Runtime]) -> None:
    """The reader knows no such letter."""
    runtime = runtimes["reader"]
    with runtime.read(TEXT) as document:
        with pytest.raises(ConstraintError, match="no token of this model"):
            _ = document.ask("?", Sampling(constraint=Constraint(REGEX, "aé"))).text
        assert runtime.arena.used == document.kv_bytes


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "((ab{900}){900}c){900}"])
def test_an_expensive_pattern_ends_its_own_answer(runtimes: dict[str, Runtime], pattern: str) -> None:
    """With llguidance's own limits, it would be followed for seconds and hundreds of MiB."""
    runtime = runtimes["reader"]
    with runtime.read(TEXT) as document:
        beside = document.ask("What is the value of order number?")
        with pytest.raises((OptionError, ConstraintError), match=r"the constraint cannot be (used|met): .*too (many|complex)"):
            _ = document.ask("?", Sampling(50, constraint=Constraint(REGEX, pattern))).text
        assert beside.text == "QX-58213"
        beside.close()
        assert runtime.arena.used == document.kv_bytes


def test_a_constraint_is_compiled_and_first_followed_by_whoever_asks(runtimes: dict[str, Runtime]) -> None:
    """Also one of a large schema is within the limits."""
    large = {"type": "object", "properties": {f"key {n}": {"type": "string", "pattern": "^[a-z]{1,40}-[0-9]{1,9}$"} for n in range(200)}}
    runtime, masks = runtimes["reader"], []

    class Watched(LLMatcherProxy):
        def compute_bitmask(self) -> bytes:
            masks.append(threading.current_thread().name)
            return self.matcher.compute_bitmask()

    with runtime.read(TEXT) as document, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constraints, "LLMatcher", Watched)
        answer = document.ask("?", Sampling(3, constraint=Constraint(JSON_SCHEMA, json.dumps(large))))
        assert answer.text.startswith("{")
    assert masks[0] == threading.current_thread().name and set(masks[1:]) == {"glyph-decoder"}


class LLMatcherProxy:
    """llguidance's own, which cannot be inherited from."""

    grammar_from_json_schema = staticmethod(LLMatcher.grammar_from_json_schema)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.matcher = LLMatcher(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.matcher, name)


def test_a_token_that_is_not_allowed_is_an_error_and_no_guess() -> None:
    tokenizer = KINDS["byte_level"]
    guide = grammars(tokenizer)[0].guide(Constraint(REGEX, "yes"))
    with pytest.raises(ConstraintError):
        guide.allowed(tokenizer.encode("no").ids)
