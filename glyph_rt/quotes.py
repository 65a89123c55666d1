"""Quotes: which parts of an answer the document says too, where, and in which characters. Text only: of pages and models it knows nothing.

A model that reads pages misreads now and then, but the runtime knows the text. What the answer and the text say alike is `VERBATIM`. What
they nearly say alike is `MISREAD`, and can be replaced by the document's own characters, under one of two conditions, each with the
reason why nothing else is likely to be meant:

- A *code*: a word, or part of a path, of at least 12 letters and digits that looks random (`is_code`), such as a UUID or a hash, and
  differs in at most one character of eight. Nobody derives such a word from another, and none comes near another by chance: of random
  hexadecimal words of 12 characters, one in 10^12 is within one edit of a given one. A reader that gets one character of twenty wrong
  stays within the bound on 83 (15 characters) to 97 (36) of 100 such words. What counting could have done (only the last three
  characters replaced) is left alone, and so is what is near a part of a longer code only: it may be another part of it.
- A word inside a *run* of words that are the document's: at least 24 characters of exact words on either side, at most a quarter of
  the word changed (or one character), and in all at most one edit for 16 exact characters. Who says so much in the document's words is
  quoting it. When another text of the document is as near to the run, the misread words stay as they are, unmarked.

Everything else has to be exact: a short number, a date, an amount or a name that is one character off may be another one, and one that is
truly meant cannot be told from one misread. Never changed either is what stands in the question: it was not read from the document.
"As near" is: fewer than two edits farther. At 5 % of characters misread, two more edits are some 10^4 times less likely. A code with two
such texts is `AMBIGUOUS` and stays as it is. What would be too much work to look for counts as found: nothing is changed on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import Levenshtein

from glyph_rt.named import by_name
from glyph_rt.nearby import STEP, Searched, Span, Word, begins, ends, is_part, plain, words

MOST_PLACES = 8  # of one quote, that are told
SHORTEST_ANSWER = 2  # characters: a single letter or digit stands everywhere and shows nothing
SHORTEST_RUN = 12  # characters of a part of an answer, without a digit, that is worth a mark
SHORTEST_FIGURE = 4  # characters of one with a digit
ANCHOR = 24  # characters of exact words on either side of a misread one
EXACT_PER_EDIT = 16  # characters of exact words in a run
WORD_PER_EDIT = 4  # characters of a word in a run; of a shorter one, one edit
BACKWARDS = 1024  # code points looked at before a seed: what is exact there would have been a seed itself
SHORTEST_CODE = 12  # letters and digits
CODE_PER_EDIT = 8  # characters of a code
MOST_EDITS = 8  # of one quote, however long
COUNTED = 3  # last characters, which counting changes
MOST_HITS = 64  # places of a seed; a commoner one has to be longer

_CODE = re.compile(r"[\w-]+")
_GROUPS = re.compile(r"[^\W_]+")
_DIGITS = re.compile(r"\d{12}")
_SWITCH = re.compile(r"(?<=\d)(?=\D)|(?<=\D)(?=\d)")


class Quoting(StrEnum):
    """What becomes of quotes that the model misread."""

    MARK = "mark"  # they are told of
    EXACT = "exact"  # and replaced

    @classmethod
    def parse(cls, told: str) -> Quoting:
        """Raises OptionError for what is neither."""
        return by_name(cls, told, "way with quotes", "quotes")


class QuoteKind(StrEnum):
    """How sure it is that the document says so."""

    VERBATIM = "verbatim"  # word for word, white space aside
    MISREAD = "misread"  # nearly, and nowhere else nearly so
    AMBIGUOUS = "ambiguous"  # nearly, and other texts of the document are as near


@dataclass(frozen=True)
class Quote:
    """A part of an answer, and where the document says it."""

    kind: QuoteKind
    start: int  # code points [start, end) of the answer as the model wrote it
    end: int
    said: str  # what the model wrote there
    text: str  # what the document says; of an ambiguous quote, at the first place
    places: tuple[Span, ...]  # in the document, in order: the first `MOST_PLACES`; of an ambiguous quote, of all that it may be

    def to_json(self, document: str) -> dict[str, Any]:
        """With what the document says at each place."""
        places = [asdict(place) | {"text": document[place.start : place.end]} for place in self.places]
        return {"kind": self.kind.value, "start": self.start, "end": self.end, "said": self.said, "places": places}


def locate(text: str, answer: str, given: Sequence[str] = ()) -> tuple[Quote, ...]:
    """The quotes of `text` in `answer`, in order and apart from each other. given: texts that the answer may quote instead, such as
    the question.
    """
    return tuple(_Locator(text, answer, given).quotes())


def corrected(answer: str, quotes: Sequence[Quote]) -> str:
    """The answer with its misread quotes in the document's characters; nothing else of it changes."""
    parts, done = [], 0
    for quote in quotes:
        if quote.kind == QuoteKind.MISREAD:
            parts += [answer[done : quote.start], quote.text]
            done = quote.end
    return "".join([*parts, answer[done:]])


