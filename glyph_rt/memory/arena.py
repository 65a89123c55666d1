"""Arena: the byte budget that makes memory bounded.

Every request is let in with its worst case before any work is done, so an admitted request never fails for memory. It gets all of it in
one step of the queue, and holds nothing while it waits: who waits is in nobody's way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from glyph_rt.errors import BusyError, ClosedError, InternalError, LimitError
from glyph_rt.memory.limits import MIB

T = TypeVar("T")
PlaceCallback = Callable[[int], None]  # told a place in the queue, from 1


class _Block:
    """Bytes set aside, and how many handles hold them."""

    def __init__(self, size: int) -> None:
        self.size, self.handles = size, 1


class _NoRoomError(Exception):
    """Not now; says what was needed. Seen by no one but the arena."""


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

    def split(self, size: int) -> Reservation:
        """`size` of these bytes as a reservation of its own, which leaves this one with the others. Of a handle that is the only one."""
        return self._arena._split(self, size)

    def release(self) -> None:
        self._arena._release(self)


Take = Callable[[int, str], Reservation]  # bytes, and what for
Claim = Callable[[Take], T]


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
        self.changed = threading.Condition(self.lock)  # notified when there may be more room, or somebody waits in vain
        self._queue: deque[object] = deque()
        self._blocks: set[_Block] = set()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        with self.lock:
            return self._used

    def reserve(self, size: int, purpose: str, on_wait: PlaceCallback = lambda place: None) -> Reservation:
        """Set `size` bytes aside, waiting for room if there is a place to wait. on_wait, and what it raises: as `admit`."""
        return self.admit(lambda take: take(size, purpose), on_wait)

    def admit(self, claim: Claim[T], on_wait: PlaceCallback = lambda place: None) -> T:
        """What `claim` gives, once there is room for all it takes; waits for that if there is a place to wait.

        claim: run under `lock`, whenever it may find room. It is given a function that sets bytes aside, which it calls at most once, for
        all it needs. What that raises it lets pass, and then it holds nothing of what it took otherwise: pins, handles. on_wait: told the
        place in the queue whenever who waits looks for room, at first and then after every change. It runs under `lock`, so it must neither
        wait nor reserve; what it raises ends the waiting.

        Raises LimitError, with the figures and the knob, for what can never fit, BusyError for what may fit later, and what `claim` raises.
        """
        with self.lock:
            try:
                return claim(self._refuse if self._queue else self._take)
            except _NoRoomError as error:
                needed = str(error)
            return self._wait(claim, needed, on_wait)

    def check_size(self, size: int, purpose: str) -> None:
        """Raises LimitError for what can never fit."""
        if size > self.budget:
            told = f"{purpose} needs {_mib(size)} of {self._what} and"
            raise LimitError(
                f"{told} the budget is {_mib(self.budget)}; raise {self._knob}", public=f"{told} this server has {_mib(self.budget)}"
            )

    def recheck(self) -> None:
        """Something can be reclaimed that could not be before, or somebody waits in vain: let those who wait look again, be it for room or
        for what others bring in."""
        with self.lock:
            self.changed.notify_all()

    def check_integrity(self) -> None:
        """Raise AssertionError unless the accounts add up."""
        with self.lock:
            total = sum(block.size for block in self._blocks)
            if total != self._used or not 0 <= self._used <= self.budget or any(b.handles < 1 for b in self._blocks):
                raise AssertionError(f"{self._what}: {self._used} bytes used, {total} held, budget {self.budget}")

    def _take(self, size: int, purpose: str) -> Reservation:
        """`size` bytes, if they are to be had now."""
        self.check_size(size, purpose)
        if self.budget - self._used < size:
            self.reclaim(size - (self.budget - self._used))
        if self.budget - self._used < size:
            raise self._no_room(size, purpose)
        self._used += size
        return self._handle(size)

    def _refuse(self, size: int, purpose: str) -> Reservation:
        """Others wait in front; who needs nothing passes."""
        self.check_size(size, purpose)
        if size:
            raise self._no_room(size, purpose)
        return self._handle(0)

    def _no_room(self, size: int, purpose: str) -> _NoRoomError:
        return _NoRoomError(f"{purpose} needs {_mib(size)} of {self._what}")

    def _handle(self, size: int) -> Reservation:
        block = _Block(size)
        self._blocks.add(block)
        return Reservation(self, block)

    def _wait(self, claim: Claim[T], needed: str, on_wait: PlaceCallback) -> T:
        """What `claim` gives when it is its turn. Raises BusyError when there is no place to wait, or it took too long."""
        mark = object()
        given: list[T] = []

        def look() -> bool:
            nonlocal needed
            place = 1 + self._queue.index(mark)
            if place == 1:
                try:
                    given.append(claim(self._take))
                    return True
                except _NoRoomError as error:
                    needed = str(error)
            on_wait(place)
            return False

        waited = len(self._queue) < self._places and self._wait_s > 0
        if waited:
            self._queue.append(mark)
            try:
                if self.changed.wait_for(look, self._wait_s):
                    return given[0]
            finally:
                self._queue.remove(mark)
                self.changed.notify_all()
        waited_for = f"after {self._wait_s:g} s of waiting" if waited else f"and {len(self._queue)} requests wait already"
        raise BusyError(
            f"{needed} and the budget is {_mib(self.budget)}, of which {_mib(self._used)} are in use; "
            f"{waited_for}. Try again later, close documents or raise {self._knob}",
            public=f"{needed}, which is in use by others",
        )

    def _share(self, handle: Reservation) -> Reservation:
        with self.lock:
            if handle._released:
                raise ClosedError(f"this {self._what} was given back")
            handle._block.handles += 1
            return Reservation(self, handle._block)

    def _split(self, handle: Reservation, size: int) -> Reservation:
        with self.lock:
            if handle._released:
                raise ClosedError(f"this {self._what} was given back")
            if handle._block.handles > 1 or not 0 <= size <= handle._block.size:
                raise InternalError(f"{size} of {handle._block.size} bytes of {self._what}, with {handle._block.handles} handles on them")
            handle._block.size -= size
            return self._handle(size)

    def _release(self, handle: Reservation) -> None:
        with self.lock:
            if handle._released:
                return
            handle._released = True
            handle._block.handles -= 1
            if handle._block.handles == 0:
                self._blocks.discard(handle._block)
                self._used -= handle._block.size
                self.changed.notify_all()


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"
