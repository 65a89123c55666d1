"""Measuring how well a runtime reads: tasks ask, formulas score, records keep, reports tell."""

from glyph_rt.evaluate.metrics import Interval, interval, wilson
from glyph_rt.evaluate.record import Record, Result
from glyph_rt.evaluate.report import Bar, Figure, figures, table, write
from glyph_rt.evaluate.run import answers, run
from glyph_rt.evaluate.task import EXACT, Question, Score, Task

__all__ = [
    "EXACT", "Bar", "Figure", "Interval", "Question", "Record", "Result", "Score", "Task",
    "answers", "figures", "interval", "run", "table", "wilson", "write",
]  # fmt: skip
