"""`glyph-rt batch`: questions about many documents, from a file to a file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.cli.ask import Length
from glyph_rt.cli.progress import question_progress
from glyph_rt.memory.limits import Limits, parse_size


@dataclass(frozen=True)
class BatchOptions:
    """The command line of `batch`."""

    source: Path
    target: Path
    model: Path | None
    style: str | None
    system: str
    encoder: str
    quant: str | None
    kv_bytes: str
    text_bytes: str
    length: Length


def run(options: BatchOptions) -> int:
    """Answer what is not answered yet. The exit code: 1 when lines of the output are errors, of this run or an earlier one."""
    from glyph_rt import batch
    from glyph_rt.language import Quant
    from glyph_rt.long import Strategy
    from glyph_rt.runtime import Runtime

    limits = Limits(kv_bytes=parse_size(options.kv_bytes), text_bytes=parse_size(options.text_bytes))
    strategy, rules, quant = Strategy.parse(options.length.strategy), options.length.rules(), Quant.parse(options.quant)
    with Runtime.open(options.model, style=options.style, encoder=options.encoder, limits=limits, quant=quant) as runtime:
        subject = {
            "model": runtime.checkpoint.digest,
            "style": json.dumps(runtime.style.to_json(), sort_keys=True),
            "quant": str(options.quant),
            "system": options.system,
            "length": str(options.length),
        }
        task = batch.Task(runtime, subject, options.system, rules, strategy)
        with question_progress() as progress:
            outcome = batch.run(task, options.source, options.target, progress)
    told = f"{outcome.answered} lines answered, {outcome.failed} with an error, {outcome.earlier} of all by earlier runs"
    print(f"{options.target}: {told}", file=sys.stderr)
    return 1 if outcome.failed else 0
