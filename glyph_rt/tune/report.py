"""What a search comes to, written down: the front as style files, as a table for people and for programs, and as plots."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from glyph_rt.evaluate.metrics import Interval
from glyph_rt.evaluate.plots import scatter
from glyph_rt.tune.front import Finding
from glyph_rt.tune.judgement import EQUAL, MARGIN, Judgement, gains
from glyph_rt.tune.search import REFERENCE, Search, Tried
from glyph_rt.tune.space import Space
from glyph_rt.typeset import Style

STYLES = "styles"  # the folder of style files


def style_file(space: Space, tried: Tried) -> str:
    """A style's file name: its trial, and what it changes."""
    told = "-".join(f"{key} {value}" for key, value in space.changes(tried.point).items()) or "reference"
    return f"{tried.number:04}-{re.sub('[^a-zA-Z0-9.]+', '-', told).strip('-.').lower()[:80]}.json"


def write(
    out: Path,
    search: Search,
    judged: Sequence[Judgement],
    picked: Mapping[str, Tried],
    counts: Mapping[str, int],
    subject: Mapping[str, str],
) -> None:
    """Replaces what an earlier report left in `out`."""
    folder = out / STYLES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for each in judged:
        _write_style(folder / style_file(search.space, each.tried), each.tried.style)
    data = {
        "subject": dict(subject),
        "tried": [{**_tried(search.space, tried), **tried.finding.to_json()} for tried in search.tried],
        "refused": [{"number": r.number, "origin": r.origin, "reason": r.reason} for r in search.refused],
        "critic": dict(counts),
        "picked": {name: tried.number for name, tried in picked.items()},
        "judged": [_judged(search.space, each) for each in judged],
    }
    (out / "front.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "front.md").write_text(table(search, judged, picked) + "\n", encoding="utf-8")
    front = {each.tried.number for each in judged}
    _plot(out, "compression", "text tokens per visual token", search, front, lambda finding: finding.compression)
    _plot(out, "time", "seconds, as a multiple of the reference's", search, front, lambda finding: finding.time)


def _plot(out: Path, name: str, axis: str, search: Search, front: Collection[int], along: Callable[[Finding], float]) -> None:
    points: dict[str, list[tuple[float, Interval, str]]] = {"tried": [], "front": [], "reference": []}
    for tried in search.tried:
        group = "reference" if tried.origin == REFERENCE else "front" if tried.number in front else "tried"
        points[group].append((along(tried.finding), tried.finding.accuracy, changes_told(search.space, tried)))
    (out / f"front-{name}.svg").write_text(scatter(f"Accuracy by {name}, on the search set", axis, points), encoding="utf-8")


def table(search: Search, judged: Sequence[Judgement], picked: Mapping[str, Tried]) -> str:
    """Markdown. The figures are those of the held-out documents, with 95 % intervals; the last column those that the search found."""
    reference = judged[0]
    lines = [
        "| style | accuracy | against the reference | characters per visual token | times as dense | seconds (rounds) | in the search |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in judged:
        found = each.tried.finding
        searched = f"{found.accuracy.share:.1%} of {len(found.right)}, {found.compression:.2f}, x {found.time:.2f}"
        against = "" if each is reference else f"{_points(each)}: {each.verdict}"
        lines.append(
            f"| {each.tried.number}: {_in_markdown(changes_told(search.space, each.tried))} "
            f"| {each.accuracy} | {against} | {each.density:.2f} "
            f"| {each.denser.share:.3f} ({each.denser.low:.3f} to {each.denser.high:.3f}) "
            f"| {each.slower.share:.2f} ({each.slower.low:.2f} to {each.slower.high:.2f}) | {searched} |"
        )
    held = f"{reference.questions} questions on held-out documents"
    lines += ["", f"Picked by the search set, and judged by {held}:", ""]
    by_number = {each.tried.number: each for each in judged}
    for name, tried in picked.items():
        each = by_number[tried.number]
        told = "the reference itself" if each is reference else f"{_points(each)} ({each.verdict}), {each.denser.share:.3f} times as dense"
        lines.append(f"- {name}: {_in_markdown(changes_told(search.space, tried))}: {told}")
    won = list(gains(judged))
    told = f"{len(won)} of the {len(judged) - 1} others on the front beat the reference there"
    lines += ["", f"{told}: more accurate, or {EQUAL} (within {MARGIN:.0%}) and denser or faster."]
    return "\n".join(lines)


def _points(each: Judgement) -> str:
    """A difference of shares, in percentage points."""
    gain = each.gain
    return f"{100 * gain.share:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def changes_told(space: Space, tried: Tried) -> str:
    """What a style changes about the reference, in one line."""
    return ", ".join(f"{key} {value}" for key, value in space.changes(tried.point).items()) or "the reference"


def _in_markdown(text: str) -> str:
    """Without markup or the ends of table cells."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _tried(space: Space, tried: Tried) -> dict[str, Any]:
    changes = {"changes": space.changes(tried.point)}
    return {"number": tried.number, "origin": tried.origin, **({"note": tried.note} if tried.note else {}), **changes}


def _judged(space: Space, each: Judgement) -> dict[str, Any]:
    intervals = {name: vars(getattr(each, name)) for name in ("accuracy", "gain", "denser", "slower")}
    figures = {"questions": each.questions, "compression": each.compression, "density": each.density, "verdict": each.verdict}
    return {"number": each.tried.number, "style": f"{STYLES}/{style_file(space, each.tried)}", **figures, **intervals}


def _write_style(file: Path, style: Style) -> None:
    named = {**style.to_json(), "name": file.stem}
    file.write_text(json.dumps(named, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
