"""How well the embedded reader reads what it has never seen: exact values by page count, and character error.

python bench/reader_quality.py [--model DIR] [--quant int8|int4] [--questions 200] [--transcripts 24] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from pathlib import Path

from glyph_rt.export.reader.held_out import pages_to_transcribe, questions

from glyph_rt import Runtime
from glyph_rt.evaluate import ask_all, character_error, transcribe_all, wilson
from glyph_rt.language import Quant
from glyph_rt.memory import MIB

CONTRACT = Path(__file__).parents[1] / "examples" / "contract.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--quant", type=Quant, choices=list(Quant), help="keep the decoder's weights smaller")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--transcripts", type=int, default=24)
    parser.add_argument("--pages", default="1,2,3,4", help="page counts of the documents asked about")
    parser.add_argument("--failures", type=int, default=0, help="wrong answers to print")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with Runtime.open(options.model, encoder="torch", quant=options.quant) as runtime:
        asked = questions(runtime.typesetter, options.questions, [int(p) for p in options.pages.split(",")])
        found = ask_all(runtime, asked)
        right = [answer == question.expected for question, answer in zip(asked, found, strict=True)]
        figures: dict[str, object] = {"machine": platform.processor() or platform.machine(), "model": runtime.checkpoint.digest[:12]}
        figures["weights of the decoder"] = (
            f"{options.quant.value if options.quant else 'fp32'}, {runtime.model.weight_bytes / MIB:.2f} MiB"
        )
        for pages in sorted({question.pages for question in asked}):
            of_these = [ok for ok, question in zip(right, asked, strict=True) if question.pages == pages]
            figures[f"exact values, {pages} pages"] = share(sum(of_these), len(of_these))
        figures["exact values"] = share(sum(right), len(right))
        figures["values of examples/contract.txt"] = contract(runtime)
        transcripts = transcribe_all(runtime, pages_to_transcribe(runtime.typesetter, options.transcripts))
        figures["character error"] = round(character_error(transcripts), 5)
        figures["pages without an error"] = share(sum(t.found == t.expected for t in transcripts), len(transcripts))
    for name, value in figures.items():
        print(f"{name:28} {value}")
    wrong = [(q, a) for q, a, ok in zip(asked, found, right, strict=True) if not ok]
    for question, answer in wrong[: options.failures]:
        print(f"  {question.pages} pages: {question.question!r} expected {question.expected!r}, got {answer!r}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def contract(runtime: Runtime) -> str:
    """Every key of the bundled contract, of which the demo asks three."""
    text = CONTRACT.read_text(encoding="utf-8")
    fields = re.findall(r"^([A-Z][A-Za-z ]+): (.+)$", text, re.MULTILINE)
    with runtime.read(text) as document:
        right = [document.ask(f"What is the value of {key}?").text == value for key, value in fields]
    return f"{sum(right)} of {len(right)}"


def share(successes: int, trials: int) -> str:
    interval = wilson(successes, trials)
    return f"{interval.share:.1%} ({successes} of {trials}; 95 % interval {interval.low:.1%} to {interval.high:.1%})"


if __name__ == "__main__":
    main()
