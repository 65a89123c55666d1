"""How often made-up documents do what real ones do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """How often a writer does what makes reading harder.

    mentions: of keys that also stand in a sentence which gives no value.
    crossed: of the mentions before a key's own line, those that end a line of prose, with another key's line between the two.
    sentences: of facts told in a sentence, where no colon marks the value.
    long_values: of values that are UUIDs, long hexadecimal numbers or long rows of digits.
    hollow: of keys that stand in such a sentence only, and nowhere get a value.
    addresses: of values that are network or mail addresses, paths, versions, phone numbers, people, or figures with any unit.
    figures: of values that are plain whole numbers, which can be compared.
    spaced: of documents with a blank line behind every block.
    near: of keys without a value that are asked about, those besides that differ from one of the document in a word or in a digit.
    listings: of fields that stand with a few others in a table, in settings, in JSON or in a log.
    worded: of a log's lines, those that say something else before the key.
    inline: of facts that no sentence tells, those besides whose key stands in the middle of a line.
    siblings: of keys, those that differ from an earlier one of the document in a word or in a digit.
    repeating: of values, those that say a part of themselves again.
    coded: of keys, those besides that are numbers or codes.
    echoes: of values, those that begin like an earlier one of the document and end otherwise.
    """

    mentions: float = 0.0
    crossed: float = 0.0
    sentences: float = 0.0
    long_values: float = 0.0
    hollow: float = 0.0
    addresses: float = 0.0
    figures: float = 0.0
    spaced: float = 0.0
    near: float = 0.0
    listings: float = 0.0
    worded: float = 0.0
    inline: float = 0.0
    siblings: float = 0.0
    repeating: float = 0.0
    coded: float = 0.0
    echoes: float = 0.0


NONE = Shares()
