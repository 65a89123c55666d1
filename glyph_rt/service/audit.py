"""The audit log: who asked for what and when, as JSON lines, and never a word of a text, a question or an answer.

A server that cannot keep its records takes no more work: calls are refused as UNAVAILABLE until a record can be written again, and that
one says how many were lost. Writing happens on a thread of its own, so a slow disk does not hold up the event loop.
"""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from glyph_rt.errors import OptionError, UnavailableError

LOG = logging.getLogger("glyph_rt.service")
Fact = str | int | float


class AuditLog:
    """Appends one line per call to a file, which may be moved away: a new one is made. Used from the event loop."""

    def __init__(self, file: Path) -> None:
        """Raises OptionError for a file that cannot be written."""
        self._file = file
        self._pool = ThreadPoolExecutor(1, "glyph-audit")  # one, so that lines keep their order
        self._lost = 0
        if not self._write(_line({"event": "start"})):
            raise OptionError(f"the audit log {file} cannot be written; choose another --audit or make room")

    def check(self) -> None:
        """Raises UnavailableError while records are being lost, after asking for another attempt."""
        if self._lost:
            self._pool.submit(self._recover)
            told = "the server cannot keep its records"
            raise UnavailableError(told, public=told)

    def record(self, **facts: Fact) -> None:
        """Note one call. Does not wait for the disk."""
        self._pool.submit(self._keep, _line({"event": "call", **facts}))

    def close(self) -> None:
        """Write what is waiting."""
        self._pool.shutdown(wait=True)

    def _keep(self, line: bytes) -> None:
        if not self._write(line):
            if not self._lost:
                LOG.error("the audit log %s cannot be written; calls are refused until it can", self._file)
            self._lost += 1

    def _recover(self) -> None:
        # The line break ends a record that was cut short when the disk was full.
        if self._lost and self._write(b"\n" + _line({"event": "gap", "lost": self._lost})):
            LOG.warning("the audit log %s is written again; %d records were lost", self._file, self._lost)
            self._lost = 0

    def _write(self, line: bytes) -> bool:
        """Whether the whole line is in the file. It is opened each time: it may have been moved away to be archived."""
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                return os.write(descriptor, line) == len(line)
            finally:
                os.close(descriptor)
        except OSError:
            return False


def _line(facts: dict[str, Fact]) -> bytes:
    return (json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}) + "\n").encode()
