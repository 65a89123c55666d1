"""What drafting from the source is worth: the same answers with and without it, alternating.

    python bench/drafting.py [--model DIR] [--rounds 7] [--json FILE]

Two kinds of answer of the embedded reader on held-out documents: a page transcribed, and the value of a key. Prints steps, time of
decoding and the ratio with its spread. Bound: n tokens take n steps without drafts, and at best n / 33 with the longest draft.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from glyph_rt.export.reader.held_out import questions

from glyph_rt import Document, Runtime, Sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with Runtime.open(options.model, encoder="torch") as runtime:
        asked = questions(runtime.typesetter, options.rounds + 1, [2])
        for kind in ("transcript", "value"):
            rounds = []
            for number, question in enumerate(asked):
                with runtime.read(question.text) as document:
                    text = "Transcribe page 1." if kind == "transcript" else question.question
                    pair = {draft: run(document, text, draft) for draft in ((True, False) if number % 2 else (False, True))}
                assert pair[True]["text"] == pair[False]["text"], "drafting changed an answer"
                if number:  # the first warms up
                    rounds.append(pair)
            figures[kind] = summary(rounds)
            print(f"{kind:12} " + ", ".join(f"{name} {value}" for name, value in figures[kind].items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run(document: Document, question: str, draft: bool) -> dict[str, Any]:
    """One answer: its text, steps and seconds of decoding."""
    answer = document.ask(question, Sampling(draft=draft))
    text = answer.text
    assert answer.timings is not None
    usage = answer.usage
    seconds = answer.timings.decode_s
    return {"text": text, "tokens": usage.completion_tokens, "steps": max(1, usage.completion_tokens - usage.accepted_tokens), "s": seconds}


def summary(rounds: list[dict[bool, dict[str, Any]]]) -> dict[str, float]:
    ratios = sorted(pair[False]["s"] / pair[True]["s"] for pair in rounds if pair[True]["s"] > 0)
    return {
        "tokens": statistics.median(pair[True]["tokens"] for pair in rounds),
        "steps without": statistics.median(pair[False]["steps"] for pair in rounds),
        "steps with": statistics.median(pair[True]["steps"] for pair in rounds),
        "ms without": round(1e3 * statistics.median(pair[False]["s"] for pair in rounds), 1),
        "ms with": round(1e3 * statistics.median(pair[True]["s"] for pair in rounds), 1),
        "times faster": round(statistics.median(ratios), 2),
        "least": round(ratios[0], 2),
        "most": round(ratios[-1], 2),
    }


if __name__ == "__main__":
    main()
