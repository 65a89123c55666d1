"""Shared parts: a measure of styles that reads nothing, and a search over it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glyph_rt.tune.front import DOMINATED, UNREADABLE, Finding
from glyph_rt.tune.search import Search
from glyph_rt.tune.space import Space
from glyph_rt.typeset import PRESETS, Style

SPACE = Space.around(PRESETS["reader"], ("space-after", "margin-y", "alignment", "auto-crop-width", "pagination", "first-line-indent"))
SUBJECT = {"model": "m", "reference": "reader"}


@dataclass
class MadeUp:
    """Findings that follow from the style alone. Stops with Killed before the style numbered `kill_at`."""

    kill_at: int | None = None
    styles: list[Style] = field(default_factory=list)

    def __call__(self, style: Style, others: Sequence[Finding]) -> Finding:
        if len(others) == self.kill_at:
            raise Killed
        self.styles.append(style)
        draw = hashlib.sha256(repr(style).encode()).digest()
        stopped = UNREADABLE if draw[3] < 40 else DOMINATED if draw[3] < 80 else ""
        return Finding("1" * (draw[0] % 30) + "0" * 30, 1 + draw[1] / 64, 2.0, 1 + draw[2] / 128, stopped)


class Killed(BaseException):
    """Stands for the end of a process in the middle of a trial."""


def search(folder: Path, measure: MadeUp, space: Space = SPACE, seed: int = 0, neighbours: int = 48) -> Search:
    return Search(folder, space, measure, SUBJECT, seed, 8, neighbours)
