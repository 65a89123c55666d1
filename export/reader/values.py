"""Made-up words, keys and values: codes, amounts, dates, names, addresses."""

from __future__ import annotations

import random
import string
import uuid

from glyph_rt.export.reader.shares import NONE, Shares
from glyph_rt.export.reader.vocabulary import Vocabulary

ALPHABETS = (
    string.digits,
    string.digits,
    "0123456789abcdef",
    string.ascii_lowercase + "_",
    string.ascii_letters + string.digits,
    string.ascii_uppercase + string.digits,
)
MONTHS = "January February March April May June July August September October November December".split()


class Values:
    """Draws from one vocabulary and one seed."""

    def __init__(self, vocabulary: Vocabulary, seed: int, shares: Shares = NONE) -> None:
        self.vocabulary = vocabulary
        self.shares = shares
        self.rng = random.Random(seed)
        self.pool: list[str] = []  # words that are drawn again and again

    def identifier(self, length: int | None = None) -> str:
        rng = self.rng
        alphabet = rng.choice(ALPHABETS)
        return "".join(rng.choice(alphabet) for _ in range(length or rng.randint(3, 9)))

    def word(self) -> str:
        if self.pool and self.rng.random() < 0.7:
            return self.rng.choice(self.pool)
        return self.vocabulary.word(self.rng)

    def value(self) -> str:
        rng, digits = self.rng, self._digits
        if rare := self._rare_value():
            return rare
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

    def _rare_value(self) -> str | None:
        """One of those that have a share of their own."""
        if self._falls(self.shares.long_values):
            return self.long_value()
        if self._falls(self.shares.addresses):
            return self.address()
        if self._falls(self.shares.figures):
            return str(self.rng.randint(1, 10 ** self.rng.randint(1, 4)))
        if self._falls(self.shares.repeating):
            return self.repeating_value()
        return None

    def repeating_value(self) -> str:
        """A code or an invented word in which parts come again: what is read next does not follow from what was read last."""
        rng = self.rng
        if rng.random() < 0.4:
            parts = [self.vocabulary.invented(rng)[:5] for _ in range(rng.randint(1, 3))]
            return "".join(rng.choice(parts) for _ in range(rng.randint(2, 5)))
        alphabet, length = rng.choice(ALPHABETS), rng.randint(4, 14)
        value = rng.choice(alphabet)
        while len(value) < length:
            value += value[-rng.randint(1, 3) :] if rng.random() < 0.4 else rng.choice(alphabet)
        return value.strip("_") or "00"

    def long_value(self) -> str:
        """A UUID, or a row of hexadecimal or decimal digits: the known weakness of this model family."""
        kind = self.rng.randrange(3)
        if kind == 0:
            return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        if kind == 1:
            return f"{self.rng.getrandbits(4 * 24):024x}"[: self.rng.choice((8, 12, 16, 24))]
        return self._digits(self.rng.randint(8, 20))

    def address(self) -> str:
        """Of a machine, a person or a place, or a figure with a unit that is no word."""
        rng, word, digits = self.rng, self.word, self._digits
        kind = rng.randrange(8)
        if kind == 0:
            return ".".join(str(rng.randrange(256)) for _ in range(4)) + rng.choice(
                ("", "", f"/{rng.randrange(33)}", f":{rng.randrange(65536)}")
            )
        if kind == 1:
            return rng.choice(("", "v")) + ".".join(str(rng.randrange(30)) for _ in range(rng.randint(2, 4)))
        if kind == 2:
            return "-".join(digits(rng.randint(2, 4)) for _ in range(rng.randint(2, 4)))
        if kind == 3:
            return f"{word().lower()}@{word().lower()}.{rng.choice(('com', 'org', 'example', 'net'))}"
        if kind == 4:
            return "/" + "/".join(word().lower() for _ in range(rng.randint(2, 3))) + rng.choice(("", ".txt", ".log", ".db"))
        if kind == 5:
            title, initial = rng.choice(("", "", "Ms ", "Mr ", "Dr ")), rng.choice(("", f"{self._letters(1)}. "))
            return f"{title}{word().capitalize()} {initial}{word().capitalize()}"
        if kind == 6:
            unit = "".join(rng.choice(string.ascii_letters) for _ in range(rng.randint(1, 3))) + rng.choice(("", "/h", "2", "/s"))
            return f"{rng.randint(1, 999)}{rng.choice(('', f'.{digits(1)}'))} {unit}"
        return f"{word()}.{word()}".lower() if rng.random() < 0.5 else f"{word().capitalize()} {rng.randint(1, 99)}"

    def key(self) -> str:
        rng = self.rng
        if self._falls(self.shares.coded) or rng.random() < 0.1:
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

    def _falls(self, share: float) -> bool:
        """True for the given share of calls. A share of 0 draws nothing, so that seeds go on naming the same documents."""
        return share > 0 and self.rng.random() < share

    def _digits(self, count: int) -> str:
        return "".join(self.rng.choice(string.digits) for _ in range(count))

    def _letters(self, count: int) -> str:
        return "".join(self.rng.choice(string.ascii_uppercase) for _ in range(count))
