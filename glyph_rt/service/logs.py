"""What a serving process says on standard error: lines for people, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

LOG = logging.getLogger("glyph_rt.service")


class _People(logging.Formatter):
    """`glyph-rt: [   1.23 s] text`, in seconds since the process began."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self._start = start

    def format(self, record: logging.LogRecord) -> str:
        return f"glyph-rt: [{time.perf_counter() - self._start:7.2f} s] {record.getMessage()}"


class _Json(logging.Formatter):
    """An object with time, level, logger, message, and `seconds` where something was timed."""

    def format(self, record: logging.LogRecord) -> str:
        time_ = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": time_, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if hasattr(record, "seconds"):
            entry["seconds"] = record.seconds
        return json.dumps(entry, ensure_ascii=False)


def configure(start: float, *, as_json: bool) -> None:
    """Send glyph-rt's log, and warnings of the libraries, to standard error. start: of `time.perf_counter`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _People(start))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    LOG.setLevel(logging.INFO)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A phase that takes time; its line comes when it is over."""
    before = time.perf_counter()
    yield
    seconds = time.perf_counter() - before
    LOG.info("%s in %.2f s", name, seconds, extra={"seconds": round(seconds, 3)})
