"""`glyph-rt batch`: questions about many documents, from a file to a file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.cli.ask import Length
from glyph_rt.cli.opening import Opening
from glyph_rt.cli.progress import question_progress
from glyph_rt.quotes import Quoting


@dataclass(frozen=True)
class BatchOptions:
    """The command line of `batch`."""

    source: Path
    target: Path
    opening: Opening
    system: str
    quotes: Quoting
    length: Length


def run(options: BatchOptions) -> int:
    """Answer what is not answered yet. The exit code: 1 when lines of the output are errors, of this run or an earlier one."""
    from glyph_rt import batch
    from glyph_rt.long import Strategy

    opening = options.opening
    strategy, rules = Strategy.parse(options.length.strategy), options.length.rules()
    with opening.open() as runtime:
        subject = {
            "model": runtime.checkpoint.digest,
            "style": json.dumps(runtime.style.to_json(), sort_keys=True),
            "quant": str(opening.quant),
            "kv_dtype": opening.kv_dtype,
            "system": options.system,
            "quotes": options.quotes.value,
            "length": str(options.length),
        }
        task = batch.Task(runtime, subject, options.system, rules, strategy, options.quotes)
        with question_progress() as progress:
            outcome = batch.run(task, options.source, options.target, progress)
    told = f"{outcome.answered} lines answered, {outcome.failed} with an error, {outcome.earlier} of all by earlier runs"
    print(f"{options.target}: {told}", file=sys.stderr)
    return 1 if outcome.failed else 0
