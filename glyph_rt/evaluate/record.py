"""The record of a run: one JSON object per line, each answer exactly once, whatever interrupted the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glyph_rt.errors import InputError
from glyph_rt.evaluate.task import Score
from glyph_rt.lines import LineFile


@dataclass(frozen=True)
class Result:
    """What became of one question."""

    task: str
    id: str
    answer: str
    expected: str
    scores: Mapping[str, Score]
    axes: Mapping[str, float | str]

    def to_json(self) -> dict[str, Any]:
        scores = {name: [score.value, score.weight] for name, score in self.scores.items()}
        return {**vars(self), "scores": scores, "axes": dict(self.axes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        return cls(**{**data, "scores": {name: Score(*score) for name, score in data["scores"].items()}})


class Record:
    """The results of one run, kept in `file`. Its first line says what was run (`subject`): other weights or another style are
    another run, which InputError refuses. A second process on the file is refused, too.

    Without a file, results are kept in memory only.
    """

    def __init__(self, file: Path | None, subject: Mapping[str, str]) -> None:
        self.results: dict[tuple[str, str], Result] = {}
        self._lines = None if file is None else LineFile(file)
        try:
            if self._lines is not None:
                self._take_up(self._lines, dict(subject))
        except BaseException:
            self.close()
            raise

    def add(self, result: Result) -> None:
        """Keep a result, on disk before this returns. Raises OutputError when that is not possible."""
        assert (result.task, result.id) not in self.results, "a question's id must be its own within its task"
        if self._lines is not None:
            self._lines.append(result.to_json())
        self.results[result.task, result.id] = result

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_up(self, lines: LineFile, subject: dict[str, str]) -> None:
        try:
            stored = list(lines.read())
            results = [Result.from_json(line) for line in stored[1:]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{lines.file} is not the record of an evaluation ({error}); choose another --out") from None
        if not stored:
            lines.append(subject)
        elif (head := stored[0]) != subject:
            other = next((key for key in subject if head.get(key) != subject[key]), "subject")
            told = f"{lines.file} is the record of another {other}: {head.get(other)}, not {subject.get(other)}"
            raise InputError(f"{told}; choose another --out")
        self.results = {(result.task, result.id): result for result in results}
