"""Looks against accuracy: the same texts in the cells the reader was trained on, in other fonts, sizes and colours.

    python bench/reader_looks.py [--model DIR] [--size 60] [--json FILE]

Training draws sizes of DejaVu Sans Mono and DejaVu Sans, and colours (export/reader/looks.py). Marked * are looks of which it draws none:
a size between its sizes, and other fonts, each where this box has it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glyph_rt.export.reader import held_out
from reader_density import accuracy

from glyph_rt import Runtime
from glyph_rt.errors import StyleError
from glyph_rt.evaluate import Interval

PAPER = {"page_bg_color": "#E8E4D8", "para_bg_color": "#E8E4D8"}
SANS, BOLD, NOTO = "DejaVuSans.ttf", "DejaVuSansMono-Bold.ttf", "NotoSansMono-Regular.ttf"
# What differs from the shipped style, and whether training draws such pages.
LOOKS: dict[str, tuple[dict[str, Any], bool]] = {
    "as shipped": ({}, True),
    "11 pt": ({"font_size": 11.0}, True),
    "10 pt": ({"font_size": 10.0}, True),
    "10.75 pt": ({"font_size": 10.75}, False),
    "grey ink": ({"font_color": "#505050"}, True),
    "paper": (PAPER, True),
    "grey on paper, 11 pt": ({"font_size": 11.0, "font_color": "#505050", **PAPER}, True),
    "Sans, 10 pt": ({"font_path": SANS, "font_size": 10.0}, True),
    "bold": ({"font_path": BOLD}, False),
    "Noto Sans Mono, 11 pt": ({"font_path": NOTO, "font_size": 11.0}, False),
}


@dataclass(frozen=True)
class Point:
    """One look."""

    look: str
    in_recipe: bool  # whether training draws such pages; weights from before it did know the first one only
    characters: Interval  # share of transcribed characters that are right
    values: Interval  # share of values that are right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=60, help="questions in each look; a fifth as many pages are transcribed")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    points = []
    with Runtime.open(options.model, encoder="torch") as shipped:
        style, digest = shipped.style, shipped.checkpoint.digest[:16]
        questions = held_out.questions(shipped.typesetter, options.size, (1, 2), seed=62_001)
        print(f"{'look':>24}{'characters right':>26}{'values right':>26}")
        for name, (changes, in_recipe) in LOOKS.items():
            try:
                look = replace(style, name=name, **changes)
                _ = look.font_files  # which this box may lack
            except StyleError as missing:
                print(f"{name:>24} not measured: {missing}")
                continue
            characters, values = accuracy(shipped, look, questions, options.size // 5, seed=63_001)
            points.append(Point(name, in_recipe, characters, values))
            print(f"{name:>23}{' ' if in_recipe else '*'}{characters!s:>26}{values!s:>26}", flush=True)
    if options.json:
        subject = {"machine": platform.processor() or platform.machine(), "model": digest, "command": " ".join(["python", *sys.argv])}
        options.json.write_text(json.dumps({**subject, "points": [asdict(point) for point in points]}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
