"""Detokenising: the pieces joined are the whole, and no piece holds half a character."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from glyph_rt.language.detokenise import Detokenizer
from glyph_rt.language.prompt import data_tokenizer
from tests.language.checkpoints import byte_fallback, byte_level, per_character

KINDS = {make.__name__: make() for make in (byte_level, byte_fallback, per_character)}


def split(tokenizer: Tokenizer, tokens: list[int]) -> tuple[list[str], str]:
    detokenizer = Detokenizer(tokenizer)
    return [detokenizer.step(token) for token in tokens], detokenizer.finish()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_text_comes_back_whole(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]
    tokens = data_tokenizer(tokenizer.to_str()).encode(text, add_special_tokens=False).ids
    pieces, rest = split(tokenizer, tokens)
    assert "".join(pieces) + rest == tokenizer.decode(tokens)
    if kind == "byte_level":
        assert "".join(pieces) + rest == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces), "half a character came out"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_tokens_at_all(kind: str, data: st.DataObject) -> None:
    """A model may draw bytes that are no UTF-8, control tokens among them: never an exception, and joined they are the decoding, but
    for what byte fallback does to valid characters beside invalid bytes."""
    tokenizer = KINDS[kind]
    tokens = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=40))
    pieces, rest = split(tokenizer, tokens)
    whole = tokenizer.decode(tokens)
    if kind != "byte_fallback" or "\ufffd" not in whole:
        assert "".join(pieces) + rest == whole
    else:
        assert "\ufffd" in "".join(pieces) + rest


@pytest.mark.parametrize("character", ["é", "你", "🙂"])
@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_a_character_in_single_bytes_comes_in_one_piece(make: Callable[[], Tokenizer], character: str) -> None:
    tokenizer = make()
    if make is byte_level:
        spelled = tokenizer.pre_tokenizer.pre_tokenize_str(character)[0][0]  # one letter for each byte
        tokens = [tokenizer.token_to_id(letter) for letter in spelled]
    else:
        tokens = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in character.encode()]
    pieces, rest = split(tokenizer, tokens)
    assert pieces == [*[""] * (len(tokens) - 1), character] and rest == ""
    pieces, rest = split(tokenizer, tokens[:-1])
    assert "".join(pieces) == "" and "\ufffd" in rest
