"""Made-up documents: prose with `key: value` fields among it, as contracts, forms and logs have them.

Everything is drawn from one random generator, so a seed names a document. Words and values are random: no question
about such a document can be answered without reading it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from glyph_rt.export.reader.values import Values
from glyph_rt.export.reader.vocabulary import FUNCTION_WORDS

# Between a key and its value in a sentence.
LINKS = [f" {link} " for link in "is|is|is|was|of|equals|stands at|is set to|amounts to|remains|shall be|now is".split("|")] + [" ("]
PRINTABLE = "".join(chr(c) for c in range(0x21, 0x7F))


@dataclass(frozen=True)
class Fact:
    """A field of a document: `text[start:start + len(value)] == value`, and `key` stands in front of it."""

    key: str
    value: str
    key_start: int
    start: int


@dataclass(frozen=True)
class Form:
    """How the fields of a listing are written: what stands around the key and the value.

    Between the two, `filler` is repeated until the values stand below each other. Lines of a log are stamped with a time, a level and a
    name.
    """

    before: str = ""
    left: str = ""
    filler: str = ""
    right: str = ""
    after: str = ""
    stamped: bool = False


LISTINGS = (
    Form(right="=", stamped=True),
    Form(right="="),
    Form(before='  "', right='": "', after='",'),
    Form(before="| ", filler=" ", right=" | ", after=" |"),
    Form(filler=" "),
    Form(left=" ", filler=".", right=" "),
)


@dataclass
class Draft:
    """A document being written: its text so far, the facts in it, and the keys it names without a value."""

    text: str = ""
    facts: list[Fact] = field(default_factory=list)
    hollow: list[str] = field(default_factory=list)

    def knows(self, key: str) -> bool:
        """Whether `key` is part of a key, or holds one."""
        low = key.lower()
        return any(low in other.lower() or other.lower() in low for other in (*(fact.key for fact in self.facts), *self.hollow))

    def add_fact(self, before: str, key: str, separator: str, value: str) -> None:
        key_start = len(self.text) + len(before)
        self.text += before + key + separator + value
        self.facts.append(Fact(key, value, key_start, key_start + len(key) + len(separator)))


class Writer(Values):
    """Writes documents from one vocabulary and one seed."""

    def absent_key(self, draft: Draft, text: str) -> str | None:
        """A key to which `text`, the beginning of the draft, gives no value: named in it, close to one in it, or any. None: not found."""
        rng = self.rng
        if draft.facts and self._falls(self.shares.near):
            key = self._near_key([fact.key for fact in draft.facts])
        else:
            kind = rng.random()
            if kind < 0.3 and draft.hollow:
                return rng.choice(draft.hollow)
            key = self.key()
            if kind < 0.7 and draft.facts:
                words = rng.choice(draft.facts).key.split(" ")
                if len(words) > 1:
                    words[rng.randrange(len(words))] = self.vocabulary.word(rng)
                    key = " ".join(words)
        return None if draft.knows(key) or key.lower() in text.lower() else key

    def _near_key(self, keys: Sequence[str]) -> str:
        """One of `keys` with another word, which may be another key's, in the place of one of its own; or with another digit."""
        rng = self.rng
        key = rng.choice(keys)
        digits = [i for i, character in enumerate(key) if character.isdigit()]
        if digits:
            at = rng.choice(digits)
            return key[:at] + rng.choice([digit for digit in string.digits if digit != key[at]]) + key[at + 1 :]
        words = re.split("([ _])", key)  # and what stands between them, at odd places
        at = rng.randrange(0, len(words), 2)
        other = rng.choice(re.split("[ _]", rng.choice(keys))) if rng.random() < 0.5 else self.vocabulary.word(rng)
        words[at] = other.upper() if words[at].isupper() else other.capitalize() if words[at].istitle() else other.lower()
        return "".join(words)

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

    def _mention(self, key: str) -> str:
        """A sentence that names the key and gives no value."""
        rng = self.rng
        article = rng.choice(("The", "This", "Each", "No", "Any", "For the", "Of the"))
        shown = key.lower() if rng.random() < 0.8 else key
        return f"{article} {shown} {self.word()} {rng.choice(FUNCTION_WORDS)} {self.word()}.\n"

    def _fact(self, draft: Draft, key: str, value: str) -> None:
        """A key and its value: a line of their own, a list item, or in the middle of a line or a sentence."""
        rng = self.rng
        mention = self._mention(key) if self._falls(self.shares.mentions) else ""
        before = mention != "" and rng.random() < 0.6
        if before and self._falls(self.shares.crossed):
            self._crossing(draft, key)
        else:
            draft.text += mention if before else ""
        if self._falls(self.shares.sentences):
            self._told_fact(draft, key, value)
        elif self._falls(self.shares.inline):
            self._inline_fact(draft, key, value)
        elif (place := rng.random()) < 0.78:
            draft.add_fact("", key, rng.choice((": ", ": ", ": ", ": ", ": ", ":  ", " = ")), value)
        elif place < 0.9:
            bullets = ("- ", "* ", "  ", "    ", f"{rng.randint(1, 20)}. ", f"{rng.randint(1, 9)}.{rng.randint(1, 9)} ")
            draft.add_fact(rng.choice(bullets), key, ": ", value)
        else:
            self._inline_fact(draft, key, value)
        draft.text += "\n" + ("" if before else mention)

    def _inline_fact(self, draft: Draft, key: str, value: str) -> None:
        """A key with its value behind other words of its line."""
        draft.add_fact(f"{self.rng.choice(FUNCTION_WORDS).capitalize()} {self.word()} ", key, ": ", value)
        draft.text += self.rng.choice(("", "", ".", f", {self.word()}"))

    def _key_in(self, draft: Draft) -> str:
        """Any key, or one close to an earlier one's."""
        if draft.facts and self._falls(self.shares.siblings):
            return self._near_key([fact.key for fact in draft.facts])
        return self.key()

    def _value_in(self, draft: Draft) -> str:
        """Any value, or one that begins like an earlier one's: its end is then found by its place, not by what was read last."""
        value = self.value()
        if value and draft.facts and self._falls(self.shares.echoes):
            begun = self.rng.choice(draft.facts).value[: self.rng.randint(1, 24)]
            value = " ".join((begun + value[self.rng.randrange(len(value)) :]).split()).rstrip(".,") or value
        return value

    def _crossing(self, draft: Draft, key: str) -> None:
        """Prose that ends with the key, and then another key with its value, which is not to be taken for this one's."""
        opening = self.sentence() if self.rng.random() < 0.5 else f"{self.word().capitalize()} {self.word()},"
        draft.text += f"{opening} {self.word()} {self.rng.choice(FUNCTION_WORDS)} the {key.lower()}.\n"
        other, value = self.key(), self.value()
        if value and not (draft.knows(other) or other.lower() in key.lower() or key.lower() in other.lower()):
            draft.add_fact("", other, ": ", value)
            draft.text += "\n"

    def _listing(self, draft: Draft) -> None:
        """Two to six fields in one of the forms that files and tables have."""
        rng = self.rng
        form, width = rng.choice(LISTINGS), rng.randint(14, 26)
        for _ in range(rng.randint(2, 6)):
            key, value = self._key_in(draft), self._value_in(draft)
            if not value or draft.knows(key):
                continue
            stamp = self._stamp() if form.stamped else ""
            if stamp and self._falls(self.shares.worded):
                stamp += f"{self.word()} " * rng.randint(1, 2)
            filler = form.filler * max(2, width - len(key))
            draft.add_fact(stamp + form.before, key, form.left + filler + form.right, value)
            draft.text += form.after + (rng.choice(("", "", f", {self.word()}", f" ({self.word()})")) if form.stamped else "") + "\n"

    def _stamp(self) -> str:
        rng = self.rng
        time = ":".join(f"{rng.randrange(most):02}" for most in (24, 60, 60))
        return f"{time} {rng.choice(('INFO', 'INFO', 'WARN', 'ERROR', 'DEBUG'))} {self.word()}{rng.choice((': ', ' - ', ' '))}"

    def _told_fact(self, draft: Draft, key: str, value: str) -> None:
        """A sentence that gives the value. What follows the value cannot be taken for a part of it."""
        rng = self.rng
        opening = rng.choice(("The ", "The ", "The ", "Its ", "A ", f"{self.sentence()} The ", f"For {self.word()}, the "))
        link = rng.choice(LINKS)
        shown = key.lower() if rng.random() < 0.5 else key
        draft.add_fact(opening, shown, link, value)
        tail = rng.choice((".", ".", ".", f", {self.word()} {self.word()}.", f"; {self.sentence().lower()}"))
        draft.text += (")" if link == " (" else "") + tail

    def _block(self, draft: Draft, fields: float) -> None:
        """Add one block: a field, a paragraph, a heading, a list item, a blank line or noise."""
        rng = self.rng
        draw = rng.random()
        if draw < fields:
            if self._falls(self.shares.listings):
                self._listing(draft)
                return
            key, value = self._key_in(draft), self._value_in(draft)
            if not value or draft.knows(key):
                return
            if self._falls(self.shares.hollow):
                draft.hollow.append(key)
                draft.text += self._mention(key)
            else:
                self._fact(draft, key, value)
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
        # Real text repeats words, and copying by content must survive it.
        self.pool = [self.vocabulary.word(rng) for _ in range(rng.randint(3, 12))] if rng.random() < 0.3 else []
        spaced = self._falls(self.shares.spaced)
        draft = Draft()
        while len(draft.text) < characters:
            self._block(draft, fields)
            draft.text += "\n" if spaced else ""
        return draft
