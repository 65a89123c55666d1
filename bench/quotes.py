"""What exact quotes are worth, and what they cost: copied values before and after, wrong corrections, and the time of looking.

    python bench/quotes.py [--model DIR] [--size 200] [--made 2000] [--rounds 5] [--json FILE]

1. The reader on held-out documents: values, and transcripts, as it wrote them and with exact quotes; how many were changed, and how many
   wrongly: not even nearer to what is right.
2. Made misreadings, which no reader is needed for: codes and plain values of held-out documents with 1 to 10 % of their characters
   replaced, left out or doubled at random. And the two ways to be wrong: values that are one character away from the document's but
   truly meant, and answers about another document.
3. Seconds of looking, in documents of 100 kB and of 16 MiB. Bound: the one search through the text without which nothing is found.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glyph_rt.export.reader import held_out
from glyph_rt.export.reader.documents import Fact, Writer
from glyph_rt.export.reader.shares import Shares
from glyph_rt.export.reader.vocabulary import HELD_OUT
from rapidfuzz.distance.Levenshtein import distance

from glyph_rt import Runtime, evaluate
from glyph_rt.evaluate import Question
from glyph_rt.evaluate.metrics import character_accuracy, interval, wilson
from glyph_rt.evaluate.ocr import Transcripts
from glyph_rt.memory.limits import MIB
from glyph_rt.quotes import corrected, locate
from glyph_rt.typeset import Typesetter

RATES = (0.01, 0.02, 0.05, 0.1)
FORMS = {  # of values, the first that fits
    "UUID": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "digits, 12 to 20": r"\d{12,20}",
    "hex, 12 to 24": r"[0-9a-f]{12,24}",
    "8 to 11 digits or hex": r"[0-9a-f]{8,11}",
    "plain": r".*",
}


@dataclass(frozen=True)
class Case:
    """One answer about a document."""

    text: str
    question: str
    said: str
    expected: str  # what is right; of a value that is meant as it is, itself

    @property
    def exact(self) -> str:
        return corrected(self.said, locate(self.text, self.said, [self.question]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=200, help="questions of a kind")
    parser.add_argument("--made", type=int, default=2000, help="made values of a kind")
    parser.add_argument("--rounds", type=int, default=5, help="of every timing")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with Runtime.open(options.model, encoder="torch") as runtime:
        figures["reader"] = {"model": runtime.checkpoint.digest[:16], **of_reader(runtime, options.size)}
    figures["made"] = of_made(options.made)
    figures["time"] = of_time(options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


# -- 1. the reader


def of_reader(runtime: Runtime, size: int) -> dict[str, Any]:
    print("answers of the reader: as written, with exact quotes; what was changed")
    t = runtime.typesetter
    asked = {
        "plain values, 1 to 4 pages": held_out.questions(t, size, (1, 2, 3, 4)),
        "plain values, 8 pages": held_out.questions(t, size // 2, (8,), seed=20_008),
        "not in the document": held_out.absent_questions(t, size // 2, (1, 2, 4, 8)),
    }
    # A third of long values are UUIDs, the others of one kind or the other by length.
    long_values = held_out.questions(t, 3 * size, (1, 2), 23_001, Shares(long_values=1.0))
    for name in list(FORMS)[:-1]:
        asked[name] = [question for question in long_values if form(question.expected) == name]
    figures = {name: changes(name, list(cases(runtime, questions))) for name, questions in asked.items()}
    return figures | {"transcripts": of_transcripts(runtime, t, max(1, size // 8))}


def cases(runtime: Runtime, questions: Sequence[Question]) -> Iterator[Case]:
    for question, said in zip(questions, evaluate.answers(runtime, questions), strict=True):
        yield Case(question.text, question.question, said, question.expected)


def of_transcripts(runtime: Runtime, typesetter: Typesetter, size: int) -> dict[str, Any]:
    questions = list(Transcripts(typesetter, held_out.texts_to_transcribe(typesetter, size)).questions())
    found = list(cases(runtime, questions))
    before = interval([character_accuracy(case.said, case.expected) for case in found])
    after = interval([character_accuracy(case.exact, case.expected) for case in found])
    print(f"{'characters of transcripts':28}{before!s:26}{after!s:26}")
    return {"before": vars(before), "after": vars(after)} | changes("pages of transcripts", found)


def changes(name: str, found: list[Case]) -> dict[str, Any]:
    """How many are right before and after, and of those that were changed, how many came nearer to what is right without reaching it, and
    how many did not even that."""
    triples = [(case.said, case.exact, case.expected) for case in found]
    changed = [triple for triple in triples if triple[0] != triple[1]]
    counts = {
        "answers": len(triples),
        "right before": sum(said == expected for said, _, expected in triples),
        "right after": sum(exact == expected for _, exact, expected in triples),
        "changed": len(changed),
        "nearer": sum(0 < distance(exact, expected) < distance(said, expected) for said, exact, expected in changed),
        "wrongly": sum(distance(exact, expected) >= distance(said, expected) for said, exact, expected in changed),
    }
    if triples:
        told = "".join(f"{wilson(counts[key], len(triples))!s:26}" for key in ("right before", "right after"))
        print(f"{name:28}{told}{', '.join(f'{counts[key]} {key}' for key in ('changed', 'nearer', 'wrongly'))}, of {len(triples)}")
    return counts


def form(value: str) -> str:
    return next(name for name, pattern in FORMS.items() if re.fullmatch(pattern, value))


# -- 2. made misreadings


def of_made(size: int) -> dict[str, Any]:
    chance = random.Random(5)
    documents = list(written(size // 10, Shares(long_values=0.5)))
    facts: dict[str, list[tuple[str, Fact]]] = {name: [] for name in FORMS}
    for text, told in documents:
        for fact in told:
            facts[form(fact.value)].append((text, fact))
    figures: dict[str, Any] = {}
    print(f"made misreadings in {len(documents)} documents of some 3,000 characters: right before, right after")
    for name, known in facts.items():
        for rate in RATES:
            made = [misread(fact, text, rate, chance) for text, fact in chance.choices(known, k=size)]
            figures[f"{name}, {rate:.0%} of characters"] = changes(f"{name}, {rate:.0%}", made)
    for rate in RATES[:2]:
        made = [misread(lines(text, chance), text, rate, chance) for text, _ in documents]
        figures[f"lines, {rate:.0%}"] = changes(f"some 400 characters, {rate:.0%}", made)
    print("values one character away from the document's, and truly meant: right before, right after")
    for name, known in facts.items():
        meant = [another(fact, text, chance) for text, fact in chance.choices(known, k=size)]
        figures[f"{name}, meant"] = changes(name, [case for case in meant if case.said not in case.text])
    others = [text[:600] for text, _ in written(size // 10, Shares(long_values=0.5), seed=10_000)]
    strange = [Case(text, "", other, other) for (text, _), other in zip(documents, others, strict=True)]
    figures["of another document"] = changes("600 characters of another", strange)
    return figures


def written(count: int, shares: Shares, seed: int = 50_000) -> Iterator[tuple[str, list[Fact]]]:
    for number in range(count):
        draft = Writer(HELD_OUT, seed + number, shares).draft(3000, 0.4)
        yield draft.text, draft.facts


def lines(text: str, chance: random.Random) -> Fact:
    """Whole lines of a text, of some 400 characters."""
    start = text.rfind("\n", 0, chance.randrange(len(text) - 500)) + 1
    return Fact("these lines", text[start : text.find("\n", start + 350)], 0, start)


def misread(fact: Fact, text: str, rate: float, chance: random.Random) -> Case:
    said = "".join(replaced(c, chance) if chance.random() < rate else c for c in fact.value)
    return Case(text, f"What is the value of {fact.key}?", said, fact.value)


def replaced(character: str, chance: random.Random) -> str:
    """Another of its kind, none, or two."""
    return chance.choice([another_like(character, chance), "", character + another_like(character, chance)])


def another(fact: Fact, text: str, chance: random.Random) -> Case:
    at = chance.choice([n for n, c in enumerate(fact.value) if c.isalnum()] or [0])
    said = fact.value[:at] + another_like(fact.value[at], chance) + fact.value[at + 1 :]
    return Case(text, f"What is the value of {fact.key}?", said, said)


def another_like(character: str, chance: random.Random) -> str:
    kinds = ("0123456789abcdef",) if character in "abcdef" else ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    kind = next((kind for kind in kinds if character in kind), "-/.:_ ")
    return chance.choice([c for c in kind if c != character])


# -- 3. time


def of_time(rounds: int) -> dict[str, Any]:
    print("seconds of looking for an answer: median and largest; the search of a text through the document")
    megabyte = "".join(text for text, _ in written(340, Shares(long_values=0.2)))
    small, large = megabyte[:100_000], (megabyte * 17)[: 16 * MIB - 100]
    code = "13f64c95-88c3-46ae-9370-730b40f7c594"
    page = small[50_000:52_000]
    answers = {
        "a value that is there": "90 days",
        "a UUID": code,
        "a misread UUID": code[:-1],
        "a transcript": page,
        "a misread transcript": re.sub(r"(?<=\w\w)e(?=\w\w)", "c", page),
        "2,000 characters of another": next(written(1, Shares(), seed=10_000))[0][:2000],
    }
    figures: dict[str, Any] = {}
    for size, text in (("100 kB", small), ("16 MiB", large)):
        text += f"\nperiod: 90 days\nid: {code}\n"
        floor = statistics.median(timed(lambda t=text: t.find("q0q0q0q0")) for _ in range(rounds))  # type: ignore[misc]
        for name, answer in answers.items():
            seconds = [timed(lambda t=text, a=answer: locate(t, a)) for _ in range(rounds)]  # type: ignore[misc]
            figures[f"{name}, {size}"] = {"median_s": statistics.median(seconds), "most_s": max(seconds), "search_s": floor}
            print(f"{name + ', ' + size:36}{statistics.median(seconds):8.4f} {max(seconds):8.4f} {floor:8.4f}")
    return figures


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
