"""Files that may be replaced while the server runs, such as certificates that are renewed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from glyph_rt.errors import GlyphError

LOG = logging.getLogger("glyph_rt.service")
T = TypeVar("T")


class WatchedFiles(Generic[T]):
    """What was loaded from some files, loaded again when one of them has changed. Thread-safe.

    A change that cannot be loaded, such as a certificate whose key has not been replaced yet, is logged and the former value stays;
    it is tried again when a file changes again.
    """

    def __init__(self, files: tuple[Path, ...], load: Callable[[], T]) -> None:
        """Raises what `load` raises: a server does not start on broken files."""
        self._files, self._load = files, load
        self._lock = threading.Lock()
        self._seen = self._state()
        self._value = load()
        self.version = 0  # grows with every reload

    @property
    def value(self) -> T:
        """As the files have it now."""
        with self._lock:
            state = self._state()
            if state != self._seen:
                names = ", ".join(file.name for file in self._files)
                try:
                    value = self._load()
                except GlyphError as error:
                    LOG.error("%s changed and cannot be used; what was loaded before stays: %s", names, error)
                    self._seen = state
                else:
                    # Files that changed again meanwhile are loaded anew next time.
                    self._seen, self._value = state, value
                    self.version += 1
                    LOG.warning("%s changed and was loaded anew", names)
            return self._value

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state(file) for file in self._files)


def _state(file: Path) -> tuple[int, int, int] | None:
    """Tells one state of a file from another; None: not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
