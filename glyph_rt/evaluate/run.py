"""Asking a runtime the questions of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from glyph_rt.errors import BusyError, LimitError
from glyph_rt.evaluate.record import Record, Result
from glyph_rt.evaluate.task import Question, Task
from glyph_rt.language import Sampling
from glyph_rt.quotes import Quoting
from glyph_rt.runtime import Runtime

TOO_LONG = "(too long)"  # stands for the answer about a document that the model's context cannot hold; as wrong as one can be

Progress = Callable[[str, int, int], None]  # task, questions answered, questions


def answers(runtime: Runtime, questions: Iterable[Question], quotes: Quoting = Quoting.MARK) -> Iterator[str]:
    """Greedy answers, in order, as `Document.ask` gives them with these quotes. Neighbouring questions on one text share one reading.

    Raises what `Runtime.read` raises.
    """
    document = None
    text = None
    try:
        for question in questions:
            if question.text != text:
                if document is not None:
                    document.close()
                document, text = None, None
                document, text = runtime.read(question.text), question.text
            assert document is not None
            yield document.ask(question.question, Sampling(max_new_tokens=question.max_new_tokens), quotes=quotes).text
    finally:
        if document is not None:
            document.close()


def run(runtime: Runtime, tasks: Sequence[Task], record: Record, progress: Progress | None = None, quotes: Quoting = Quoting.MARK) -> None:
    """Ask what the record lacks, and keep every answer with its scores. What the context cannot hold counts as answered wrong."""
    for task in tasks:
        questions = list(task.questions())
        left = [question for question in questions if (task.name, question.id) not in record.results]
        while left:
            try:
                for answer in answers(runtime, tuple(left), quotes):
                    _keep(record, task, left.pop(0), answer)
                    if progress is not None:
                        progress(task.name, len(questions) - len(left), len(questions))
            except BusyError:
                raise  # for want of memory now: says nothing about the model
            except LimitError:
                _keep(record, task, left.pop(0), TOO_LONG)


def _keep(record: Record, task: Task, question: Question, answer: str) -> None:
    scores = task.scores(question, answer)
    record.add(Result(task.name, question.id, answer, question.expected, scores, question.axes))
