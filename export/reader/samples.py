"""Documents to training samples: pages, tokens, labels, and where on the pages every answer character stands.

A sample's token sequence is one conversation in the GLM format:

    [gMASK]<sop><|user|>\\n  (<|begin_of_image|> visual tokens <|end_of_image|>) per page
    question <|assistant|>\\n answer <|user|>\\n question <|assistant|>\\n answer <|user|> ...

The model is trained on the answers and on the <|user|> that ends each.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from glyph_rt.export.reader import tasks
from glyph_rt.export.reader.alphabet import ASSISTANT, NEWLINE, PAD, USER, encode
from glyph_rt.export.reader.documents import Draft, Fact, Writer
from glyph_rt.export.reader.looks import any_look
from numpy.typing import NDArray

from glyph_rt.typeset import Layout, Typesetter

IGNORE = -1
# Of fields before whose value a key that the document gives none is asked for. With 0.22, 94.5 % of what is missing was said to be (200
# questions); after 18 minutes with 0.32, which are half of the weights, 96.5 %.
ABSENT_SHARE = 0.32
# Of fields before whose value a line, a count or a comparison is asked for. Lines are long: with a third of the questions they were
# half of the characters to learn, and after 40 minutes 3 % of lines were right and fewer values than before.
OTHER_SHARE = 0.06


@dataclass(frozen=True)
class Shape:
    """What a batch holds. Tensor shapes follow from it alone, so that kernels compiled for one batch serve the next."""

    pages: int
    documents: int
    text_tokens: int
    transcribe: bool  # the documents are transcribed, or asked about
    rows: int | None = None  # at most so many lines of text in a document; None: as many as its pages hold
    fields: float = 0.45  # share of field lines: names, figures and identifiers among the prose
    vision: Literal["only", "trained", "frozen"] = "trained"  # whether the vision tower learns from it, or nothing else does
    looks: float = 0.0  # share of documents whose pages look otherwise than the typesetter draws them


@dataclass
class Batch:
    """Arrays of `documents` samples, all with the same number of pages."""

    shape: Shape
    patches: NDArray[np.uint8]  # [documents * pages, patches, 196]
    tokens: NDArray[np.int64]  # [documents, text_tokens]: what follows the last page
    labels: NDArray[np.int64]  # [documents, text_tokens]: the next token, or IGNORE
    cells: NDArray[np.int64]  # [documents, text_tokens]: visual token that holds the next character, or IGNORE
    slots: NDArray[np.int64]  # [documents, text_tokens]: which of that token's characters it is, or IGNORE
    characters: NDArray[np.int64]  # [documents * pages, visual tokens, 8]: the characters in each visual token
    answers: list[list[slice]]  # per document, the label positions of each answer


class SampleMaker:
    """Turns documents into samples on the pages of one typesetter, whose style must be a character grid."""

    def __init__(self, typesetter: Typesetter, writer: Writer) -> None:
        style = typesetter.style
        if style.cell_width is None or 28 % style.cell_width or 28 % style.px(style.line_height):
            raise ValueError("training needs a style whose character cells divide the 28 px of a visual token")
        self.typesetter, self.writer = typesetter, writer
        self.columns = style.width // style.cell_width
        self.rows = typesetter.rows
        self.token_columns, self.token_rows = 28 // style.cell_width, 28 // style.px(style.line_height)
        self.token_characters = self.token_columns * self.token_rows
        self.page_tokens = style.visual_tokens

    def batch(self, shape: Shape) -> Batch:
        samples = [self._sample(shape) for _ in range(shape.documents)]
        places = np.array([s.places for s in samples])
        return Batch(
            shape,
            patches=np.concatenate([s.patches for s in samples]),
            tokens=np.array([s.tokens for s in samples]),
            labels=np.array([s.labels for s in samples]),
            cells=np.where(places == IGNORE, IGNORE, places // self.token_characters),
            slots=np.where(places == IGNORE, IGNORE, places % self.token_characters),
            characters=np.concatenate([s.characters for s in samples]),
            answers=[s.answers for s in samples],
        )

    def _sample(self, shape: Shape) -> _Sample:
        rng = self.writer.rng
        while True:
            most = shape.pages * self.rows
            rows = rng.randint(most - self.rows + 1, most) if rng.random() < 0.5 else most
            if shape.rows is not None:
                rows = rng.randint(1, shape.rows)
            draft = self.writer.draft(rows * self.columns, shape.fields)
            end = int(self.typesetter.layout(draft.text).lines[:rows][-1, 1])
            text = draft.text[:end]
            facts = [fact for fact in draft.facts if fact.start + len(fact.value) <= end]
            layout = self.typesetter.layout(text)
            if layout.measure.pages != shape.pages or len(layout.lines) == 0 or not (shape.transcribe or facts):
                continue  # trailing blank lines fell away, or there is nothing to ask about
            sample = _Sample(shape, self, text, layout.lines)
            sample.patches = self._drawn(layout, shape.looks)
            if shape.transcribe:
                sample.transcribe(rng)
            else:
                rng.shuffle(facts)
                sample.ask(facts, draft, self.writer)
            return sample.padded()

    def _drawn(self, layout: Layout, looks: float) -> NDArray[np.uint8]:
        rng = self.writer.rng
        if rng.random() >= looks:
            return np.stack([page.patches for page in self.typesetter.draw(layout)])
        look = any_look(rng, self.typesetter.style)
        return np.stack([look.drawn(page) for page in look.typesetter.pages(layout.text)])


class _Sample:
    """One sample being put together."""

    def __init__(self, shape: Shape, maker: SampleMaker, text: str, lines: NDArray[np.int64]) -> None:
        self.shape, self.maker, self.text = shape, maker, text
        self.lines = [(int(a), int(b)) for a, b in lines[:, :2]]
        self.patches: NDArray[np.uint8]
        self.tokens: list[int] = []
        self.labels: list[int] = []
        self.places: list[int] = []
        self.answers: list[slice] = []
        # place_of[i]: where character i of the text stands: its visual token times characters per token, plus its place there;
        # at tasks.NOWHERE, the last, IGNORE
        self.place_of = np.full(len(text) + 1, IGNORE, np.int64)
        grid = np.full((shape.pages * maker.rows, maker.columns), encode(" ")[0], np.int64)
        width = maker.columns // maker.token_columns
        # break_of[i]: the cell behind line i, where a reader that goes on reading sees that it ends; full lines have none. Without it
        # nothing tells how many blank lines have been read.
        self.break_of: list[int] = []
        for row, (start, end) in enumerate(self.lines):
            page, row_in_page = divmod(row, maker.rows)
            column, column_in_token = np.divmod(np.arange(maker.columns), maker.token_columns)
            token = page * maker.page_tokens + row_in_page // maker.token_rows * width + column
            slot = row_in_page % maker.token_rows * maker.token_columns + column_in_token
            places = token * maker.token_characters + slot
            self.place_of[start:end] = places[: end - start]
            self.break_of.append(int(places[end - start]) if end - start < maker.columns else IGNORE)
            grid[row, : end - start] = encode(text[start:end])
        blocks = grid.reshape(shape.pages, maker.rows // maker.token_rows, maker.token_rows, width, maker.token_columns)
        self.characters = blocks.transpose(0, 1, 3, 2, 4).reshape(shape.pages, maker.page_tokens, -1)

    def transcribe(self, rng: Random) -> None:
        page = rng.randrange(self.shape.pages)
        rows = slice(page * self.maker.rows, (page + 1) * self.maker.rows)
        lines, breaks = self.lines[rows], self.break_of[rows]
        first = rng.randrange(len(lines)) if rng.random() < 0.4 else 0
        self._question(f"Transcribe page {page + 1}" + (f" from line {first + 1}." if first else "."), [])
        characters: list[tuple[str, int]] = []
        for row, (start, end) in list(enumerate(lines))[first:]:
            if row > first:
                characters.append(("\n", breaks[row - 1]))
            characters += [(self.text[i], int(self.place_of[i])) for i in range(start, end)]
        self._answer(characters)

    def ask(self, facts: list[Fact], draft: Draft, writer: Writer) -> None:
        """Question after question, as long as there is room: for the value of every field, for what the text does not hold, and others."""
        rng = writer.rng
        for fact in facts:
            if rng.random() < ABSENT_SHARE and (key := writer.absent_key(draft, self.text)):
                self._ask(tasks.absent(rng, key))
            if rng.random() < OTHER_SHARE:
                self._ask(self._other(facts, writer))
            self._ask(tasks.value(rng, fact))

    def _other(self, facts: list[Fact], writer: Writer) -> tasks.Asked | None:
        """A question for a line, a comparison or a count; words are counted on few pages only."""
        rng = writer.rng
        kind = rng.random()
        if kind < 0.07:
            phrase = " ".join(writer.word() for _ in range(rng.randint(1, 3)))
            return None if phrase.lower() in self.text.lower() else tasks.no_line(rng, phrase)
        if kind < 0.45:
            return tasks.line(rng, self.text, self.lines)
        if kind < 0.72 and self.shape.pages <= 2:
            return tasks.count(rng, self.text)
        return tasks.comparison(rng, facts)

    def _ask(self, asked: tasks.Asked | None) -> None:
        if asked is None or len(self.tokens) + len(asked.question + asked.answer) + 4 > self.shape.text_tokens:
            return
        if self.tokens:
            self._add([NEWLINE], [IGNORE])
        self._question(asked.question, [int(self.place_of[i]) for i in asked.looked])
        self._answer([(character, int(self.place_of[i])) for character, i in zip(asked.answer, asked.copied, strict=True)])

    def _add(self, tokens: list[int], places: list[int]) -> None:
        self.tokens += tokens
        self.labels += [IGNORE] * len(tokens)
        self.places += places

    def _question(self, text: str, places: list[int]) -> None:
        """`places` for every character of the question, or none."""
        places = places or [IGNORE] * len(text)
        self._add([*encode(text), ASSISTANT, NEWLINE], [*places, places[-1], IGNORE])

    def _answer(self, characters: list[tuple[str, int]]) -> None:
        first = len(self.tokens) - 1
        for token, place in (*((encode(c)[0], place) for c, place in characters), (USER, IGNORE)):
            self.labels[-1], self.places[-1] = token, place
            self._add([token], [IGNORE])
        self.answers.append(slice(first, len(self.tokens) - 1))

    def padded(self) -> _Sample:
        size = self.shape.text_tokens
        for field, fill in ((self.tokens, PAD), (self.labels, IGNORE), (self.places, IGNORE)):
            del field[size:]
            field += [fill] * (size - len(field))
        self.answers = [a for a in self.answers if a.stop <= size]
        return self
