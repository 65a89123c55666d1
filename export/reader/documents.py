"""Made-up documents: prose with `key: value` fields among it, as contracts, forms and logs have them.

Everything is drawn from one random generator, so a seed names a document. Words and values are random: no question
about such a document can be answered without reading it.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field

from glyph_rt.export.reader.vocabulary import FUNCTION_WORDS, Vocabulary

ALPHABETS = (
    string.digits,
    string.digits,
    "0123456789abcdef",
    string.ascii_lowercase + "_",
    string.ascii_letters + string.digits,
    string.ascii_uppercase + string.digits,
)
MONTHS = "January February March April May June July August September October November December".split()
PRINTABLE = "".join(chr(c) for c in range(0x21, 0x7F))


@dataclass(frozen=True)
class Fact:
    """A field of a document: `text[start:start + len(value)] == value`, and `key` stands in front of it."""

    key: str
    value: str
    key_start: int
    start: int


@dataclass
class Draft:
    """A document being written: its text so far and the facts in it."""

    text: str = ""
    facts: list[Fact] = field(default_factory=list)

    def add_fact(self, before: str, key: str, separator: str, value: str) -> None:
        key_start = len(self.text) + len(before)
        self.text += before + key + separator + value
        self.facts.append(Fact(key, value, key_start, key_start + len(key) + len(separator)))


class Writer:
    """Writes documents from one vocabulary and one seed. The share `mentions` of keys also stands in a sentence, where no value follows."""

    def __init__(self, vocabulary: Vocabulary, seed: int, mentions: float = 0.0) -> None:
        self.vocabulary = vocabulary
        self.mentions = mentions
        self.rng = random.Random(seed)
        self._pool: list[str] = []  # words a document repeats: real text does, and copying by content must survive it

    # -- words and values

    def identifier(self, length: int | None = None) -> str:
        rng = self.rng
        alphabet = rng.choice(ALPHABETS)
        return "".join(rng.choice(alphabet) for _ in range(length or rng.randint(3, 9)))

    def word(self) -> str:
        if self._pool and self.rng.random() < 0.7:
            return self.rng.choice(self._pool)
        return self.vocabulary.word(self.rng)

    def value(self) -> str:
        rng, digits = self.rng, self._digits
        kind = rng.randrange(12)
        if kind == 0:
            return f"{self._letters(rng.randint(1, 3))}-{digits(rng.randint(2, 6))}"
        if kind == 1:
            return digits(rng.randint(1, 9))
        if kind == 2:
            amount = f"{rng.randint(1, 999)},{digits(3)}" if rng.random() < 0.6 else digits(rng.randint(1, 5))
            amount += rng.choice(("", "", f".{digits(2)}"))
            return rng.choice(("EUR ", "USD ", "GBP ", "$", "CHF ", "")) + amount
        if kind == 3:
            return f"{rng.randint(1950, 2039)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        if kind == 4:
            return f"{rng.randint(1, 30)} {rng.choice(MONTHS)} {rng.randint(1980, 2039)}"
        if kind == 5:
            return f"{digits(rng.randint(1, 4))}{rng.choice(('', '.' + digits(1)))} " + rng.choice(
                ("days", "months", "kg", "m", "mm", "V", "kW", "hours", "bar", "%", "pages", "units", "percent", "km", "C")
            )
        if kind == 6:
            return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
        if kind == 7:
            return self.vocabulary.word(rng)
        if kind == 8:
            return f"{self.vocabulary.word(rng)} {self.vocabulary.word(rng)}".title()
        if kind == 9:
            return f"{self._letters(rng.randint(2, 4))}/{digits(rng.randint(2, 4))}/{self._letters(1)}{digits(2)}"
        return self.identifier()

    def key(self) -> str:
        rng = self.rng
        kind = rng.random()
        if kind < 0.1:
            return self.identifier(rng.randint(3, 8)).strip("_") or "id"
        words = [rng.choice(self.vocabulary.nouns) if rng.random() < 0.4 else self.word() for _ in range(rng.choice((1, 2, 2, 2, 3)))]
        if len(words) > 1 and rng.random() < 0.3:
            words[0] = rng.choice(self.vocabulary.adjectives)
        case = rng.random()
        if case < 0.5:
            return " ".join(words).lower()
        if case < 0.7:
            return " ".join(words).capitalize()
        if case < 0.8:
            return " ".join(words).title()
        if case < 0.9:
            return "_".join(words).upper() if case < 0.85 else " ".join(words).upper()
        return "_".join(words).lower()

    def _digits(self, count: int) -> str:
        return "".join(self.rng.choice(string.digits) for _ in range(count))

    def _letters(self, count: int) -> str:
        return "".join(self.rng.choice(string.ascii_uppercase) for _ in range(count))

    # -- sentences and blocks

    def sentence(self) -> str:
        rng, v = self.rng, self.vocabulary
        words: list[str] = []
        for _ in range(rng.randint(1, 3)):
            words.append(rng.choice(FUNCTION_WORDS))
            if rng.random() < 0.4:
                words.append(rng.choice(v.adjectives))
            words += [rng.choice(v.nouns) if rng.random() < 0.25 else self.word(), rng.choice(FUNCTION_WORDS)]
            words.append(rng.choice(v.verbs) if rng.random() < 0.25 else self.word())
            if rng.random() < 0.12:
                words.append(self.identifier(rng.randint(1, 6)))
            if rng.random() < 0.15:
                words[-1] += ","
        text = " ".join(words)
        if rng.random() < 0.08:
            text = f"({text})"
        return text[:1].upper() + text[1:] + rng.choice("......;:?!")

    def paragraph(self) -> str:
        return " ".join(self.sentence() for _ in range(self.rng.randint(1, 3)))

    def _block(self, draft: Draft, fields: float) -> None:
        """Add one block: a field, a paragraph, a heading, a list item, a blank line or noise."""
        rng = self.rng
        draw = rng.random()
        if draw < fields:
            key, value = self.key(), self.value()
            taken = {fact.key.lower() for fact in draft.facts}
            if not value or any(key.lower() in other or other in key.lower() for other in taken):
                return
            mention, before = "", False
            if self.mentions and rng.random() < self.mentions:
                article = rng.choice(("The", "This", "Each", "No", "Any", "For the", "Of the"))
                shown = key.lower() if rng.random() < 0.8 else key
                mention = f"{article} {shown} {self.word()} {rng.choice(FUNCTION_WORDS)} {self.word()}.\n"
                before = rng.random() < 0.6
            draft.text += mention if before else ""
            place = rng.random()
            if place < 0.78:
                draft.add_fact("", key, rng.choice((": ", ": ", ": ", ": ", ": ", ":  ", " = ")), value)
            elif place < 0.9:
                bullets = ("- ", "* ", "  ", "    ", f"{rng.randint(1, 20)}. ", f"{rng.randint(1, 9)}.{rng.randint(1, 9)} ")
                draft.add_fact(rng.choice(bullets), key, ": ", value)
            else:
                draft.add_fact(f"{rng.choice(FUNCTION_WORDS).capitalize()} {self.word()} ", key, ": ", value)
                draft.text += rng.choice(("", "", ".", f", {self.word()}"))
            draft.text += "\n" + ("" if before else mention)
            return
        draw = rng.random()
        if draw < 0.62:
            draft.text += self.paragraph() + "\n"
        elif draw < 0.72:
            draft.text += f"{rng.randint(1, 12)}. {self.word().capitalize()} {self.word()}\n"
        elif draw < 0.80:
            draft.text += f"- {self.sentence()}\n"
        elif draw < 0.90:
            draft.text += "\n"
        elif draw < 0.96:
            draft.text += " ".join(self.word() for _ in range(rng.randint(1, 9))) + "\n"
        else:
            draft.text += "".join(rng.choice(PRINTABLE + " ") for _ in range(rng.randint(3, 38))).strip() + "\n"

    def draft(self, characters: int, fields: float) -> Draft:
        """At least `characters` of text, with about the share `fields` of its blocks being facts."""
        rng = self.rng
        self._pool = [self.vocabulary.word(rng) for _ in range(rng.randint(3, 12))] if rng.random() < 0.3 else []
        draft = Draft()
        while len(draft.text) < characters:
            self._block(draft, fields)
        return draft
