"""Token ids to text as they come."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """Text of consecutive tokens, piece by piece: never half a character, and the pieces joined are what decoding all at once gives.

    Bytes that are no UTF-8 come out as U+FFFD; tokenizers with byte fallback then spoil their valid neighbours too when they decode
    all at once, which pieces that have been given out cannot follow.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []  # tokens behind the last piece

    def step(self, token: int) -> str:
        """The text that this token completes; empty while a character is still in pieces."""
        self._held.append(token)
        try:
            piece = self._stream.step(self._tokenizer, token)
        except Exception:  # what it raises, without a class of its own, when such spoiling changes text that it has given out
            self._stream = DecodeStream(skip_special_tokens=True)
            return self.finish()
        if not piece:
            return ""
        self._held.clear()
        return piece

    def finish(self) -> str:
        """What is left when no token follows: characters that never became whole, as U+FFFD."""
        rest: str = self._tokenizer.decode(self._held, skip_special_tokens=True)
        self._held.clear()
        return rest
