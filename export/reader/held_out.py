"""What the reader is judged on: documents from another vocabulary and other seeds than any it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glyph_rt.export.reader import tasks
from glyph_rt.export.reader.documents import Draft, Fact, Writer
from glyph_rt.export.reader.questions import ABSENT, COUNTED, LINES, phrased
from glyph_rt.export.reader.shares import NONE, Shares
from glyph_rt.export.reader.tasks import Asked
from glyph_rt.export.reader.vocabulary import HELD_OUT

from glyph_rt.evaluate import Question
from glyph_rt.typeset import Typesetter

AS_EVER = "What is the value of {}?"  # the phrasing of version 0
AS_EVER_COMPARED = (("Which is larger, {} or {}?", True), ("Which is smaller, {} or {}?", False))


def questions(
    typesetter: Typesetter,
    count: int,
    pages: Sequence[int] = (1, 2, 3, 4),
    seed: int = 20_001,
    shares: Shares = NONE,
    phrasings: tuple[str, ...] | None = None,
) -> list[Question]:
    """`count` questions about fields among prose, spread evenly over the page counts, two to a document.

    What `shares` ask for is asked about alone: facts told in sentences or listed, or long values; else `key: value` lines. Without
    `phrasings` every question is put in the words of version 0 and in the document's case; with them, in any of theirs and in any case.
    """
    writer = Writer(HELD_OUT, seed, shares)
    out: list[Question] = []
    for number, page_count in enumerate(pages):
        wanted = count * (number + 1) // len(pages)
        while len(out) < wanted:
            text, facts, _ = _document(writer, typesetter, page_count)
            plain = [fact for fact in facts if shares.sentences or shares.listings or text[fact.start - 2 : fact.start] == ": "]
            for fact in writer.rng.sample(plain, min(2, len(plain), wanted - len(out))):
                asked = "".join(phrased(writer.rng, fact.key, phrasings)) if phrasings else AS_EVER.format(fact.key)
                depth = fact.start * 5 // len(text) / 5  # the fifth of the text that it stands in
                out.append(
                    Question(text, asked, fact.value, page_count, f"{page_count}/{len(out)}", axes={"pages": page_count, "depth": depth})
                )
    return out


def absent_questions(typesetter: Typesetter, count: int, pages: Sequence[int], seed: int = 40_001) -> list[Question]:
    """`count` questions for keys that the document gives no value: some it names, some are close to one that it has."""
    writer = Writer(HELD_OUT, seed, Shares(mentions=0.25, hollow=0.15))
    out: list[Question] = []
    for number, page_count in enumerate(pages):
        wanted = count * (number + 1) // len(pages)
        while len(out) < wanted:
            text, _, draft = _document(writer, typesetter, page_count)
            if key := writer.absent_key(draft, text):
                asked = AS_EVER.format(key)
                out.append(Question(text, asked, ABSENT, page_count, f"{page_count}/{len(out)}", axes={"pages": page_count}))
    return out


def lines(typesetter: Typesetter, count: int, pages: Sequence[int] = (1, 2, 3, 4), seed: int = 41_001) -> list[Question]:
    """`count` questions for the line that contains a phrase."""
    writer = Writer(HELD_OUT, seed)

    def ask(text: str, facts: list[Fact]) -> Asked | None:
        rows = [(int(start), int(end)) for start, end in typesetter.layout(text).lines[:, :2]]
        return tasks.line(writer.rng, text, rows, LINES[:1])

    return _asked(writer, typesetter, count, pages, ask)


def counts(typesetter: Typesetter, count: int, pages: Sequence[int] = (1, 2), seed: int = 42_001) -> list[Question]:
    """`count` questions for how often a word is written."""
    writer = Writer(HELD_OUT, seed)
    return _asked(writer, typesetter, count, pages, lambda text, facts: tasks.count(writer.rng, text, COUNTED[:1]))


def comparisons(typesetter: Typesetter, count: int, pages: Sequence[int] = (1, 2, 3, 4), seed: int = 43_001) -> list[Question]:
    """`count` questions for which of two figures is larger, or smaller."""
    writer = Writer(HELD_OUT, seed, Shares(figures=0.3))
    return _asked(writer, typesetter, count, pages, lambda text, facts: tasks.comparison(writer.rng, facts, AS_EVER_COMPARED))


def _asked(
    writer: Writer, typesetter: Typesetter, count: int, pages: Sequence[int], ask: Callable[[str, list[Fact]], Asked | None]
) -> list[Question]:
    """`count` questions, spread evenly over the page counts, one to a document of which one can be asked."""
    out: list[Question] = []
    for number, page_count in enumerate(pages):
        wanted = count * (number + 1) // len(pages)
        while len(out) < wanted:
            text, facts, _ = _document(writer, typesetter, page_count)
            if asked := ask(text, facts):
                at = {"pages": page_count}
                out.append(Question(text, asked.question, asked.answer, page_count, f"{page_count}/{len(out)}", axes=at, max_new_tokens=96))
    return out


def texts_to_transcribe(typesetter: Typesetter, count: int, pages: int = 1, seed: int = 30_001) -> list[str]:
    """`count` texts of exactly so many pages, the last of which is at least half full."""
    writer = Writer(HELD_OUT, seed)
    return [_document(writer, typesetter, pages)[0] for _ in range(count)]


def _document(writer: Writer, typesetter: Typesetter, pages: int) -> tuple[str, list[Fact], Draft]:
    """A text that fills `pages` pages to a random line of the last, the facts that stand whole in it, and the draft it begins."""
    columns = typesetter.style.width // (typesetter.style.cell_width or 7)
    while True:
        rows = writer.rng.randint((pages - 1) * typesetter.rows + typesetter.rows // 2, pages * typesetter.rows)
        draft = writer.draft(rows * columns, 0.35)
        end = int(typesetter.layout(draft.text).lines[:rows][-1, 1])
        text = draft.text[:end]
        facts = [fact for fact in draft.facts if fact.start + len(fact.value) <= end]
        if facts and typesetter.measure(text).pages == pages:
            return text, facts, draft
