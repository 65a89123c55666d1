"""Documents ten times the window, by every strategy, beside documents of the window read whole: how exact, and how long a question takes.

    python bench/long.py [--window 8] [--times 10] [--size 60] [--model DIR] [--strategies whole,map_reduce,...] [--out DIR] [--json FILE]

Made-up documents of the reader's held-out vocabulary, with one right answer for each question. "whole, at the window" is the bound: the
same reader on documents that fit. "whole, all of it" reads the long document at once where the model's context holds it, which --window
may leave room for. Each strategy's answers are kept under --out, and taken from there when run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glyph_rt.export.reader import held_out

from glyph_rt import Runtime, Sampling, evaluate
from glyph_rt.evaluate import EXACT, Question
from glyph_rt.evaluate.suites import Exact
from glyph_rt.long import LongText, ReadingRules, Strategy

AT_WINDOW = "whole, at the window"
SEED = 25_001


@dataclass
class Way:
    """One way to answer, and what it took."""

    name: str
    rules: ReadingRules
    strategy: Strategy
    questions: Sequence[Question]
    seconds: list[float] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)  # read for a question
    cited: int = 0  # right answers, whose citation is the place that was asked for
    ways: Counter[str] = field(default_factory=Counter)  # how one answer was come by

    def ask(self, runtime: Runtime, question: Question) -> str:
        """The answer, and the time from the text to it."""
        start = time.perf_counter()
        with LongText(runtime, question.text, rules=self.rules) as text:
            answer = text.ask(question.question, Sampling(max_new_tokens=question.max_new_tokens), strategy=self.strategy)
        self.seconds.append(time.perf_counter() - start)
        self.pages.append(answer.cost.usage.pages)
        right = answer.text == question.expected
        self.cited += right and any(question.text[c.start : c.end] == question.expected for c in answer.citations)
        self.ways[answer.choice.strategy.value + (f", {answer.reduced_by}" if answer.reduced_by else "")] += 1
        return answer.text

    def figures(self, results: Sequence[evaluate.Result]) -> dict[str, Any]:
        exact = evaluate.interval([result.scores[EXACT] for result in results])
        if not self.seconds:
            return {"exact": vars(exact), "of": len(results)}
        return {
            "exact": vars(exact),
            "of": len(results),
            "seconds a question": {"median": statistics.median(self.seconds), "most": max(self.seconds)},
            "pages read for a question": statistics.mean(self.pages),
            "right answers with a citation": self.cited,
            "come by": dict(self.ways),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=8, help="pages read at a time; 0: what the model's context holds")
    parser.add_argument("--times", type=int, default=10, help="length of the documents, in windows")
    parser.add_argument("--size", type=int, default=60, help="questions for each strategy")
    parser.add_argument("--strategies", default="retrieve_pages,map_reduce,auto,whole")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--failures", type=int, default=0, help="wrong answers to print")
    parser.add_argument("--out", type=Path, help="keep answers there, and resume from there")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with Runtime.open(options.model) as runtime:
        window = options.window or runtime.pages_in_context - 12
        pages = window * options.times
        subject = {"model": runtime.checkpoint.digest[:16], "window": str(window), "pages": str(pages), "size": str(options.size)}
        found: dict[str, Any] = {}
        for way in ways(runtime, window, pages, options.size, options.strategies.split(",")):
            with evaluate.Record(options.out and options.out / f"{way.name}.jsonl", subject) as record:
                task = Exact(way.name, lambda way=way: way.questions)
                for question in task.questions():
                    if (way.name, question.id) not in record.results:
                        answer = way.ask(runtime, question)
                        scores = task.scores(question, answer)
                        record.add(evaluate.Result(way.name, question.id, answer, question.expected, scores, question.axes))
                results = list(record.results.values())
            found[way.name] = figures = way.figures(results)
            print(f"{way.name:22}{told(figures)}", flush=True)
            for wrong in [r for r in results if r.answer != r.expected][: options.failures]:
                print(f"  {wrong.id}: expected {wrong.expected!r}, got {wrong.answer!r}")
    if options.json:
        machine = {"machine": platform.processor() or platform.machine()}
        options.json.write_text(json.dumps({**machine, **subject, "ways": found}, indent=2) + "\n", encoding="utf-8")


def ways(runtime: Runtime, window: int, pages: int, size: int, strategies: Sequence[str]) -> Iterator[Way]:
    """The bound first. Two questions are asked of each document."""
    make: Callable[[int], list[Question]] = lambda count: held_out.questions(runtime.typesetter, size, (count,), SEED)  # noqa: E731
    yield Way(AT_WINDOW, ReadingRules(), Strategy.WHOLE, make(window))
    long = make(pages)
    for name in strategies:
        if (strategy := Strategy.parse(name)) is not Strategy.WHOLE:
            yield Way(name, ReadingRules(window=window), strategy, long)
        elif pages < runtime.pages_in_context - 2:
            yield Way("whole, all of it", ReadingRules(), strategy, long)


def told(figures: dict[str, Any]) -> str:
    exact = evaluate.Interval(**figures["exact"])
    if "come by" not in figures:
        return f"{exact}  of {figures['of']}, all from an earlier run"
    seconds, come_by = figures["seconds a question"], ", ".join(f"{count} {way}" for way, count in figures["come by"].items())
    return (
        f"{exact}  of {figures['of']}; {seconds['median']:.3f} s a question (most {seconds['most']:.3f}), "
        f"{figures['pages read for a question']:.0f} pages read; {figures['right answers with a citation']} right and cited; {come_by}"
    )


if __name__ == "__main__":
    main()
