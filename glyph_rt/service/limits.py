"""What a server takes on at once. Everything here is decided before memory is spent on a request."""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import dataclass

from glyph_rt.errors import BusyError, OptionError
from glyph_rt.memory.limits import KIB, MIB, Limits


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of the service; those of one text (bytes, pages) and of KV memory are the runtime's own `Limits`.

    Raises OptionError for values that no server can work with.
    """

    documents: int = 64  # kept at once, readings under way included
    streams: int = 32  # readings and answers under way at once
    tenant_documents: int | None = None  # of these, one tenant's; None: all of them
    tenant_streams: int | None = None
    upload_bytes: int = 64 * MIB  # of all texts being uploaded or read together
    # Of all texts together that are read by a strategy other than whole. Their words are indexed, in about seven times as much memory for
    # prose, and at worst, where no two words are alike, ninety times.
    long_bytes: int = 4 * MIB
    parts: int = 64  # of one such text
    window: int | None = None  # pages of it read at a time; None: as many as fit
    question_bytes: int = 16 * KIB  # of one question, in UTF-8
    message_bytes: int = 4 * MIB  # of one request message; gRPC itself refuses larger ones with RESOURCE_EXHAUSTED
    deadline_s: float = 600.0  # of one call, whatever the client asks for
    idle_s: float = 3600.0  # without a question, after which a document is forgotten
    keepalive_s: float = 60.0  # between pings on a quiet connection; a client that answers none within a third of it is gone
    drain_s: float = 30.0  # for calls under way to end once the server was told to stop
    readers: int = 2  # threads that read documents: one draws and encodes while the other's pages are prefilled

    def __post_init__(self) -> None:
        for name in ("tenant_documents", "tenant_streams", "window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise OptionError(f"{name.replace('_', '-')} must be at least 1")
        for name in ("documents", "streams", "upload_bytes", "long_bytes", "parts", "question_bytes", "message_bytes", "readers"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name.replace('_', '-')} must be at least 1")
        for name in ("deadline_s", "idle_s", "keepalive_s"):
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


class Shares:
    """How many of something each tenant has taken, at most `limit` each; None: no limit. Used from the event loop only."""

    def __init__(self, limit: int | None, noun: str) -> None:
        self._limit, self._refusal = limit, f"a client may have at most {limit} {noun} at once"
        self._taken: Counter[str] = Counter()

    def __getitem__(self, tenant: str) -> int:
        return self._taken[tenant]

    def take(self, tenant: str) -> None:
        """Take one, or raise BusyError and take none."""
        if self._limit is not None and self._taken[tenant] >= self._limit:
            raise BusyError(self._refusal, public=self._refusal)
        self._taken[tenant] += 1

    def give(self, tenant: str) -> None:
        """Give one back. A tenant that has none is not remembered."""
        self._taken[tenant] -= 1
        if self._taken[tenant] == 0:
            del self._taken[tenant]
