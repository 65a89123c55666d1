"""How many characters a visual token carries, by style and kind of text. Exact: measuring gives what drawing would.

    python bench/typeset_density.py [--characters 200000] [--json FILE]

Text tokens per visual token, the compression of the Glyph paper, is this divided by the characters of a text token (4 to 5 in English).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import texts

from glyph_rt.typeset import PRESETS, THEMES, Typesetter, load_style

STYLES = (*PRESETS, "glyph-en-72+fast", "glyph-en-72+precise", *THEMES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    drawn = {kind: make(options.characters) for kind, make in texts.KINDS.items()}
    figures: dict[str, dict[str, float]] = {}
    print(f"{'characters per visual token':28}" + "".join(f"{kind:>14}" for kind in drawn))
    for name in STYLES:
        typesetter = Typesetter(load_style(name))
        measures = {kind: typesetter.measure(text) for kind, text in drawn.items()}
        figures[name] = {kind: round(measure.characters_per_visual_token, 2) for kind, measure in measures.items()}
        print(f"{name:28}" + "".join(f"{figure:14.2f}" for figure in figures[name].values()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
