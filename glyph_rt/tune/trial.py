"""Trying a style: cheap things first, and no more questions than it takes to tell."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from glyph_rt.errors import StyleError
from glyph_rt.evaluate import run
from glyph_rt.evaluate.record import Record
from glyph_rt.evaluate.task import EXACT, Question
from glyph_rt.language import Sampling
from glyph_rt.runtime import Runtime
from glyph_rt.tune.front import DOMINATED, UNREADABLE, Finding, clearly_dominated
from glyph_rt.tune.questions import Asked
from glyph_rt.typeset import Style

GROWTH = 3  # how much larger each set of questions is than the one before
STEPS = 4  # sets
FLOOR = 0.75  # of the reference's accuracy: what reads worse is of no use, however little it costs
CLOCKED = 3  # documents that are timed
ROUNDS = 2  # of timing, in turn with the reference; the fastest counts, since noise only ever slows
TIME_STEP = 0.1  # of the reference's time: what timings on a busy box repeat to. Nothing is on a front for less


@dataclass(frozen=True)
class Trier:
    """Tries styles on one set of questions, by `runtime`'s model.

    `runtime` draws in the reference style, against which times are taken. It keeps no drawn or encoded page (`for_trials`).
    """

    runtime: Runtime
    task: Asked

    @property
    def sizes(self) -> list[int]:
        """How many questions are asked before it is decided whether to ask more."""
        most = len(self.task.asked)
        return sorted({max(1, most // GROWTH**step) for step in range(STEPS)})

    def weigh(self, style: Style) -> tuple[float, float]:
        """Compression and density, known from laying the documents out; nothing is read.

        Raises StyleError when a document does not fit the model's context, which is a rule like those of the space.
        """
        reading = self.runtime.with_style(style)
        tokens = characters = visual = 0
        for text in self.task.texts:
            measure = reading.measure(text)
            needed = self.runtime.template.document_tokens(measure.pages, measure.visual_tokens)
            if needed + max(question.max_new_tokens for question in self.task.asked) >= self.runtime.model.context:
                raise StyleError(
                    f"style {style.name!r}: a document of {len(text):,} characters takes {needed:,} tokens, "
                    f"and the model's context is {self.runtime.model.context:,}"
                )
            tokens += len(self.runtime.template.encode(text))
            characters += len(text)
            visual += measure.visual_tokens
        return tokens / visual, characters / visual

    def __call__(self, style: Style, others: Sequence[Finding] = ()) -> Finding:
        """Everything about a style. `others` are what was found of others, the reference first: a style that one of them clearly
        dominates, or that is of no use, is asked no further.
        """
        finding = Finding("", *self.weigh(style), self.time(style))
        reading = self.runtime.with_style(style)
        floor = FLOOR * others[0].accuracy.share if others else 0.0
        with closing(Record(None, {})) as record:
            for size in self.sizes:
                run(reading, [replace(self.task, asked=self.task.asked[:size])], record)
                finding = replace(finding, right="".join(f"{result.scores[EXACT].value:.0f}" for result in record.results.values()))
                if finding.accuracy.high < floor:
                    return replace(finding, stopped=UNREADABLE)
                if clearly_dominated(finding, others):
                    return replace(finding, stopped=DOMINATED)
        return finding

    def time(self, style: Style) -> float:
        """Of reading and answering in `style`, as a multiple of the reference's, in steps of TIME_STEP."""
        if style == replace(self.runtime.style, name=style.name):
            return 1.0
        rounds = list(self.rounds(style, ROUNDS))
        multiple = min(own for _, own in rounds) / min(reference for reference, _ in rounds)
        return round(max(1, round(multiple / TIME_STEP)) * TIME_STEP, 4)

    def rounds(self, style: Style, count: int) -> Iterator[tuple[float, float]]:
        """Seconds of the reference and of `style`, in alternating rounds over the same documents."""
        firsts = {question.text: question for question in reversed(self.task.asked)}
        clocked = [firsts[text] for text in self.task.texts[:CLOCKED]]
        for _ in range(count):
            yield _clock(self.runtime.with_style(self.runtime.style), clocked), _clock(self.runtime.with_style(style), clocked)


def for_trials(runtime: Runtime) -> Runtime:
    """The same model, remembering no page: a page that was read before would be read in no time."""
    limits = replace(runtime.limits, page_bytes=0, encoded_bytes=0)
    return Runtime(runtime.checkpoint, runtime.typesetter, runtime.encoder, runtime.model, runtime.template, limits)


def _clock(runtime: Runtime, questions: Sequence[Question]) -> float:
    """Seconds for reading each document anew and answering one question about it: of this process on a CPU, where others would be
    counted else, and by the clock on a GPU."""
    clock = time.process_time if runtime.model.device == "cpu" else time.perf_counter
    start = clock()
    for question in questions:
        with runtime.read(question.text) as document:
            _ = document.ask(question.question, Sampling(max_new_tokens=question.max_new_tokens)).text
    return clock() - start
