"""Suites: what `glyph-rt eval` runs, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.errors import InputError
from glyph_rt.evaluate.longbench import LongBench
from glyph_rt.evaluate.mrcr import Mrcr
from glyph_rt.evaluate.needle import NeedleGrid
from glyph_rt.evaluate.ocr import Transcripts
from glyph_rt.evaluate.report import Bar
from glyph_rt.evaluate.ruler import FAMILIES, RulerFile, RulerStyle
from glyph_rt.evaluate.task import EXACT, Question, Score, Task, exact
from glyph_rt.export.reader import held_out
from glyph_rt.export.reader.questions import HELD_OUT as HELD_OUT_PHRASINGS
from glyph_rt.export.reader.shares import Shares
from glyph_rt.memory.limits import MIB
from glyph_rt.texts import read_text
from glyph_rt.typeset import Typesetter


@dataclass(frozen=True)
class Exact:
    """Questions with one right answer each, made by `make` at every call."""

    name: str
    make: Callable[[], Sequence[Question]]

    def questions(self) -> Iterator[Question]:
        yield from self.make()

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        return exact(question, answer)


@dataclass(frozen=True)
class Options:
    """What a suite is made of, as far as it asks.

    typesetter: of the runtime that is measured; some texts are made to fill so many of its pages.
    size: questions of a task, or per cell of a grid; None: the suite's own choice.
    lengths: of made-up texts, in characters.
    data: a benchmark's file, or a folder of them.
    config: LongBench's folder of prompts.
    text_bytes: the largest text of the user's own.
    """

    typesetter: Typesetter
    size: int | None = None
    lengths: Sequence[int] = (500, 1000, 2000, 4000)
    data: Path | None = None
    config: Path | None = None
    text_bytes: int = 16 * MIB


def reader(options: Options) -> list[Task]:
    """What the embedded reader is for, on documents of words and values that it never saw."""
    t, size = options.typesetter, options.size or 200
    return [
        # Its bar is 99 %. Two hundred questions have an interval of four points there, a thousand of one and a half.
        Exact("values, 1 page", lambda: held_out.questions(t, 5 * size, (1,))),
        Exact("values, 1 to 4 pages", lambda: held_out.questions(t, size, (1, 2, 3, 4))),
        Exact("values, 8 pages", lambda: held_out.questions(t, size, (8,), seed=20_008)),
        Exact("values, 16 pages", lambda: held_out.questions(t, size // 2, (16,), seed=20_016)),
        Exact("other phrasings", lambda: held_out.questions(t, size, (1, 2), 21_001, phrasings=HELD_OUT_PHRASINGS)),
        Exact("in sentences", lambda: held_out.questions(t, size, (1, 2), 22_001, Shares(sentences=1.0))),
        Exact("in tables and logs", lambda: held_out.questions(t, size, (1, 2), 24_001, Shares(listings=1.0))),
        Exact("UUIDs and digits", lambda: held_out.questions(t, size, (1, 2), 23_001, Shares(long_values=1.0))),
        Exact("not in the document", lambda: held_out.absent_questions(t, size, (1, 2, 4, 8))),
        Exact("lines", lambda: held_out.lines(t, size // 2)),
        Exact("comparisons", lambda: held_out.comparisons(t, size // 2)),
        Exact("counts", lambda: held_out.counts(t, size // 2)),
        Transcripts(t, held_out.texts_to_transcribe(t, max(1, size // 8))),
        Transcripts(t, held_out.texts_to_transcribe(t, max(1, size // 16), pages=2), "transcripts, 2 pages"),
    ]


READER_BARS = (
    Bar("values, 1 page", EXACT, 0.99, "exact values on one page"),
    Bar("values, 8 pages", EXACT, 0.97, "exact values anywhere in 8 pages"),
    Bar("not in the document", EXACT, 0.95, "what is missing is said to be"),
    Bar("transcripts", "characters", 0.995, "characters right"),
)


def needle(options: Options) -> list[Task]:
    """Depth by length."""
    return [NeedleGrid(options.lengths, repeats=options.size or 10)]


def ruler(options: Options) -> list[Task]:
    """RULER's own files where there are some, else families in its style."""
    if options.data is not None:
        return [RulerFile(file) for file in _files(options.data, "**/*.jsonl")]
    return [RulerStyle(family, options.lengths, options.size or 10) for family in FAMILIES]


def ocr(options: Options) -> list[Task]:
    """Transcripts of the pages of the user's own text files, or else of made-up pages."""
    if options.data is None:
        return [Transcripts(options.typesetter, held_out.texts_to_transcribe(options.typesetter, options.size or 24))]
    texts = [read_text(str(file), options.text_bytes) for file in _files(options.data, "*.txt")]
    return [Transcripts(options.typesetter, texts)]


def longbench(options: Options) -> list[Task]:
    """LongBench's files."""
    return [LongBench(file, options.config) for file in _files(_given(options.data, "longbench"), "*.jsonl")]


def mrcr(options: Options) -> list[Task]:
    """MRCR's files."""
    return [Mrcr(file, f"mrcr/{file.stem}") for file in _files(_given(options.data, "mrcr"), "*.parquet", "*.jsonl")]


@dataclass(frozen=True)
class Suite:
    """How a suite's tasks are made, and the bars they are held to."""

    make: Callable[[Options], list[Task]]
    bars: Sequence[Bar] = ()


SUITES = {
    "reader": Suite(reader, READER_BARS),
    "ocr": Suite(ocr),
    "needle": Suite(needle),
    "ruler": Suite(ruler),
    "longbench": Suite(longbench),
    "mrcr": Suite(mrcr),
}


def _given(data: Path | None, suite: str) -> Path:
    if data is None:
        raise InputError(f"the suite {suite} reads that benchmark's own files: name one, or a folder of them, with --data")
    return data


def _files(data: Path, *patterns: str) -> list[Path]:
    files = [data] if data.is_file() else sorted(file for pattern in patterns for file in data.glob(pattern))
    if not files:
        raise InputError(f"no {' or '.join(patterns)} in {data}")
    return files
