"""AnswerStream: what the tokens of an answer say, in which channel, and when and why the answer has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tokenizers import Tokenizer

from glyph_rt.language.detokenise import Detokenizer


class Channel(Enum):
    """Whom a piece of text is for."""

    THINKING = "thinking"  # between <think> and </think>: the model's notes to itself
    ANSWER = "answer"


@dataclass(frozen=True)
class Piece:
    """Text of one channel, at least one character."""

    channel: Channel
    text: str


@dataclass(frozen=True)
class Marks:
    """Tokens of a checkpoint that end or divide an answer and are no text of it.

    stop: any of these ends the answer. thinking: the tokens that begin and end the thinking channel, of models that have them.
    silent: tokens given out as nothing. thinks: the prompt itself ends inside the thinking channel.
    """

    stop: frozenset[int]
    thinking: tuple[int, int] | None = None
    silent: frozenset[int] = frozenset()
    thinks: bool = False


class StopStrings:
    """Passes text on up to the first stop string, holding back whatever could still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None  # the stop string met; nothing passes behind it

    def push(self, text: str) -> str:
        """What may be given out now that `text` follows. Of stop strings that end at one place the longest counts; how the text was cut
        into pieces changes nothing."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        text = self._held + text
        ends = [(at + len(stop), -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return text[: end - len(self.found)]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, when no text follows."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of `text` that begins `stop`."""
        return next(n for n in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:n]))


class AnswerStream:
    """Takes an answer's tokens in order and gives its text, until a stop token, a stop string or the last token allowed.

    Stop strings are looked for in the answer channel only. No piece holds half a character.
    """

    def __init__(self, tokenizer: Tokenizer, marks: Marks, most: int, stops: Sequence[str] = ()) -> None:
        self.marks, self.most = marks, most
        self.ended: str | None = None  # "stop" or "length", once the answer has ended
        self.tokens: list[int] = []  # of the answer, marks included, without the stop token
        self._tokenizer = tokenizer
        self._stops = StopStrings(stops)
        self._channel = Channel.THINKING if marks.thinks else Channel.ANSWER
        self._text = Detokenizer(tokenizer)

    def push(self, token: int) -> list[Piece]:
        """The text that `token` completes, often none. After the answer has ended no token may follow."""
        if self.ended is not None:
            raise ValueError("the answer has ended")
        if token in self.marks.stop:
            self.ended = "stop"
            return self.finish()
        self.tokens.append(token)
        pieces = self._take(token)
        if self._stops.found is not None:
            self.ended = "stop"
        elif len(self.tokens) == self.most:
            self.ended = "length"
            pieces += self.finish()
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back. `push` does this when it ends an answer; whoever cuts one short elsewhere may want it too."""
        pieces = self._pass(self._text.finish())
        rest = self._stops.finish()
        return [*pieces, Piece(Channel.ANSWER, rest)] if rest else pieces

    def _take(self, token: int) -> list[Piece]:
        begin, end = self.marks.thinking or (None, None)
        if token == begin:
            return self._switch(Channel.THINKING)
        if token == end:
            return self._switch(Channel.ANSWER)
        if token in self.marks.silent:
            return []
        return self._pass(self._text.step(token))

    def _switch(self, channel: Channel) -> list[Piece]:
        if channel == self._channel:
            return []
        pieces = self._pass(self._text.finish())
        self._channel, self._text = channel, Detokenizer(self._tokenizer)
        return pieces

    def _pass(self, text: str) -> list[Piece]:
        if self._channel == Channel.ANSWER and text:
            text = self._stops.push(text)
        return [Piece(self._channel, text)] if text else []
