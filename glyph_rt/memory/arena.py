"""Arena: the byte budget that makes memory bounded.

Every request reserves its worst case before any work is done, so an admitted request never fails for memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from glyph_rt.errors import BusyError, ClosedError, LimitError
from glyph_rt.memory.limits import MIB

PlaceCallback = Callable[[int], None]  # told a place in the queue, from 1


class _Block:
    """Bytes set aside, and how many handles hold them."""

    def __init__(self, size: int) -> None:
        self.size, self.handles = size, 1


class Reservation:
    """One handle on a part of the arena. The bytes are free again when the last handle on them is released.

    Releasing a handle twice does nothing, so that every path may release.
    """

    def __init__(self, arena: Arena, block: _Block) -> None:
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


class Arena:
    """A budget of bytes of `what`, which `knob` raises. Thread-safe.

    What finds no room waits in the order it came, at most `waiting` requests for at most `wait_s` seconds each. `reclaim(size)` is asked
    first to free at least `size` bytes of what nobody uses; it runs under `lock`, which whoever keeps such things shares.
    """

    def __init__(self, budget: int, what: str, knob: str, waiting: int = 0, wait_s: float = 0.0) -> None:
        self.budget = budget
        self.lock = threading.RLock()
        self.reclaim: Callable[[int], None] = lambda size: None
        self._what, self._knob = what, knob
        self._places, self._wait_s = waiting, wait_s
        self._freed = threading.Condition(self.lock)
        self._queue: deque[object] = deque()
        self._blocks: set[_Block] = set()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        with self.lock:
            return self._used

    def reserve(self, size: int, purpose: str, on_wait: PlaceCallback = lambda place: None) -> Reservation:
        """Set `size` bytes aside, waiting for room if there is a place to wait.

        on_wait: told the place in the queue whenever who waits looks for room, at first and then after every change. It runs under `lock`,
        so it must neither wait nor reserve; what it raises ends the waiting.

        Raises LimitError, with the figures and the knob, for what can never fit, and BusyError for what may fit later.
        """
        self.check_size(size, purpose)
        with self.lock:
            if self._queue or not self._make_room(size):
                self._wait(size, purpose, on_wait)
            block = _Block(size)
            self._blocks.add(block)
            self._used += size
            return Reservation(self, block)

    def check_size(self, size: int, purpose: str) -> None:
        """Raises LimitError for what can never fit."""
        if size > self.budget:
            told = f"{purpose} needs {_mib(size)} of {self._what} and"
            raise LimitError(
                f"{told} the budget is {_mib(self.budget)}; raise {self._knob}", public=f"{told} this server has {_mib(self.budget)}"
            )

    def recheck(self) -> None:
        """Something can be reclaimed that could not be before, or somebody waits in vain: let those who wait look again."""
        with self.lock:
            self._freed.notify_all()

    def check_integrity(self) -> None:
        """Raise AssertionError unless the accounts add up."""
        with self.lock:
            total = sum(block.size for block in self._blocks)
            if total != self._used or not 0 <= self._used <= self.budget or any(b.handles < 1 for b in self._blocks):
                raise AssertionError(f"{self._what}: {self._used} bytes used, {total} held, budget {self.budget}")

    def _make_room(self, size: int) -> bool:
        if self.budget - self._used < size:
            self.reclaim(size - (self.budget - self._used))
        return self.budget - self._used >= size

    def _wait(self, size: int, purpose: str, on_wait: PlaceCallback) -> None:
        """Returns with `size` bytes free. Raises BusyError when there is no place to wait, or it took too long."""
        mark = object()

        def look() -> bool:
            place = 1 + self._queue.index(mark)
            if place == 1 and self._make_room(size):
                return True
            on_wait(place)
            return False

        waited = len(self._queue) < self._places and self._wait_s > 0
        if waited:
            self._queue.append(mark)
            try:
                if self._freed.wait_for(look, self._wait_s):
                    return
            finally:
                self._queue.remove(mark)
                self._freed.notify_all()
        waited_for = f"after {self._wait_s:g} s of waiting" if waited else f"and {len(self._queue)} requests wait already"
        raise BusyError(
            f"{purpose} needs {_mib(size)} of {self._what} and the budget is {_mib(self.budget)}, of which {_mib(self._used)} are in use; "
            f"{waited_for}. Try again later, close documents or raise {self._knob}",
            public=f"{purpose} needs {_mib(size)} of {self._what}, which is in use by others",
        )

    def _share(self, handle: Reservation) -> Reservation:
        with self.lock:
            if handle._released:
                raise ClosedError(f"this {self._what} was given back")
            handle._block.handles += 1
            return Reservation(self, handle._block)

    def _release(self, handle: Reservation) -> None:
        with self.lock:
            if handle._released:
                return
            handle._released = True
            handle._block.handles -= 1
            if handle._block.handles == 0:
                self._blocks.discard(handle._block)
                self._used -= handle._block.size
                self._freed.notify_all()


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"
