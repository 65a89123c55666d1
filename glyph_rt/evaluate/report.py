"""What a record comes to: figures with intervals by task, measure and axis, and whether they reach their bars."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from glyph_rt.evaluate.metrics import Interval, interval
from glyph_rt.evaluate.plots import curves, heatmap
from glyph_rt.evaluate.record import Result

MOST_GROUPS = 40  # values of an axis; more of them are positions rather than groups


@dataclass(frozen=True)
class Bar:
    """What a measure of a task is to reach."""

    task: str
    measure: str
    floor: float
    says: str  # the bar in words


@dataclass(frozen=True)
class Figure:
    """A measure of a task, over all its questions or over those at one place of its axes."""

    task: str
    measure: str
    place: Mapping[str, float | str]
    count: int
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "place": dict(self.place), "interval": vars(self.interval)}


def figures(results: Iterable[Result]) -> list[Figure]:
    """For every task and measure: over all, then for every value of each axis, in their order."""
    by_task: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        for measure in result.scores:
            by_task.setdefault((result.task, measure), []).append(result)
    out: list[Figure] = []
    for (task, measure), there in by_task.items():
        out.append(_figure(task, measure, {}, there))
        for axis in there[0].axes:
            for value in _values(there, axis):
                out.append(_figure(task, measure, {axis: value}, [r for r in there if r.axes[axis] == value]))
    return out


def table(all_figures: Sequence[Figure], bars: Sequence[Bar] = ()) -> str:
    """For people: the figures over all questions, with their bars, and those by short axes."""
    lines = []
    for figure in all_figures:
        if figure.place:
            continue
        bar = next((b for b in bars if (b.task, b.measure) == (figure.task, figure.measure)), None)
        told = f"{figure.task}, {figure.measure}".ljust(34) + f"{figure.interval}  of {figure.count}"
        if bar is not None:
            told += f"   {'reached' if figure.interval.share >= bar.floor else 'MISSED'}: {bar.says} >= {bar.floor:.1%}"
        lines.append(told)
        parts = [f for f in all_figures if f.place and (f.task, f.measure) == (figure.task, figure.measure)]
        for axis in dict.fromkeys(axis for f in parts for axis in f.place):
            along = [f for f in parts if axis in f.place]
            if 1 < len(along) <= 8:
                lines.append(f"    by {axis}: " + ", ".join(f"{_told(f.place[axis])} {f.interval.share:.1%}" for f in along))
    return "\n".join(lines)


def write(out: Path, results: Sequence[Result], subject: Mapping[str, str], bars: Sequence[Bar] = ()) -> None:
    """`report.json`, and per task and measure a curve over each axis of numbers and a heatmap over each pair of them, as SVG."""
    found = figures(results)
    reached = {
        f"{b.task}, {b.measure}": {"floor": b.floor, "reached": f.interval.share >= b.floor}
        for b in bars
        for f in found
        if not f.place and (f.task, f.measure) == (b.task, b.measure)
    }
    data = {"subject": dict(subject), "figures": [figure.to_json() for figure in found], "bars": reached}
    (out / "report.json").write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for overall in found:
        if not overall.place:
            _plot(out, overall, [r for r in results if r.task == overall.task and overall.measure in r.scores])


def _plot(out: Path, overall: Figure, there: Sequence[Result]) -> None:
    """A curve over each axis of numbers, and a heatmap over each pair of them."""
    task, measure = overall.task, overall.measure
    stem = "".join(c if c.isalnum() else "-" for c in f"{task}-{measure}")
    axes = [axis for axis in there[0].axes if _is_plottable(there, axis)]
    for axis in axes:
        groups = {float(value): [r for r in there if r.axes[axis] == value] for value in _values(there, axis)}
        points = [(value, interval([r.scores[measure] for r in held])) for value, held in groups.items()]
        plot = curves(f"{task}: {measure} by {axis}", axis, {task: points})
        (out / f"{stem}-by-{axis}.svg").write_text(plot, encoding="utf-8")
    for across, down in combinations(axes, 2):
        plot = heatmap(f"{task}: {measure} by {across} and {down}", across, down, _grid(overall, there, across, down))
        (out / f"{stem}-by-{across}-and-{down}.svg").write_text(plot, encoding="utf-8")


def _grid(overall: Figure, there: Sequence[Result], across: str, down: str) -> dict[tuple[float, float], Interval]:
    cells: dict[tuple[float, float], list[Result]] = {}
    for result in there:
        cells.setdefault((float(result.axes[across]), float(result.axes[down])), []).append(result)
    return {cell: interval([r.scores[overall.measure] for r in held]) for cell, held in sorted(cells.items())}


def _figure(task: str, measure: str, place: Mapping[str, float | str], there: Sequence[Result]) -> Figure:
    return Figure(task, measure, place, len(there), interval([result.scores[measure] for result in there]))


def _values(there: Sequence[Result], axis: str) -> list[float | str]:
    """The axis' values, numbers in their order; none where they are too many to be groups."""
    values = {result.axes[axis] for result in there}
    if len(values) > MOST_GROUPS:
        return []
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _is_plottable(there: Sequence[Result], axis: str) -> bool:
    values = _values(there, axis)
    return len(values) > 1 and not any(isinstance(value, str) for value in values)


def _told(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
