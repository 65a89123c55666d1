"""How local edits stay under `pagination: stable`, and what it costs, over edits of seeds that its constants were not chosen on.

python bench/pagination.py [--pages 200] [--edits 60] [--seed 1000]
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.vocabulary import TRAINING

from glyph_rt.typeset import PRESETS, Typesetter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    for base, characters in (("reader", 450), ("glyph-en-72", 4500)):
        text = Writer(TRAINING, options.seed).draft(options.pages * characters, 0.3).text
        stable = Typesetter(PRESETS[base].changed("stable", pagination="stable"))
        dense, cost = Typesetter(PRESETS[base]).measure(text), stable.measure(text)
        before, rng = digests(stable, text), random.Random(options.seed)
        changed: Counter[int] = Counter()
        for _ in range(options.edits):
            at = rng.randrange(len(text) // 10, 9 * len(text) // 10)
            edited = (
                text[:at] + rng.choice(["a few more words ", "\n", "Another line, and\nhalf of one "]) + text[at + rng.choice([0, 1, 40]) :]
            )
            changed[len(digests(stable, edited) - before)] += 1
        print(
            f"{base:12} pages changed by an edit: {dict(sorted(changed.items()))}; {cost.pages / dense.pages:.2f} times the pages, "
            f"{cost.visual_tokens / dense.visual_tokens:.2f} times the visual tokens of dense"
        )


def digests(typesetter: Typesetter, text: str) -> set[str]:
    return {page.digest for page in typesetter.pages(text, threads=2)}


if __name__ == "__main__":
    main()
