"""Memory: how the budget is spent, and the arena that makes KV memory bounded.

Every request reserves its worst case before any work is done, so an admitted request never fails for memory.
"""

from __future__ import annotations

import re
import resource
import sys
import threading
from dataclasses import dataclass

from glyph_rt.errors import BusyError, ClosedError, LimitError, OptionError

KIB, MIB, GIB = 2**10, 2**20, 2**30
_UNITS = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "k": KIB, "m": MIB, "g": GIB}


@dataclass(frozen=True)
class Limits:
    """What a runtime takes on. The command line has options for the first two."""

    kv_bytes: int = GIB  # KV memory of all documents and turns together: --kv-bytes
    text_bytes: int = 16 * MIB  # UTF-8 size of one document: --text-bytes
    page_bytes: int = 64 * MIB  # drawn pages kept, in case they are read again; 0: none
    pages: int | None = None  # of one document; None: what the model's context holds

    def __post_init__(self) -> None:
        if self.kv_bytes < 1 or self.text_bytes < 1:
            raise OptionError("kv-bytes and text-bytes must be at least 1")
        if self.page_bytes < 0:
            raise OptionError("page-bytes must not be negative")
        if self.pages is not None and self.pages < 1:
            raise OptionError("pages must be at least 1")


class _Block:
    """Bytes set aside, and how many handles hold them."""

    def __init__(self, size: int) -> None:
        self.size, self.handles = size, 1


class Reservation:
    """One handle on a part of the arena. The bytes are free again when the last handle on them is released.

    Releasing a handle twice does nothing, so that every path may release.
    """

    def __init__(self, arena: KVArena, block: _Block) -> None:
        self._arena, self._block = arena, block
        self._released = False

    @property
    def size(self) -> int:
        return self._block.size

    def share(self) -> Reservation:
        """Another handle on the same bytes, for another user of what lies in them."""
        return self._arena._share(self)

    def release(self) -> None:
        self._arena._release(self)


class KVArena:
    """The byte budget that all KV memory comes out of. Thread-safe."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._blocks: set[_Block] = set()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        with self._lock:
            return self._used

    def reserve(self, size: int, purpose: str) -> Reservation:
        """Set `size` bytes aside. Raises LimitError, with the figures and the knob, when they are not free: BusyError if they could be."""
        with self._lock:
            free = self.budget - self._used
            if size > free:
                reason = f"the budget is {_mib(self.budget)}" + (f", of which {_mib(self._used)} are in use" if self._used else "")
                remedy = "raise --kv-bytes" if size > self.budget else "close documents or raise --kv-bytes"
                message = f"{purpose} needs {_mib(size)} of KV memory and {reason}; {remedy}"
                if size > self.budget:
                    raise LimitError(message, public=f"{purpose} needs {_mib(size)} of KV memory and this server has {_mib(self.budget)}")
                raise BusyError(message, public=f"{purpose} needs {_mib(size)} of KV memory, which is in use by others")
            block = _Block(size)
            self._blocks.add(block)
            self._used += size
            return Reservation(self, block)

    def check_integrity(self) -> None:
        """Raise AssertionError unless the accounts add up."""
        with self._lock:
            total = sum(block.size for block in self._blocks)
            if total != self._used or not 0 <= self._used <= self.budget or any(b.handles < 1 for b in self._blocks):
                raise AssertionError(f"KV arena: {self._used} bytes used, {total} held, budget {self.budget}")

    def _share(self, handle: Reservation) -> Reservation:
        with self._lock:
            if handle._released:
                raise ClosedError("this KV memory was given back")
            handle._block.handles += 1
            return Reservation(self, handle._block)

    def _release(self, handle: Reservation) -> None:
        with self._lock:
            if handle._released:
                return
            handle._released = True
            handle._block.handles -= 1
            if handle._block.handles == 0:
                self._blocks.discard(handle._block)
                self._used -= handle._block.size


@dataclass(frozen=True)
class MemoryPlan:
    """How a runtime spends memory, in bytes."""

    weights: int
    kv_budget: int
    kv_per_token: int
    context: int  # tokens of one prompt and answer

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV budget holds."""
        return self.kv_budget // self.kv_per_token


def parse_size(text: str) -> int:
    """ "512MiB" or "2GiB" or a number of bytes. Raises OptionError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise OptionError(f"{text!r} is not a size; write bytes, or a number with KiB, MiB or GiB")
    return int(float(match[1]) * unit)


def peak_rss_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB  # macOS counts in bytes, Linux in KiB


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"
