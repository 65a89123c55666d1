"""What a server takes on at once. Everything here is decided before memory is spent on a request."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from glyph_rt.errors import BusyError, OptionError
from glyph_rt.memory import KIB, MIB, Limits


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of the service; those of one text (bytes, pages) and of KV memory are the runtime's own `Limits`.

    Raises OptionError for values that no server can work with.
    """

    documents: int = 64  # kept at once, readings under way included
    streams: int = 32  # readings and answers under way at once
    upload_bytes: int = 64 * MIB  # of all texts being uploaded or read together
    question_bytes: int = 16 * KIB  # of one question, in UTF-8
    message_bytes: int = 4 * MIB  # of one request message; gRPC itself refuses larger ones with RESOURCE_EXHAUSTED
    deadline_s: float = 600.0  # of one call, whatever the client asks for
    idle_s: float = 3600.0  # without a question, after which a document is forgotten
    drain_s: float = 30.0  # for calls under way to end once the server was told to stop
    readers: int = 1  # threads that read documents; one already fills the cores
    answerers: int = 2  # threads that answer, one token of one answer at a time

    def __post_init__(self) -> None:
        for name in ("documents", "streams", "upload_bytes", "question_bytes", "message_bytes", "readers", "answerers"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name.replace('_', '-')} must be at least 1")
        for name in ("deadline_s", "idle_s"):
            if not (0 < getattr(self, name) < math.inf):
                raise OptionError(f"{name[:-2]} must be a number of seconds above 0")
        if not 0 <= self.drain_s < math.inf:
            raise OptionError("drain must be a number of seconds, 0 or more")

    def check_against(self, limits: Limits) -> None:
        """Raises OptionError when one text that `limits` allows could not be uploaded even alone."""
        if limits.text_bytes > self.upload_bytes:
            raise OptionError(f"upload-bytes must be at least text-bytes ({limits.text_bytes:,})")


class Quota:
    """A bounded amount that calls share. Thread-safe. Never waits: what is not free is refused with `refusal`."""

    def __init__(self, limit: int, refusal: str) -> None:
        self.limit, self._refusal = limit, refusal
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        """The amount taken now."""
        with self._lock:
            return self._used

    def take(self, amount: int = 1) -> None:
        """Take `amount`, or raise BusyError and take nothing."""
        with self._lock:
            if self._used + amount > self.limit:
                raise BusyError(self._refusal, public=self._refusal)
            self._used += amount

    def give(self, amount: int = 1) -> None:
        """Give back what was taken."""
        with self._lock:
            self._used -= amount
            assert self._used >= 0, "more was given back than taken"

    @contextmanager
    def held(self, amount: int = 1) -> Iterator[None]:
        """Take for as long as the block runs."""
        self.take(amount)
        try:
            yield
        finally:
            self.give(amount)
