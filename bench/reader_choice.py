"""By what weights are chosen: questions of other seeds than the suite's, so that choosing does not flatter the suite's figures.

    python bench/reader_choice.py [--model DIR] [--size 400]

Half as many questions about tables and logs, and, since 400 do not tell 98.75 % of one page from 99.25, three times as many more about one
page and three quarters as many about eight.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from glyph_rt.export.reader import held_out
from glyph_rt.export.reader.shares import Shares

from glyph_rt import Runtime, evaluate
from glyph_rt.evaluate.suites import Exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=400, help="questions of a task")
    options = parser.parse_args()
    size = options.size
    with Runtime.open(options.model) as runtime, evaluate.Record(None, {}) as record:
        t = runtime.typesetter
        tasks = [
            Exact("1 page", lambda: held_out.questions(t, size, (1,), 500_001)),
            Exact("8 pages", lambda: held_out.questions(t, size, (8,), 500_008)),
            Exact("not in the document", lambda: held_out.absent_questions(t, size, (1, 2, 4, 8), 500_002)),
            Exact("in tables and logs", lambda: held_out.questions(t, size // 2, (1, 2), 500_005, Shares(listings=1.0))),
            Exact("1 page, more", lambda: held_out.questions(t, 3 * size, (1,), 700_001)),
            Exact("8 pages, more", lambda: held_out.questions(t, 3 * size // 4, (8,), 700_008)),
        ]
        evaluate.run(runtime, tasks, record)
        print(evaluate.table(evaluate.figures(record.results.values()), ()))


if __name__ == "__main__":
    main()
