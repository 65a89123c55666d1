"""Density against accuracy: the same texts in ever smaller cells, down to what the reader cannot read any more.

    python bench/reader_density.py [--model DIR] [--size 60] [--json FILE] [--plot FILE]

Characters per visual token are those of a full page: cells in the 28 px square that one visual token sees. The embedded reader was trained
on one size of cell only (marked *): its curve says how far that reaches, not what density this kind of model could be trained for.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from glyph_rt.export.reader import held_out

from glyph_rt import Runtime
from glyph_rt.evaluate import Interval, Question, answers, interval
from glyph_rt.evaluate.ocr import Transcripts
from glyph_rt.evaluate.task import EXACT, exact
from glyph_rt.typeset import BLOCK, Style

CELLS = ((9, 18), (8, 16), (7, 15), (7, 14), (7, 13), (6, 12), (5, 11), (5, 10))  # width, height in px
PAGES = 4  # of the trained style that the texts fill


@dataclass(frozen=True)
class Point:
    """One density."""

    cell: str  # width x height, px
    trained: bool
    characters_per_visual_token: float
    characters: Interval  # share of transcribed characters that are right
    values: Interval  # share of values that are right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=60, help="questions, and pages to transcribe, at each density")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--plot", type=Path, help="also draw the curve there")
    options = parser.parse_args()
    points = []
    with Runtime.open(options.model, encoder="torch") as trained:
        style, digest = trained.style, trained.checkpoint.digest[:16]
        questions = held_out.questions(trained.typesetter, options.size, (PAGES,), seed=60_001)
        print(f"{'cell, px':>10}{'characters per visual token':>30}{'characters right':>26}{'values right':>26}")
        for cell in CELLS:
            point = measured(trained, with_cells(style, *cell), questions, options.size)
            points.append(point)
            mark = "*" if point.trained else " "
            print(
                f"{point.cell:>9}{mark}{point.characters_per_visual_token:>30.1f}{point.characters!s:>26}{point.values!s:>26}", flush=True
            )
    if options.json:
        subject = {"machine": platform.processor() or platform.machine(), "model": digest, "command": " ".join(["python", *sys.argv])}
        options.json.write_text(json.dumps({**subject, "points": [asdict(point) for point in points]}, indent=2) + "\n", encoding="utf-8")
    if options.plot:
        draw(points, options.plot)


def with_cells(style: Style, width: int, height: int) -> Style:
    """The reader's style on another grid, the glyphs scaled with the cells' narrower side."""
    scale = min(width / (style.cell_width or 1), height / style.line_height)
    if (width, height) == (style.cell_width, style.line_height):
        return style
    return replace(style, name=f"{width}x{height}", cell_width=width, line_height=height, font_size=style.font_size * scale)


def measured(trained: Runtime, style: Style, questions: list[Question], pages: int) -> Point:
    """The trained weights on pages of `style`."""
    characters, values = accuracy(trained, style, questions, max(1, pages // 8), seed=61_001)
    assert style.cell_width is not None
    per_token = BLOCK * BLOCK / (style.cell_width * style.line_height)
    cell = f"{style.cell_width}x{style.line_height:g}"
    return Point(cell, style == trained.style, per_token, characters, values)


def accuracy(trained: Runtime, style: Style, questions: list[Question], pages: int, seed: int) -> tuple[Interval, Interval]:
    """On pages of `style`: the shares of the characters of `pages` transcribed pages, and of the questions' values, that are right."""
    with Runtime.open(trained.checkpoint.path, style=style, encoder="torch") as runtime:
        values = [exact(q, a)[EXACT] for q, a in zip(questions, answers(runtime, questions), strict=True)]
        transcripts = Transcripts(runtime.typesetter, held_out.texts_to_transcribe(runtime.typesetter, pages, seed=seed))
        asked = list(transcripts.questions())
        read = [transcripts.scores(q, a)["characters"] for q, a in zip(asked, answers(runtime, asked), strict=True)]
    return interval(read), interval(values)


def draw(points: list[Point], file: Path) -> None:
    """Both curves with their intervals."""
    import matplotlib.pyplot as plt

    ordered = sorted(points, key=lambda point: point.characters_per_visual_token)
    across = [point.characters_per_visual_token for point in ordered]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, label in (("characters", "characters of a transcript"), ("values", f"values on {PAGES} pages")):
        found: list[Interval] = [getattr(point, name) for point in ordered]
        shares = [max(0.0, i.share) for i in found]  # a transcript may hold more wrong characters than the page has
        spread = [[max(0.0, share - i.low) for share, i in zip(shares, found, strict=True)], [i.high - i.share for i in found]]
        axes.errorbar(across, shares, spread, marker="o", capsize=3, label=label)
    axes.set(xlabel="characters per visual token", ylabel="share right", ylim=(0, 1.02))
    axes.legend()
    figure.savefig(file)


if __name__ == "__main__":
    main()
