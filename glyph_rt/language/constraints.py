"""Constrained answers: a JSON schema or a regular expression that the whole answer has to match.

llguidance says after every token which tokens may follow; the sampler rules out the others. So the form is certain, not likely.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer
from torch import Tensor

from glyph_rt.errors import ConstraintError, OptionError
from glyph_rt.language.stopping import Marks

JSON_SCHEMA, REGEX = "json_schema", "regex"
LONGEST_SOURCE = 64 * 2**10  # bytes of UTF-8
FIELD = "sampling.constraint"  # of a request, in errors
# A tenth to a quarter of llguidance's own, which let (a{1000}){1000} take a second and 160 MiB for its first token: with these it is 60 ms
# and 5 MiB, 2 ms for a later token, and a schema of 200 properties with a pattern each is well within them.
_COMPLEXITY = LLParserLimits(initial_lexer_fuel=100_000, step_lexer_fuel=50_000, max_lexer_states=20_000)
# Room to indent, and no endless blanks from a model that is at a loss.
_WHITESPACE = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]{0,20}"}


@dataclass(frozen=True)
class Constraint:
    """The form of an answer: JSON that a schema allows, or text that a regular expression (Rust's syntax) matches from end to end.

    A model that thinks does so freely first; the form is that of what follows. Raises OptionError for what is no schema.
    """

    kind: str  # JSON_SCHEMA or REGEX
    source: str

    def __post_init__(self) -> None:
        if self.kind not in (JSON_SCHEMA, REGEX):
            _refuse(f"a constraint is a {JSON_SCHEMA} or a {REGEX}, not {self.kind!r}")
        size = len(self.source.encode("utf-8", "surrogatepass"))
        if size > LONGEST_SOURCE:
            _refuse(f"a constraint has at most {LONGEST_SOURCE:,} bytes, not {size:,}")
        if self.kind == JSON_SCHEMA and not isinstance(self._parsed(), dict):
            _refuse("a JSON schema must be a JSON object")

    @classmethod
    def of(cls, json_schema: str | None, regex: str | None) -> Constraint | None:
        """The form that options ask for; None if they ask for none. Raises OptionError for two."""
        if json_schema is not None and regex is not None:
            _refuse("an answer has one form: a JSON schema or a regular expression")
        if regex is not None:
            return cls(REGEX, regex)
        return None if json_schema is None else cls(JSON_SCHEMA, json_schema)

    def grammar(self) -> str:
        """For llguidance."""
        if self.kind == REGEX:
            return LLMatcher.grammar_from_regex(self.source)
        return LLMatcher.grammar_from_json_schema(self.source, defaults=_WHITESPACE)  # type: ignore[arg-type]

    def _parsed(self) -> Any:
        try:
            return json.loads(self.source)
        except (ValueError, RecursionError) as error:
            _refuse(f"the JSON schema is not JSON: {error}")


def _refuse(told: str) -> NoReturn:
    raise OptionError(told, public=told, field=FIELD)


class Guide:
    """Holds one answer to its constraint. Follows the answer by itself: it is shown the tokens so far, which only ever grow."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, control: Tensor, marks: Marks) -> None:
        self._matcher, self._vocabulary, self._marks = matcher, vocabulary, marks
        self._control = control  # bool [vocabulary], true for the tokens that are no text
        self._stop = list(marks.stop)
        self._followed = 0  # tokens of the answer
        self._thinking = self._thought = marks.thinks

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """Bool [vocabulary]: which tokens may follow `answer`. Raises ConstraintError when none may."""
        for token in answer[self._followed :]:
            self._follow(token)
        self._followed = len(answer)
        if self._thinking:
            allowed = torch.ones(self._vocabulary, dtype=torch.bool)
            allowed[self._stop] = False  # an answer has to come of it
            return allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(np.bool_))
        allowed &= ~self._control
        allowed[self._stop] = self._matcher.is_accepting()
        if self._marks.thinking is not None and not self._thought:
            allowed[self._marks.thinking[0]] = True
        self._check(bool(allowed.any()))
        return allowed

    def _follow(self, token: int) -> None:
        begin, end = self._marks.thinking or (None, None)
        if token == begin:
            self._thinking = self._thought = True
        elif token == end:
            self._thinking = False
        elif not self._thinking:
            self._thought = True  # or never will
            self._check(self._matcher.consume_token(token))

    def _check(self, well: bool) -> None:
        if not well or self._matcher.is_error():
            why = _complaint(self._matcher) or "no token of this model can follow"
            raise ConstraintError(f"the constraint cannot be met: {why}", public="the constraint cannot be met", field=FIELD)


class Grammars:
    """Makes guides for the answers of one tokenizer. vocabulary: the number of logits, which may exceed the tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer, marks: Marks, vocabulary: int) -> None:
        self._tokenizer, self._marks, self._vocabulary = tokenizer, marks, vocabulary

    def guide(self, constraint: Constraint) -> Guide:
        """For one answer, its first token worked out: on the thread of whoever asks, so that an expensive constraint holds up nobody
        else. Raises OptionError for a constraint that cannot be compiled, or is too complex.
        """
        tokenizer = self._compiled
        try:
            grammar = constraint.grammar()
        except ValueError as error:
            _refuse(f"the constraint cannot be used: {error}")
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_COMPLEXITY)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            _refuse(f"the constraint cannot be used: {_complaint(matcher)[:300]}")
        return Guide(matcher, self._vocabulary, self._control, self._marks)

    @cached_property
    def _compiled(self) -> LLTokenizer:
        """llguidance's view of the tokenizer; takes about a second for 150,000 tokens, so it is made when first wanted."""
        stop = sorted(self._marks.stop)
        try:
            return LLTokenizer(self._tokenizer.to_str(), n_vocab=self._vocabulary, eos_token=stop)
        except ValueError:  # it knows the decoders of large models; for others, each token's own text
            return LLTokenizer(TokenizerWrapper(_TokenBytes(self._tokenizer, stop[0])), n_vocab=self._vocabulary, eos_token=stop)

    @cached_property
    def _control(self) -> Tensor:
        control = torch.zeros(self._vocabulary, dtype=torch.bool)
        control[list(self._tokenizer.get_added_tokens_decoder())] = True
        return control


def _complaint(matcher: LLMatcher) -> str:
    """On one line; without the matcher's state, which follows it."""
    return " ".join(matcher.get_error().partition("<state>")[0].split())


class _TokenBytes:
    """What llguidance's TokenizerWrapper asks for, of a tokenizer whose text is its tokens' texts joined."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stop: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = stop
        self.tokens = [tokenizer.decode([i], skip_special_tokens=False).encode() for i in range(tokenizer.get_vocab_size())]
        self.special_token_ids = list(tokenizer.get_added_tokens_decoder())

    def __call__(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
