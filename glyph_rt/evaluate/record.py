"""The record of a run: one JSON object per line, each answer exactly once, whatever interrupted the run."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glyph_rt.errors import InputError
from glyph_rt.evaluate.task import Score


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
    another run, which InputError refuses. A line that was cut off is taken back; a second process on the file is refused.

    Without a file, results are kept in memory only.
    """

    def __init__(self, file: Path | None, subject: Mapping[str, str]) -> None:
        self.results: dict[tuple[str, str], Result] = {}
        self._stream = None
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = file.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_up(file, subject)
        except BlockingIOError:
            self.close()
            raise InputError(f"another process writes {file}; wait for it, or choose another --out") from None
        except BaseException:
            self.close()
            raise

    def add(self, result: Result) -> None:
        """Keep a result, on disk before this returns."""
        assert (result.task, result.id) not in self.results, "a question's id must be its own within its task"
        self.results[result.task, result.id] = result
        self._write(result.to_json())

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_up(self, file: Path, subject: Mapping[str, str]) -> None:
        assert self._stream is not None
        self._stream.seek(0)
        whole = self._stream.read()
        kept = whole[: whole.rfind(b"\n") + 1]
        self._stream.truncate(len(kept))
        try:
            head, *lines = [json.loads(line) for line in kept.splitlines()] or [None]
            results = [Result.from_json(line) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is not the record of an evaluation ({error}); choose another --out") from None
        if head is None:
            self._write(dict(subject))
        elif head != dict(subject):
            other = next((key for key in subject if head.get(key) != subject[key]), "subject")
            raise InputError(f"{file} is the record of another {other}: {head.get(other)}, not {subject.get(other)}; choose another --out")
        self.results = {(result.task, result.id): result for result in results}

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
