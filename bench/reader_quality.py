"""How well the embedded reader reads what it has never seen: the suite `reader`, every value of the bundled contract, and everyday files.

python bench/reader_quality.py [--model DIR] [--quant int8|int4] [--kv-dtype model|int8|fp8] [--size 200] [--failures N] [--out DIR]
                               [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from pathlib import Path

from glyph_rt import Limits, Runtime, evaluate
from glyph_rt.evaluate.suites import READER_BARS, Exact, Options, reader
from glyph_rt.language import Quant
from glyph_rt.memory.limits import MIB, KVDtype

CONTRACT = Path(__file__).parents[1] / "examples" / "contract.txt"
EVERYDAY = Path(__file__).parent / "everyday"  # an invoice, a log, settings, a letter and a data sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--quant", type=Quant, choices=list(Quant), help="keep the decoder's weights smaller")
    parser.add_argument("--kv-dtype", type=KVDtype, choices=list(KVDtype), default=KVDtype.MODEL, help="keep documents' KV smaller")
    parser.add_argument("--size", type=int, default=200, help="questions of a task; five times as many about one page")
    parser.add_argument("--failures", type=int, default=0, help="wrong answers to print")
    parser.add_argument("--out", type=Path, help="keep answers, figures and plots there, and resume from there")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    limits = Limits(kv_dtype=options.kv_dtype)
    with Runtime.open(options.model, encoder="torch", quant=options.quant, limits=limits) as runtime:
        weights = f"{options.quant.value if options.quant else 'fp32'}, {runtime.model.weight_bytes / MIB:.2f} MiB"
        subject = {"model": runtime.checkpoint.digest[:16], "size": str(options.size), "weights of the decoder": weights}
        kv = f"{options.kv_dtype.value}, {runtime.kv_shape.bytes_per_token:,} bytes a token"
        subject["KV of documents"] = kv
        print(f"weights of the decoder: {weights}; KV of documents: {kv}")
        tasks = [*reader(Options(runtime.typesetter, options.size)), Exact("contract", contract), Exact("everyday files", everyday)]
        with evaluate.Record(options.out and options.out / "results.jsonl", subject) as record:
            evaluate.run(runtime, tasks, record)
            results = list(record.results.values())
    found = evaluate.figures(results)
    print(evaluate.table(found, READER_BARS))
    for wrong in [r for r in results if any(score.value < 1 for score in r.scores.values())][: options.failures]:
        print(f"  {wrong.task} {wrong.id}: expected {wrong.expected!r}, got {wrong.answer!r}")
    if options.out:
        evaluate.write(options.out, results, subject, READER_BARS)
    if options.json:
        told = {"machine": platform.processor() or platform.machine(), **subject, "figures": [f.to_json() for f in found]}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def contract() -> list[evaluate.Question]:
    """Every field of the bundled contract, of which the demo asks three."""
    text = CONTRACT.read_text(encoding="utf-8")
    fields = re.findall(r"^([A-Z][A-Za-z ]+): (.+)$", text, re.MULTILINE)
    return [evaluate.Question(text, f"What is the value of {key}?", value, id=key) for key, value in fields]


def everyday() -> list[evaluate.Question]:
    """Written by hand, as people write and ask, not by the generator of the other tasks."""
    asked = [json.loads(line) for line in (EVERYDAY / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        evaluate.Question((EVERYDAY / q["file"]).read_text(encoding="utf-8"), q["question"], q["expected"], id=f"{q['file']}/{number}")
        for number, q in enumerate(asked)
    ]


if __name__ == "__main__":
    main()
