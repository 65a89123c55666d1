"""What the reader is judged on: documents from another vocabulary and other seeds than any it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from glyph_rt.export.reader.documents import Fact, Writer
from glyph_rt.export.reader.vocabulary import HELD_OUT

from glyph_rt.evaluate import Question
from glyph_rt.typeset import Typesetter


def questions(typesetter: Typesetter, count: int, pages: Sequence[int] = (1, 2, 3, 4), seed: int = 20_001) -> list[Question]:
    """`count` questions about `key: value` fields among prose, spread evenly over the page counts, two to a document."""
    writer = Writer(HELD_OUT, seed)
    out: list[Question] = []
    for number, page_count in enumerate(pages):
        wanted = count * (number + 1) // len(pages)
        while len(out) < wanted:
            text, facts = _document(writer, typesetter, page_count)
            plain = [fact for fact in facts if text[fact.start - 2 : fact.start] == ": "]
            for fact in writer.rng.sample(plain, min(2, len(plain), wanted - len(out))):
                out.append(Question(text, f"What is the value of {fact.key}?", fact.value, page_count))
    return out


def pages_to_transcribe(typesetter: Typesetter, count: int, seed: int = 30_001) -> list[str]:
    """`count` texts of exactly one page, most of them full."""
    writer = Writer(HELD_OUT, seed)
    return [_document(writer, typesetter, 1)[0] for _ in range(count)]


def _document(writer: Writer, typesetter: Typesetter, pages: int) -> tuple[str, list[Fact]]:
    """A text that fills `pages` pages to a random line of the last, and the facts that stand whole in it."""
    columns = typesetter.style.width // (typesetter.style.cell_width or 7)
    while True:
        rows = writer.rng.randint((pages - 1) * typesetter.rows + typesetter.rows // 2, pages * typesetter.rows)
        draft = writer.draft(rows * columns, 0.35)
        end = int(typesetter.layout(draft.text).lines[:rows][-1, 1])
        text = draft.text[:end]
        facts = [fact for fact in draft.facts if fact.start + len(fact.value) <= end]
        if facts and typesetter.measure(text).pages == pages:
            return text, facts
