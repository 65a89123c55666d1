"""Quotes: which parts of an answer the document says too, where, and in which characters. Text only: of pages and models it knows nothing.

A model that reads pages misreads now and then, but the runtime knows the text. What the answer and the text say alike is `VERBATIM`. What
they nearly say alike is `MISREAD`, and can be replaced by the document's own characters, under one of two conditions, each with the
reason why nothing else is likely to be meant:

- A *code*: a word of at least 12 letters and digits that looks random (`is_code`), such as a UUID or a hash, that differs in at most one
  character of eight. Nobody derives such a word from another, and none comes near another by chance: of random hexadecimal words of 12
  characters, one in 10^12 is within one edit of a given one. A reader that gets one character of twenty wrong stays within the bound on
  94 of 100 such words or more. What counting could have done (only the last three characters replaced) is left alone.
- A word inside a *run* of words that are the document's: at least 24 characters of exact words on either side, at most a quarter of
  the word changed (or one character), and in all at most one edit for 16 exact characters. Who says so much in the document's words is
  quoting it. When another text of the document is as near to the run, the misread words stay as they are, unmarked.

Everything else has to be exact: a short number, a date, an amount or a name that is one character off may be another one, and one that is
truly meant cannot be told from one misread. Never changed either is what stands in the question: it was not read from the document.
"As near" is: fewer than two edits farther. At 5 % of characters misread, two more edits are some 10^4 times less likely. A code with two
such texts is `AMBIGUOUS` and stays as it is. What would be too much work to look for counts as found: nothing is changed on a guess.

Candidates are found by the pigeonhole principle: of r + 1 pieces of a phrase, one survives r edits. So no text within r is overlooked, but
for white space, which may differ between answer and document: a piece that spans a line end of the document is not found there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise, product

import regex  # type: ignore[import-untyped]
from rapidfuzz.distance import Levenshtein

from glyph_rt.errors import OptionError

MOST_PLACES = 8  # of one quote, that are told
SHORTEST_ANSWER = 2  # characters: a single letter or digit stands everywhere and shows nothing
SHORTEST_RUN = 12  # characters of a part of an answer, without a digit, that is worth a mark
SHORTEST_FIGURE = 4  # characters of one with a digit
ANCHOR = 24  # characters of exact words on either side of a misread one
EXACT_PER_EDIT = 16  # characters of exact words in a run
SHORTEST_CODE = 12  # letters and digits
CODE_PER_EDIT = 8  # characters of a code
MOST_EDITS = 8  # of one quote, however long
COUNTED = 3  # last characters, which counting changes
MOST_HITS = 64  # places of a seed; a commoner one has to be longer
MOST_CANDIDATES = 4096  # places looked at for what is near
MOST_WORK = 1 << 30  # code points searched through for one answer: a second or two; then the rest stays unmarked
STRETCH = 1 << 20  # code points searched through at a time, since a search lets no other thread run
SEARCH, COMPARISON = 1 << 16, 1 << 12  # the least that one counts for, in code points searched through in the same time

# Scripts without spaces between words: there every character is a word.
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[\w--[{_ALONE}]]"
# From letter or digit to letter or digit, with anything between but white space and what separates values in code and tables.
_WORD = regex.compile(rf"(?V1)[{_ALONE}]|{_LETTER}(?:[^\s\"\\()\[\]{{}}<>|=;{_ALONE}]*{_LETTER})?")
_INSIDE = rf"(?<={_LETTER}){_LETTER}|(?<=\d)[.,:]\d|(?<=\d[.,:])\d"  # around a place in a word or a number
_BEGIN = regex.compile(rf"(?V1)(?=\w)(?!{_INSIDE})")
_END = regex.compile(rf"(?V1)(?<=\w)(?!{_INSIDE})")
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
        if told not in list(cls):
            raise OptionError(f"quotes are {' or '.join(cls)}, not {told!r}", field="quotes")
        return cls(told)


class QuoteKind(StrEnum):
    """How sure it is that the document says so."""

    VERBATIM = "verbatim"  # word for word, white space aside
    MISREAD = "misread"  # nearly, and nowhere else nearly so
    AMBIGUOUS = "ambiguous"  # nearly, and other texts of the document are as near


@dataclass(frozen=True)
class Span:
    """Code points [start, end) of a text."""

    start: int
    end: int


@dataclass(frozen=True)
class Quote:
    """A part of an answer, and where the document says it."""

    kind: QuoteKind
    start: int  # code points [start, end) of the answer as the model wrote it
    end: int
    said: str  # what the model wrote there
    text: str  # what the document says; of an ambiguous quote, at the first place
    places: tuple[Span, ...]  # in the document, in order: the first `MOST_PLACES`; of an ambiguous quote, every one says something else


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
class _Word:
    text: str
    start: int
    end: int


def _words(text: str, start: int, end: int) -> Iterator[_Word]:
    return (_Word(match.group(), *match.span()) for match in _WORD.finditer(text, start, end))


def _plain(text: str) -> str:
    """With every run of white space as one space."""
    return re.sub(r"\s+", " ", text)


def _around(at: int, edits: int, text: str) -> range:
    return range(max(0, at - edits), min(len(text), at + edits) + 1)


def _begins(text: str, at: int) -> bool:
    """Whether a word may begin at code point `at`."""
    return _BEGIN.match(text, at) is not None


def _ends(text: str, at: int) -> bool:
    """Whether a word may end before code point `at`."""
    return _END.match(text, at) is not None


class _Source:
    """The document's text, searched within a budget of work."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._left = MOST_WORK

    def find(self, phrase: str, most: int) -> list[int] | None:
        """Where `phrase` stands, at most `most` places and one more; None when the budget is spent."""
        found: list[int] = []
        for begin in range(0, len(self.text), STRETCH):
            end = min(begin + STRETCH + len(phrase) - 1, len(self.text))
            if self._left < 0:
                return None
            self._left -= max(SEARCH, end - begin)
            at = self.text.find(phrase, begin, end)
            while at >= 0:
                found.append(at)
                if len(found) > most:
                    return found
                at = self.text.find(phrase, at + 1, end)
        return found

    def near(self, phrase: str, edits: int) -> dict[str, _Nearby] | None:
        """Every text of whole words within so many edits of `phrase`, white space aside, but of those that overlap the nearest is enough.
        None when that would be too much work, or `phrase` is too short for so many edits (near one place, all such texts must overlap).
        """
        if len(phrase) <= 3 * edits:
            return None
        plain, found = _plain(phrase), dict[str, _Nearby]()
        cuts = [len(phrase) * piece // (edits + 1) for piece in range(edits + 2)]
        looked_at: set[int] = set()
        for begin, end in pairwise(cuts):
            hits = self.find(phrase[begin:end], MOST_CANDIDATES)
            if hits is None or len(hits) + len(looked_at) > MOST_CANDIDATES:
                return None
            for start in {hit - begin for hit in hits} - looked_at:
                looked_at.add(start)
                if self._left < 0:
                    return None
                if (closest := self._closest(plain, len(phrase), start, edits)) is not None:
                    distance, span = closest
                    nearby = found.setdefault(_plain(self.text[span.start : span.end]), _Nearby(distance, set()))
                    nearby.places.add(span)
        return found

    def _closest(self, plain: str, length: int, start: int, edits: int) -> tuple[int, Span] | None:
        """Of the texts of whole words that begin and end within so many characters of [start, start + length), the one nearest `plain`."""
        text, best = self.text, None
        begins = [at for at in _around(start, edits, text) if _begins(text, at)]
        ends = [at for at in _around(start + length, edits, text) if _ends(text, at)]
        for begin, end in product(begins, ends):
            self._left -= max(COMPARISON, 16 * length)
            distance = Levenshtein.distance(plain, _plain(text[begin:end]), score_cutoff=edits)
            if distance <= edits and (best is None or distance < best[0]):
                best = distance, Span(begin, end)
        return best


@dataclass(frozen=True)
class _Nearby:
    """A text of the document that is near: its distance in edits, and its places."""

    distance: int
    places: set[Span]

    def told(self) -> tuple[Span, ...]:
        return tuple(sorted(self.places, key=lambda span: span.start))[:MOST_PLACES]


def _rivals(found: dict[str, _Nearby], text: str) -> list[_Nearby]:
    """What else is as near as `text`, or nearly so, in other places."""
    own = found[text]
    return [
        other
        for other in found.values()
        if other is not own
        and other.distance < own.distance + 2
        and not any(a.start < b.end and b.start < a.end for a in own.places for b in other.places)
    ]


@dataclass(frozen=True)
class _Run:
    """Words of the answer from number `first` on, beside the document's words at one place."""

    first: int
    said: tuple[_Word, ...]
    text: tuple[_Word, ...]

    @property
    def after(self) -> int:
        return self.first + len(self.said)

    @property
    def misread(self) -> list[int]:
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
            cut = min(loose or misread, key=lambda n: -abs(n - seed))  # the farthest: what is left has the most around the seed
            if cut < seed:
                run, seed = run.part(cut + 1, len(run.said)), seed - cut - 1
            else:
                run = run.part(0, cut)
        return run


class _Locator:
    """Goes through an answer from left to right: a run of the document's words, else a code, else the next word."""

    def __init__(self, text: str, answer: str, given: Sequence[str]) -> None:
        self._source, self._answer = _Source(text), answer
        self._words = list(_words(answer, 0, len(answer)))
        self._given = {word.text for other in given for word in _words(other, 0, len(other))}

    def quotes(self) -> Iterator[Quote]:
        free = at = 0  # the first word that no quote has yet, and the one looked at
        while at < len(self._words):
            run = self._run(at, free)
            if run is not None:
                yield from self._of_run(*run)
                free = at = run[0].after
                continue
            if (code := self._of_code(self._words[at])) is not None:
                yield code
                free = at + 1
            at += 1

    def _run(self, at: int, free: int) -> tuple[_Run, tuple[Span, ...]] | None:
        """The longest run through word `at`, of words from `free` on, and all its places."""
        for first, after in self._seeds(at, free):
            grown = [self._grown(first, last, start, free) for last, start in self._hits(first, after)]
            runs = [run for run in grown if self._is_telling(run)]
            if runs:
                best = max(runs, key=lambda run: (run.exact(0, len(run.said)), -len(run.misread)))
                words = [word.text for word in best.text]
                same = [run for run in runs if run.first == best.first and [word.text for word in run.text] == words]
                return best, tuple(Span(run.text[0].start, run.text[-1].end) for run in same)
        return None

    def _seeds(self, at: int, free: int) -> Iterator[tuple[int, int]]:
        """Words [first, after) of the answer that the document may say word for word."""
        words = self._words
        for after in range(at + 1, len(words) + 1):
            length = words[after - 1].end - words[at].start
            if length >= SHORTEST_RUN or (at == 0 and after == len(words) and length >= SHORTEST_ANSWER):
                yield at, after
                break
        if any(c.isdigit() for c in words[at].text):
            if len(words[at].text) >= SHORTEST_FIGURE:
                yield at, at + 1
            else:  # a short number with the word before or behind it
                yield from ([(at - 1, at + 1)] if at > free else [])
                yield from ([(at, at + 2)] if at + 2 <= len(words) else [])

    def _hits(self, first: int, after: int) -> Iterator[tuple[int, int]]:
        """Places of the seed, made longer until it is not too common: where it ends among the answer's words, and where it begins."""
        text = self._source.text
        while True:
            phrase = _plain(self._answer[self._words[first].start : self._words[after - 1].end])
            found = self._source.find(phrase, MOST_HITS) or []
            if len(found) <= MOST_HITS or after == len(self._words):
                break
            after += 1
        whole = first == 0 and after == len(self._words)
        if len(found) <= MOST_HITS or whole:
            yield from ((after, at) for at in found if _begins(text, at) and _ends(text, at + len(phrase)))

    def _grown(self, first: int, after: int, start: int, free: int) -> _Run:
        """The seed [first, after) at `start` of the document, with the words around it as far as they are near."""
        length = len(_plain(self._answer[self._words[first].start : self._words[after - 1].end]))
        seed = list(_words(self._source.text, start, start + length))
        left = self._neighbours(range(first - 1, free - 1, -1), start)
        right = self._neighbours(range(after, len(self._words)), start + length)
        begin, end = first - len(left), after + len(right)
        return _Run(begin, tuple(self._words[begin:end]), (*reversed(left), *seed, *right)).anchored(len(left))

    def _neighbours(self, numbers: range, at: int) -> list[_Word]:
        """The document's words from `at` on, or back, as long as they are near the answer's words of these numbers."""
        if not numbers:
            return []
        text, words, back = self._source.text, self._words, numbers.step < 0
        room = 2 * abs(words[numbers[-1]].start - words[numbers[0]].end) + 256
        theirs = reversed(list(_words(text, max(0, at - room), at))) if back else _words(text, at, at + room)
        found: list[_Word] = []
        for number, word in zip(numbers, theirs, strict=False):
            before, behind = (number, number + 1) if back else (number - 1, number)
            gap = self._answer[words[before].end : words[behind].start]
            their_gap = text[word.end : at] if back else text[at : word.start]
            if _plain(gap) != _plain(their_gap) or not self._is_near(words[number].text, word.text):
                break
            found.append(word)
            at = word.start if back else word.end
        return found

    def _is_near(self, said: str, word: str) -> bool:
        if said == word:
            return True
        most = max(1, min(len(said), len(word)) // 4)
        return said not in self._given and Levenshtein.distance(said, word, score_cutoff=most) <= most

    def _is_telling(self, run: _Run) -> bool:
        """Whether a run says enough to be marked."""
        said = self._answer[run.said[0].start : run.said[-1].end]
        if len(said) >= SHORTEST_RUN or len(run.said) == len(self._words):
            return True
        return len(said) >= SHORTEST_FIGURE and any(c.isdigit() for c in said)

    def _of_run(self, run: _Run, places: tuple[Span, ...]) -> Iterator[Quote]:
        """Its exact stretches and its misread words, in order."""
        misread = run.misread
        alone = misread and self._is_alone(run)
        bounds = [-1, *misread, len(run.said)]
        for before, behind in pairwise(bounds):
            if before >= 0 and alone:
                yield self._quote(QuoteKind.MISREAD, run, places, before, before + 1)
            if before + 1 < behind:
                yield self._quote(QuoteKind.VERBATIM, run, places, before + 1, behind)

    def _quote(self, kind: QuoteKind, run: _Run, places: tuple[Span, ...], first: int, after: int) -> Quote:
        start, end = run.said[first].start, run.said[after - 1].end
        begin = run.text[first].start - run.text[0].start
        length = run.text[after - 1].end - run.text[first].start
        spans = tuple(Span(place.start + begin, place.start + begin + length) for place in places[:MOST_PLACES])
        text = self._source.text[spans[0].start : spans[0].end]
        return Quote(kind, start, end, self._answer[start:end], text, spans)

    def _is_alone(self, run: _Run) -> bool:
        """Whether no other text of the document is as near to what the model wrote."""
        text, start = self._source.text, run.text[0].start
        own = text[start : run.text[-1].end]
        wrote = list(own)
        edits = 0
        for said, word in reversed(list(zip(run.said, run.text, strict=True))):
            wrote[word.start - start : word.end - start] = said.text
            edits += Levenshtein.distance(said.text, word.text)
        found = self._source.near("".join(wrote), edits + 1)
        return found is not None and _plain(own) in found and not _rivals(found, _plain(own))

    def _of_code(self, word: _Word) -> Quote | None:
        """A code that is nearly one of the document's; None when there is none, or too many to tell."""
        if word.text in self._given or not is_code(word.text):
            return None
        most = min(MOST_EDITS, len(word.text) // CODE_PER_EDIT)
        found = self._source.near(word.text, most + 1)
        if not found:
            return None
        text, nearest = min(found.items(), key=lambda item: item[1].distance)
        if nearest.distance > most or (len(text) == len(word.text) and text[:-COUNTED] == word.text[:-COUNTED]):
            return None
        if rivals := _rivals(found, text):
            places = _Nearby(0, set().union(nearest.places, *(rival.places for rival in rivals))).told()
            first = self._source.text[places[0].start : places[0].end]
            return Quote(QuoteKind.AMBIGUOUS, word.start, word.end, word.text, first, places)
        return Quote(QuoteKind.MISREAD, word.start, word.end, word.text, text, nearest.told())
