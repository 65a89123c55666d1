"""`glyph-rt eval`: how well a model reads, on made-up documents or on a benchmark's own files."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glyph_rt.cli.opening import Opening
from glyph_rt.cli.progress import question_progress
from glyph_rt.errors import InputError, OptionError
from glyph_rt.quotes import Quoting

if TYPE_CHECKING:
    from glyph_rt.runtime import Runtime


@dataclass(frozen=True)
class EvalOptions:
    """The command line of `eval`."""

    suite: str
    opening: Opening
    quotes: Quoting
    out: Path | None
    data: Path | None
    config: Path | None
    size: int | None
    lengths: str
    failures: int
    as_json: bool


def run(options: EvalOptions) -> None:
    """Ask, score, and print the figures; with --out, keep every answer and go on from those that are there."""
    if importlib.util.find_spec("rouge") is None:
        raise InputError("evaluating needs rouge; install it with: pip install 'glyph-rt[eval]'")
    from glyph_rt import evaluate
    from glyph_rt.evaluate.suites import SUITES, Options

    if options.suite not in SUITES:
        raise OptionError(f"no suite {options.suite!r}; there are: {', '.join(SUITES)}")
    suite = SUITES[options.suite]
    with options.opening.open() as runtime:
        lengths = _lengths(options.lengths)
        tasks = suite.make(Options(runtime.typesetter, options.size, lengths, options.data, options.config, runtime.limits.text_bytes))
        subject = _subject(options, runtime)
        file = None if options.out is None else options.out / "results.jsonl"
        with evaluate.Record(file, subject) as record, question_progress() as progress:
            evaluate.run(runtime, tasks, record, progress, options.quotes)
            results = list(record.results.values())
    found = evaluate.figures(results)
    if options.out is not None:
        evaluate.write(options.out, results, subject, suite.bars)
    if options.as_json:
        print(json.dumps({"subject": subject, "figures": [figure.to_json() for figure in found]}, ensure_ascii=False))
    else:
        print(evaluate.table(found, suite.bars))
    wrong = [r for r in results if any(score.value < 1 for score in r.scores.values())]
    for result in wrong[: options.failures]:
        print(f"{result.task} {result.id}: expected {result.expected!r}, got {result.answer!r}", file=sys.stderr)


def _subject(options: EvalOptions, runtime: Runtime) -> dict[str, str]:
    """What is measured, and on what: an answer of one subject says nothing about another."""
    return {
        "suite": options.suite,
        "model": runtime.checkpoint.digest[:16],
        "style": json.dumps(runtime.style.to_json(), sort_keys=True),
        "encoder": runtime.encoder.name,
        "kv_dtype": options.opening.kv_dtype,
        "quotes": options.quotes.value,
        "data": str(options.data),
        "size": str(options.size),
        "lengths": options.lengths,
    }


def _lengths(told: str) -> list[int]:
    try:
        lengths = [int(part) for part in told.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise OptionError(f"--lengths takes numbers of characters such as 500,1000,2000, not {told!r}")
    return lengths
