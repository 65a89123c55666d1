"""Where a long text has a phrase, word for word or nearly, within a budget of work.

What is near is found by the pigeonhole principle: of r + 1 pieces of a phrase, one survives r edits. So no text within r edits is
overlooked, but for white space, which need not be the same: a piece that spans a line end of the text is not found there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import regex  # type: ignore[import-untyped]
from rapidfuzz.distance import Levenshtein

MOST_CANDIDATES = 4096  # places looked at for what is near
MOST_WORK = 1 << 30  # code points searched through: a second or two on an idle box
STRETCH = 1 << 20  # code points searched through at a time, since a search lets no other thread run
# What else is done costs, in code points searched through in the same time: at least this a search, a word or a candidate.
SEARCH, STEP = 1 << 16, 1 << 12

# Scripts without spaces between words: there every character is a word.
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[\w--[{_ALONE}]]"
# From letter or digit to letter or digit, with anything between but white space and what separates values in code and tables.
_WORD = regex.compile(rf"(?V1)[{_ALONE}]|{_LETTER}(?:[^\s\"\\()\[\]{{}}<>|=;{_ALONE}]*{_LETTER})?")
_INSIDE = rf"(?<={_LETTER}){_LETTER}|(?<=\d)[.,:]\d|(?<=\d[.,:])\d"  # around a place in a word or a number
_BEGIN = regex.compile(rf"(?V1)(?=\w)(?!{_INSIDE})")
_PART_BEFORE = regex.compile(r"(?<=\w-)")
_PART_BEHIND = regex.compile(r"-\w")
_END = regex.compile(rf"(?V1)(?<=\w)(?!{_INSIDE})")


@dataclass(frozen=True)
class Span:
    """Code points [start, end) of a text."""

    start: int
    end: int

    def overlaps(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Word:
    """A word at its place in a text: `text[start:end]`. Punctuation around it is no part of it."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Nearby:
    """A text that is near a phrase: the edits between them, and its places."""

    distance: int
    places: set[Span]

    def rivals(self, other: Nearby) -> bool:
        """Whether `other`, standing elsewhere, is as near as this, or fewer than two edits farther."""
        return other.distance < self.distance + 2 and not any(a.overlaps(b) for a in self.places for b in other.places)


def words(text: str, start: int = 0, end: int | None = None) -> Iterator[Word]:
    """The words of text[start:end], found as they are taken."""
    return (Word(match.group(), *match.span()) for match in _WORD.finditer(text, start, len(text) if end is None else end))


def plain(text: str) -> str:
    """With every run of white space as one space."""
    return re.sub(r"\s+", " ", text)


def begins(text: str, at: int) -> bool:
    """Whether a word may begin at code point `at`."""
    return _BEGIN.match(text, at) is not None


def ends(text: str, at: int) -> bool:
    """Whether a word may end before code point `at`."""
    return _END.match(text, at) is not None


def is_part(text: str, place: Span) -> bool:
    """Whether what stands there goes on before or behind a hyphen."""
    return _PART_BEFORE.match(text, place.start) is not None or _PART_BEHIND.match(text, place.end) is not None


class Searched:
    """A text, and the work that may still be spent on it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._left = MOST_WORK

    def spend(self, cost: int) -> bool:
        """Whether there is any work left to be done, `cost` taken from it."""
        self._left -= cost
        return self._left >= 0

    def find(self, phrase: str, most: int) -> list[int] | None:
        """Where `phrase` stands: at most `most` places and one more. None when the budget is spent."""
        found: list[int] = []
        for begin in range(0, len(self.text), STRETCH):
            end = min(begin + STRETCH + len(phrase) - 1, len(self.text))
            if not self.spend(max(SEARCH, end - begin) + 64 * len(phrase)):
                return None
            at = self.text.find(phrase, begin, end)
            while at >= 0:
                found.append(at)
                if len(found) > most:
                    return found
                at = self.text.find(phrase, at + 1, end)
        return found

    def near(self, phrase: str, edits: int) -> dict[str, Nearby] | None:
        """Every text of whole words within so many edits of `phrase`, white space aside; of those that overlap, the nearest is enough.

        None when that is too much work, or `phrase` too short: with 3 edits a character, texts near one place need not overlap.
        """
        if len(phrase) <= 3 * edits:
            return None
        found: dict[str, Nearby] = {}
        cuts = [len(phrase) * piece // (edits + 1) for piece in range(edits + 2)]
        looked_at: set[int] = set()
        for begin, end in pairwise(cuts):
            hits = self.find(phrase[begin:end], MOST_CANDIDATES)
            if hits is None or len(hits) + len(looked_at) > MOST_CANDIDATES:
                return None
            for start in {hit - begin for hit in hits} - looked_at:
                looked_at.add(start)
                if not self.spend(0):
                    return None
                if (closest := self._closest(phrase, start, edits)) is not None:
                    distance, span = closest
                    found.setdefault(plain(self.text[span.start : span.end]), Nearby(distance, set())).places.add(span)
        return found

    def _closest(self, phrase: str, start: int, edits: int) -> tuple[int, Span] | None:
        """Of the texts of whole words that begin and end within so many characters of where `phrase` would, standing at `start`, the
        nearest to it, and its distance."""
        text, best, wanted = self.text, None, plain(phrase)
        beginnings = [at for at in self._around(start, edits) if begins(text, at)]
        endings = [at for at in self._around(start + len(phrase), edits) if ends(text, at)]
        for begin, end in product(beginnings, endings):
            self.spend(max(STEP, 16 * len(phrase)))
            there = plain(text[begin:end])
            if " " in there and " " not in wanted:
                continue  # one word is not several
            distance = Levenshtein.distance(wanted, there, score_cutoff=edits)
            if distance <= edits and (best is None or distance < best[0]):
                best = distance, Span(begin, end)
        return best

    def _around(self, at: int, edits: int) -> range:
        return range(max(0, at - edits), min(len(self.text), at + edits) + 1)
