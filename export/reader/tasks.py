"""What is asked of a document: each question with its answer, and where in the text a reader finds both.

The value of a key; the line that contains a phrase; how often a word is written; which of two figures is larger. What the document does
not hold has one answer, `ABSENT`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from glyph_rt.export.reader.documents import Fact
from glyph_rt.export.reader.questions import ABSENT, COMPARED, COUNTED, LINES, phrased

NOWHERE = -1
_FIGURE = re.compile(r"(\D*?)(\d[\d,]{0,8}(?:\.\d+)?)(\D*)")
_MOST = 6  # times a word is written that is asked about


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and a place in the text, or NOWHERE, for every character of both.

    looked: where a reader that knows the question up to this character finds what comes next. While a key is read, that is the key's next
    character; from its last on, the beginning of the answer. copied: where this character of the answer stands.
    """

    question: str
    looked: tuple[int, ...]
    answer: str
    copied: tuple[int, ...]


def value(rng: Random, fact: Fact, phrasings: tuple[str, ...] = ()) -> Asked:
    """The value of a key."""
    before, key, after = phrased(rng, fact.key, phrasings)
    looked = [*_nowhere(before), *_read(fact.key_start, key, fact.start), *[fact.start] * len(after)]
    return Asked(before + key + after, tuple(looked), fact.value, _copied(fact.start, fact.value))


def absent(rng: Random, key: str) -> Asked:
    """The value of a key that has none."""
    return _absent("".join(phrased(rng, key)))


def no_line(rng: Random, phrase: str, phrasings: tuple[str, ...] = LINES) -> Asked:
    """The line that contains a phrase which none contains."""
    return _absent(rng.choice(phrasings).format(phrase))


def _absent(question: str) -> Asked:
    return Asked(question, _nowhere(question), ABSENT, _nowhere(ABSENT))


def line(rng: Random, text: str, lines: Sequence[tuple[int, int]], phrasings: tuple[str, ...] = LINES) -> Asked | None:
    """The line, of those whose bounds are `lines`, that contains a phrase which the text holds once. None: none was found."""
    start, end = rng.choice(lines)
    words = [match.span() for match in re.finditer(r"\w+", text[start:end])]
    if len(words) < 2:
        return None
    first = rng.randrange(len(words))
    last = min(len(words) - 1, first + rng.randint(0, 2))
    at, phrase = start + words[first][0], text[start + words[first][0] : start + words[last][1]]
    if len(phrase) < 6 or text.lower().count(phrase.lower()) != 1:
        return None
    found = text[start:end].strip()
    begun = text.index(found, start)
    before, after = rng.choice(phrasings).split("{}")
    looked = [*_nowhere(before), *_read(at, phrase, begun), *[begun] * len(after)]
    return Asked(before + phrase + after, tuple(looked), found, _copied(begun, found))


def count(rng: Random, text: str, phrasings: tuple[str, ...] = COUNTED) -> Asked | None:
    """How often a word of four letters or more is written, in any case. Every number of times is asked about as often as any other.

    None: every word is written equally often.
    """
    times: dict[str, int] = defaultdict(int)
    for word in re.findall(r"\w+", text):
        times[word.lower()] += 1
    by_number: dict[int, list[str]] = defaultdict(list)
    for word, number in times.items():
        if len(word) >= 4 and word.isalpha() and number <= _MOST:
            by_number[number].append(word)
    if len(by_number) < 2:
        return None
    number = rng.choice(sorted(by_number))
    question = rng.choice(phrasings).format(rng.choice(by_number[number]))
    return Asked(question, _nowhere(question), str(number), _nowhere(str(number)))


def comparison(rng: Random, facts: Sequence[Fact], phrasings: tuple[tuple[str, bool], ...] = COMPARED) -> Asked | None:
    """Which of two figures is larger, or smaller: both, then the key of the one. None: no two can be compared."""
    figures = {fact.key: match.groups() for fact in facts if (match := _FIGURE.fullmatch(fact.value))}
    pairs = [
        (a, b)
        for a, b in combinations([fact for fact in facts if fact.key in figures], 2)
        if figures[a.key][::2] == figures[b.key][::2] and _number(figures[a.key][1]) != _number(figures[b.key][1])
    ]
    if not pairs:
        return None
    a, b = pair = rng.choice(pairs)
    if rng.random() < 0.5:
        a, b = b, a
    phrasing, larger = rng.choice(phrasings)
    before, between, after = phrasing.split("{}")
    looked = [
        *(*_nowhere(before), *_read(a.key_start, a.key, a.start)),
        *(*_nowhere(between), *_read(b.key_start, b.key, b.start), *[a.start] * len(after)),
    ]
    one = (max if larger else min)(pair, key=lambda fact: _number(figures[fact.key][1]))
    copied = [*_copied(a.start, a.value), *_nowhere(" and "), *_copied(b.start, b.value), *_nowhere(": "), *_copied(one.key_start, one.key)]
    return Asked(before + a.key + between + b.key + after, tuple(looked), f"{a.value} and {b.value}: {one.key}", tuple(copied))


def _number(figure: str) -> float:
    return float(figure.replace(",", ""))


def _nowhere(text: str) -> tuple[int, ...]:
    return (NOWHERE,) * len(text)


def _copied(start: int, text: str) -> tuple[int, ...]:
    return tuple(range(start, start + len(text)))


def _read(start: int, key: str, answer: int) -> list[int]:
    """Of the characters of `key`, which stands at `start`: the third knows where the fourth stands. Fewer say nothing."""
    places = [start + i + 1 for i in range(len(key) - 1)]
    places[:2] = _nowhere(key[:2])[: len(places)]
    return [*places, answer]
