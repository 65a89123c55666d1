"""What smaller numbers, drafts and evictions do to reading: the same questions in every setting, beside fp32 throughout.

    python bench/reader_precision.py [--model DIR] [--size 100] [--json FILE]

right: share of answers that are the document's value, with its 95 % interval. as fp32: share of answers equal to those of the first row,
right or wrong; drafts and evictions must not change any.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from glyph_rt.export.reader import held_out
from glyph_rt.export.reader.shares import Shares
from glyph_rt.export.vision import export_vision

from glyph_rt import Limits, Runtime
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.evaluate import Question, interval
from glyph_rt.evaluate.task import exact
from glyph_rt.language import Quant, Sampling
from glyph_rt.memory.limits import KVDtype
from glyph_rt.typeset import Typesetter
from glyph_rt.vision.graph import GraphKind

GRAPHS = ("fp32", "fp16", "bf16", "int8")  # exported for the rows below; bf16 is what lets torch run in it


@dataclass(frozen=True)
class Setting:
    """One row of the table: what differs from fp32 throughout."""

    name: str
    encoder: str = "torch"
    quant: Quant | None = None
    draft: bool = False
    limits: Limits | None = None
    restored: bool = False  # every document lends its KV to another before it is asked


SETTINGS = (
    Setting("fp32 throughout"),
    Setting("drafted from the source", draft=True),
    Setting("evicted and restored", restored=True),
    Setting("vision: ONNX fp32", "onnx-portable-fp32"),
    Setting("vision: ONNX fp16", "onnx-portable-fp16"),
    Setting("vision: torch bf16", "torch-bf16"),
    Setting("vision: ONNX int8", "onnx-portable-int8"),
    Setting("documents' KV: int8", limits=Limits(kv_dtype=KVDtype.INT8)),
    Setting("documents' KV: fp8", limits=Limits(kv_dtype=KVDtype.FP8)),
    Setting("decoder weights: int8", quant=Quant.INT8),
    Setting("decoder weights: int4", quant=Quant.INT4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=int, default=100, help="questions of each of the four kinds")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    checkpoint = Checkpoint.open(options.model)
    rows = []
    print(f"{'setting':26}{'right':>8}{'95 % interval':>18}{'as fp32':>10}")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        for precision in GRAPHS:
            export_vision(checkpoint, store, GraphKind(precision=precision))
        questions: list[Question] = []
        first: list[str] = []
        for setting in SETTINGS:
            limits, encoder = setting.limits, setting.encoder
            with Runtime.open(options.model, encoder=encoder, quant=setting.quant, limits=limits, store=store) as runtime:
                questions = questions or asked(runtime.typesetter, options.size)
                answers = all_answers(runtime, questions, setting)
            first = first or answers
            right = interval([exact(q, a)["exact"] for q, a in zip(questions, answers, strict=True)])
            same = sum(a == b for a, b in zip(answers, first, strict=True)) / len(first)
            rows.append({"setting": setting.name, "right": right.share, "low": right.low, "high": right.high, "as_fp32": same})
            print(f"{setting.name:26}{right.share:8.1%}{f'{right.low:.1%} to {right.high:.1%}':>18}{same:10.1%}", flush=True)
    if options.json:
        subject = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "model": checkpoint.digest[:16]}
        command = " ".join(["python", *sys.argv])
        options.json.write_text(json.dumps({**subject, "command": command, "questions": len(questions), "rows": rows}, indent=2) + "\n")


def asked(typesetter: Typesetter, size: int) -> list[Question]:
    """Values on 1, 4 and 8 pages, and UUIDs and other long values."""
    plain = [held_out.questions(typesetter, size, (pages,), 50_000 + pages) for pages in (1, 4, 8)]
    return [*(q for part in plain for q in part), *held_out.questions(typesetter, size, (1, 2), 53_001, Shares(long_values=1.0))]


def all_answers(runtime: Runtime, questions: list[Question], setting: Setting) -> list[str]:
    """Greedy answers, each about a document that was read for it."""
    answers = []
    sampling = Sampling(max_new_tokens=64, draft=setting.draft)
    for question in questions:
        with runtime.read(question.text) as document:
            if setting.restored:  # whoever wants all of the KV memory gets the document's too
                runtime.arena.reserve(runtime.arena.budget, "this bench").release()
            answer = document.ask(question.question, sampling)
            answers.append(answer.text)
            if setting.restored and not (answer.timings and answer.timings.restore_s):
                raise RuntimeError("this document's KV was never away: the row would say nothing")
    return answers


if __name__ == "__main__":
    main()