def is_code(word: str) -> bool:
    """Whether a word looks random: it has 12 digits in a row, or goes to and fro between letters and digits four times or more, three of
    them in one unbroken row of at least 8. Dates, times, amounts, counters and part numbers in groups do not."""
    groups = _GROUPS.findall(word)
    if sum(map(len, groups)) < SHORTEST_CODE:
        return False
    switches = [len(_SWITCH.findall(group)) for group in groups]
    mixed = any(len(group) >= 8 and count >= 3 for group, count in zip(groups, switches, strict=True))
    return _DIGITS.search(word) is not None or (mixed and sum(switches) >= 4)


@dataclass(frozen=True)
class _Run:
    """Words of the answer from number `first` on, beside the document's words at one place."""

    first: int
    said: tuple[Word, ...]
    text: tuple[Word, ...]

    @property
    def after(self) -> int:
        return self.first + len(self.said)

    @property
    def words(self) -> list[str]:
        """What the document says, white space aside."""
        return [word.text for word in self.text]

    @property
    def misread(self) -> list[int]:
        """Numbers, within the run, of the words that are not the same."""
        return [n for n, (said, word) in enumerate(zip(self.said, self.text, strict=True)) if said.text != word.text]

    def exact(self, first: int, after: int) -> int:
        """Characters of exact words among those numbered [first, after)."""
        pairs = zip(self.said[first:after], self.text[first:after], strict=True)
        return sum(len(word.text) for said, word in pairs if said.text == word.text)

    def part(self, first: int, after: int) -> _Run:
        return _Run(self.first + first, self.said[first:after], self.text[first:after])

    def anchored(self, seed: int) -> _Run:
        """The largest part with word `seed` of the run, which is exact, in which every misread word is allowed."""
        run = self
        while misread := run.misread:
            total = run.exact(0, len(run.said))
            loose = [n for n in misread if min(run.exact(0, n), run.exact(n + 1, len(run.said))) < ANCHOR]
            edits = sum(Levenshtein.distance(run.said[n].text, run.text[n].text) for n in misread)
            if not loose and edits <= min(MOST_EDITS, total // EXACT_PER_EDIT):
                return run
            cut = max(loose or misread, key=lambda n: abs(n - seed))  # what is left has the most around the seed
            if cut < seed:
                run, seed = run.part(cut + 1, len(run.said)), seed - cut - 1
            else:
                run = run.part(0, cut)
        return run


class _Locator:
    """Goes through an answer from left to right: a run of the document's words, else a code, else the next word."""

    def __init__(self, text: str, answer: str, given: Sequence[str]) -> None:
        self._source, self._answer = Searched(text), answer
        self._words = list(words(answer))
        self._given = given
        self._given_words = {word.text for other in given for word in words(other)}

    def quotes(self) -> Iterator[Quote]:
        free = at = 0  # the first word that no quote has yet, and the one looked at
        while at < len(self._words):
            if runs := self._runs(at, free):
                yield from self._of_runs(runs)
                free = at = runs[0].after
                continue
            for quote in self._of_codes(self._words[at]):
                yield quote
                free = at + 1
            at += 1

    def _runs(self, at: int, free: int) -> list[_Run]:
        """The longest run through word `at`, of words from `free` on, at every place that has its words; empty when there is none."""
        for first, after in self._seeds(at, free):
            grown = [self._grown(first, end, place, free) for end, place in self._hits(first, after)]
            if runs := [run for run in grown if self._is_telling(run)]:
                best = max(runs, key=lambda run: (run.exact(0, len(run.said)), -len(run.misread)))
                return [run for run in runs if run.first == best.first and run.words == best.words]
        return []

    def _seeds(self, at: int, free: int) -> Iterator[tuple[int, int]]:
        """Words [first, after) of the answer that the document may say word for word."""
        ours = self._words
        for after in range(at + 1, len(ours) + 1):
            length = ours[after - 1].end - ours[at].start
            if length >= SHORTEST_RUN or (at == 0 and after == len(ours) and length >= SHORTEST_ANSWER):
                yield at, after
                break
        if _has_digit(ours[at].text):
            if len(ours[at].text) >= SHORTEST_FIGURE:
                yield at, at + 1
            else:  # a short number with the word before or behind it
                yield from ([(at - 1, at + 1)] if at > free else [])
                yield from ([(at, at + 2)] if at + 2 <= len(ours) else [])

    def _hits(self, first: int, after: int) -> Iterator[tuple[int, Span]]:
        """Places of the seed, which is made longer until it is not too common: where among our words it ends, and the place."""
        text = self._source.text
        while True:
            phrase = plain(self._said(first, after))
            found = self._source.find(phrase, MOST_HITS) or []
            if len(found) <= MOST_HITS or after == len(self._words):
                break
            after += 1
        if len(found) <= MOST_HITS or (first == 0 and after == len(self._words)):
            for start in found:
                end = start + len(phrase)
                if begins(text, start) and ends(text, end):
                    yield after, Span(start, end)

    def _grown(self, first: int, after: int, place: Span, free: int) -> _Run:
        """The seed [first, after) at its place in the document, with the words around it as far as they are near."""
        seed = words(self._source.text, place.start, place.end)
        left = self._neighbours(range(first - 1, free - 1, -1), place.start)
        right = self._neighbours(range(after, len(self._words)), place.end)
        begin, end = first - len(left), after + len(right)
        return _Run(begin, tuple(self._words[begin:end]), (*reversed(left), *seed, *right)).anchored(len(left))

    def _neighbours(self, numbers: range, at: int) -> list[Word]:
        """The document's words from `at` on, or back, as long as they are near our words of these numbers."""
        if not numbers:
            return []
        text, ours, back = self._source.text, self._words, numbers.step < 0
        room = 2 * abs(ours[numbers[-1]].start - ours[numbers[0]].end) + 256
        theirs = reversed(list(words(text, max(0, at - min(room, BACKWARDS)), at))) if back else words(text, at, at + room)
        found: list[Word] = []
        misread = 0
        for number, word in zip(numbers, theirs, strict=False):
            before, behind = (number, number + 1) if back else (number - 1, number)
            gap = self._answer[ours[before].end : ours[behind].start]
            their_gap = text[word.end : at] if back else text[at : word.start]
            misread += ours[number].text != word.text
            if not self._source.spend(STEP) or misread > MOST_EDITS:
                break
            if plain(gap) != plain(their_gap) or not self._is_near(ours[number].text, word.text):
                break
            found.append(word)
            at = word.start if back else word.end
        return found

    def _is_near(self, said: str, word: str) -> bool:
        if said == word:
            return True
        most = max(1, min(len(said), len(word)) // WORD_PER_EDIT)
        return said not in self._given_words and Levenshtein.distance(said, word, score_cutoff=most) <= most

    def _is_telling(self, run: _Run) -> bool:
        """Whether a run says enough to be marked."""
        said = self._said(run.first, run.after)
        if len(said) >= SHORTEST_RUN or len(run.said) == len(self._words):
            return True
        return len(said) >= SHORTEST_FIGURE and _has_digit(said)

    def _of_runs(self, runs: list[_Run]) -> Iterator[Quote]:
        """Of one run at all its places: its exact stretches and, where these are sure, its misread words, in order."""
        run = runs[0]
        misread = run.misread
        sure = misread and self._is_alone(run)
        for before, behind in pairwise([-1, *misread, len(run.said)]):
            if before >= 0 and sure:
                yield self._quote(QuoteKind.MISREAD, runs, before, before + 1)
            if before + 1 < behind:
                yield self._quote(QuoteKind.VERBATIM, runs, before + 1, behind)

    def _quote(self, kind: QuoteKind, runs: list[_Run], first: int, after: int) -> Quote:
        """Words [first, after) of a run."""
        places = tuple(Span(run.text[first].start, run.text[after - 1].end) for run in runs[:MOST_PLACES])
        start, end = runs[0].said[first].start, runs[0].said[after - 1].end
        return Quote(kind, start, end, self._answer[start:end], self._there(places[0]), places)

    def _is_alone(self, run: _Run) -> bool:
        """Whether no other text of the document is as near to what the model wrote."""
        own = self._there(Span(run.text[0].start, run.text[-1].end))
        wrote, edits, done = "", 0, run.text[0].start  # what it wrote, with the document's white space
        for said, word in zip(run.said, run.text, strict=True):
            wrote += self._there(Span(done, word.start)) + said.text
            edits += Levenshtein.distance(said.text, word.text)
            done = word.end
        found = self._source.near(wrote, edits + 1) or {}
        nearest = found.get(plain(own))
        return nearest is not None and not any(nearest.rivals(other) for other in found.values())

    def _of_codes(self, word: Word) -> Iterator[Quote]:
        """The codes in a word; a path, say, may have several."""
        for match in _CODE.finditer(word.text):
            start, end = match.span()
            if is_code(match.group()) and not any(match.group() in text for text in self._given):
                yield from self._of_code(Word(match.group(), word.start + start, word.start + end))

    def _of_code(self, code: Word) -> Iterator[Quote]:
        """A code that is nearly one of the document's, if there is one, and not too much to look at."""
        most = min(MOST_EDITS, len(code.text) // CODE_PER_EDIT)
        found = self._source.near(code.text, most + 1)
        if not found:
            return
        text, nearest = min(found.items(), key=lambda item: item[1].distance)
        rivals = [other for other in found.values() if nearest.rivals(other)]
        kind, start, end = QuoteKind.AMBIGUOUS if rivals else QuoteKind.MISREAD, code.start, code.end
        within = code.text.find(text)
        if within >= 0 and begins(code.text, within) and ends(code.text, within + len(text)):
            kind, rivals = QuoteKind.VERBATIM, []
            start, end = code.start + within, code.start + within + len(text)
        elif nearest.distance > most or _may_be_counted(code.text, text) or any(is_part(self._source.text, at) for at in nearest.places):
            return
        places = sorted({place for near in (nearest, *rivals) for place in near.places}, key=lambda place: place.start)[:MOST_PLACES]
        yield Quote(kind, start, end, self._answer[start:end], self._there(places[0]), tuple(places))

    def _said(self, first: int, after: int) -> str:
        """Our words [first, after) as they stand in the answer."""
        return self._answer[self._words[first].start : self._words[after - 1].end]

    def _there(self, place: Span) -> str:
        return self._source.text[place.start : place.end]


def _has_digit(text: str) -> bool:
    return any(c.isdigit() for c in text)


def _may_be_counted(said: str, text: str) -> bool:
    """Whether counting may have made the one from the other: only the last characters are other ones."""
    return len(said) == len(text) and said[:-COUNTED] == text[:-COUNTED]
