"""The arena's accounts under any sequence of operations, and its queue."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from glyph_rt.errors import BusyError, ClosedError, InternalError, LimitError
from glyph_rt.memory.arena import Arena, Reservation, Take
from tests.conftest import eventually


class ArenaMachine(RuleBasedStateMachine):
    """Reserve, share, release, release again; the model is a dictionary of who holds what."""

    handles = Bundle("handles")
    released = Bundle("released")

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(1000, "KV memory", "--kv-bytes")
        self.held: dict[Reservation, object] = {}  # live handle -> block
        self.sizes: dict[object, int] = {}

    def expected(self) -> int:
        return sum(self.sizes[block] for block in set(self.held.values()))

    @rule(target=handles, size=st.integers(0, 700))
    def reserve(self, size: int) -> Reservation | None:
        free = 1000 - self.expected()
        if size > free:
            with pytest.raises(LimitError, match="--kv-bytes"):
                self.arena.reserve(size, "a test")
            return None
        handle = self.arena.reserve(size, "a test")
        block = object()
        self.held[handle], self.sizes[block] = block, size
        return handle

    @rule(target=handles, handle=handles)
    def share(self, handle: Reservation | None) -> Reservation | None:
        if handle is None:
            return None
        if handle not in self.held:
            with pytest.raises(ClosedError):
                handle.share()
            return None
        other = handle.share()
        self.held[other] = self.held[handle]
        return other

    @rule(target=handles, handle=handles, size=st.integers(0, 700))
    def split(self, handle: Reservation | None, size: int) -> Reservation | None:
        if handle is None:
            return None
        if handle not in self.held:
            with pytest.raises(ClosedError):
                handle.split(size)
            return None
        block = self.held[handle]
        if size > self.sizes[block] or [*self.held.values()].count(block) > 1:
            with pytest.raises(InternalError):
                handle.split(size)
            return None
        part, others = handle.split(size), object()
        self.held[part], self.sizes[others] = others, size
        self.sizes[block] -= size
        assert (part.size, handle.size) == (size, self.sizes[block])
        return part

    @rule(target=released, handle=consumes(handles))
    def release(self, handle: Reservation | None) -> Reservation | None:
        if handle is not None:
            handle.release()
            self.held.pop(handle, None)
        return handle

    @rule(handle=released)
    def release_again(self, handle: Reservation | None) -> None:
        if handle is not None:
            handle.release()

    @invariant()
    def accounts_add_up(self) -> None:
        self.arena.check_integrity()
        assert self.arena.used == self.expected() <= self.arena.budget


TestArena = ArenaMachine.TestCase


def waiting(arena: Arena, size: int, order: list[str], name: str, looked: list[str] | None = None) -> threading.Thread:
    """A thread that reserves, says so, and holds; started, and in the queue when this returns. looked: its name, whenever it has looked
    for room and found none.
    """
    before = len(arena._queue)

    def reserve() -> None:
        try:
            arena.reserve(size, name, lambda place: None if looked is None else looked.append(name))
            order.append(name)
        except BusyError:
            order.append(f"{name} refused")

    thread = threading.Thread(target=reserve)
    thread.start()
    eventually(lambda: len(arena._queue) > before or not thread.is_alive())
    return thread


def test_who_waits_is_served_in_order_even_if_a_later_one_would_fit_first() -> None:
    arena = Arena(100, "KV memory", "--kv-bytes", waiting=3, wait_s=30)
    first, second = arena.reserve(60, "a"), arena.reserve(40, "b")
    order: list[str] = []
    looked: list[str] = []
    threads = [waiting(arena, 80, order, "large", looked), waiting(arena, 10, order, "small", looked)]
    second.release()
    eventually(lambda: order != [] or Counter(looked) >= Counter(large=2, small=2))
    assert order == [] and arena.used == 60, "40 bytes are free, and the small one waits behind the large"
    first.release()
    for thread in threads:
        thread.join(60)
    assert order == ["large", "small"] and arena.used == 90 and not arena._queue
    arena.check_integrity()


def test_what_is_claimed_is_looked_at_anew_until_there_is_room_for_all_of_it_and_who_claims_nothing_passes() -> None:
    arena = Arena(100, "KV memory", "--kv-bytes", waiting=3, wait_s=30)
    held = arena.reserve(90, "a")
    needs, tried, places, given = 50, list[int](), list[int](), list[Reservation]()

    def claim(take: Take) -> Reservation:
        tried.append(needs)
        return take(needs, "b")

    thread = threading.Thread(target=lambda: given.append(arena.admit(claim, places.append)), daemon=True)
    thread.start()
    eventually(lambda: bool(places))
    with arena.lock:
        assert set(tried) == {50} and arena.used == 90
        needs = 10
        assert arena.admit(lambda take: take(0, "c").size) == 0 and arena.admit(lambda take: "nothing") == "nothing"
        arena.recheck()
    thread.join(10)
    assert given[0].size == 10 and tried[-1] == 10 and set(places) == {1} and arena.used == 100
    with pytest.raises(BusyError, match=r"d needs 0.0 MiB .* after 0.01 s of waiting"):
        arena._wait_s = 0.01
        arena.admit(lambda take: take(1, "d"))
    with pytest.raises(KeyError):
        arena.admit(lambda take: {}["what a claim raises ends it"])
    held.release()
    arena.check_integrity()


def test_a_full_queue_is_refused_and_what_never_fits_does_not_wait() -> None:
    arena = Arena(100, "KV memory", "--kv-bytes", waiting=1, wait_s=600)
    held = arena.reserve(100, "a")
    order: list[str] = []
    thread = waiting(arena, 50, order, "patient")
    with pytest.raises(BusyError, match=r"b needs 0.0 MiB .* 1 requests wait already.*--kv-bytes"):
        arena.reserve(1, "b")
    with pytest.raises(LimitError, match="raise --kv-bytes") as never:
        arena.reserve(101, "c")
    assert not isinstance(never.value, BusyError)
    held.release()
    thread.join(60)
    assert order == ["patient"] and not arena._queue


def test_a_long_wait_is_refused() -> None:
    arena = Arena(100, "KV memory", "--kv-bytes", waiting=1, wait_s=0.05)
    held = arena.reserve(100, "a")
    with pytest.raises(BusyError, match=r"late needs 0.0 MiB .*after 0.05 s of waiting.*--kv-bytes"):
        arena.reserve(50, "late")
    assert not arena._queue
    held.release()
    assert arena.reserve(100, "d").size == 100


def test_what_nobody_uses_is_reclaimed_before_anybody_waits() -> None:
    arena = Arena(100, "KV memory", "--kv-bytes")
    idle = [arena.reserve(30, f"idle {n}") for n in range(3)]
    asked: list[int] = []

    def reclaim(size: int) -> None:
        asked.append(size)
        while idle and arena.budget - arena.used < 50:
            idle.pop(0).release()

    arena.reclaim = reclaim
    assert arena.reserve(10, "fits") and asked == []
    assert arena.reserve(50, "does not") and asked == [50] and len(idle) == 1
    arena.check_integrity()
    with pytest.raises(BusyError):
        arena.reserve(70, "too much even so")


@pytest.mark.parametrize("wake", [Reservation.release, lambda _: None], ids=["freed", "rechecked"])
def test_who_waits_looks_again_when_something_becomes_idle(wake: Callable[[Reservation], None]) -> None:
    arena = Arena(100, "KV memory", "--kv-bytes", waiting=3, wait_s=30)
    held, idle = arena.reserve(100, "a"), []
    arena.reclaim = lambda size: idle.pop().release() if idle else None
    order: list[str] = []
    thread = waiting(arena, 50, order, "b")
    idle.append(held)
    wake(held)
    arena.recheck()
    thread.join(60)
    assert order == ["b"]


def test_who_waits_is_told_its_place_and_may_leave() -> None:
    arena = Arena(100, "KV memory", "--kv-bytes", waiting=3, wait_s=30)
    held = arena.reserve(100, "a")
    told: dict[str, list[int]] = {"b": [], "c": [], "d": []}
    gone = threading.Event()

    def wait(name: str) -> None:
        def note(place: int) -> None:
            told[name].append(place)
            if name == "b" and gone.is_set():
                raise InterruptedError

        try:
            arena.reserve(50, name, note)
        except InterruptedError:
            told[name].append(-1)

    threads = [threading.Thread(target=wait, args=(name,)) for name in told]
    for thread, name in zip(threads, told, strict=True):
        thread.start()
        eventually(lambda name=name: bool(told[name]))
    assert told == {"b": [1], "c": [2], "d": [3]}
    gone.set()
    arena.recheck()
    threads[0].join(60)
    eventually(lambda: (told["c"][-1], told["d"][-1]) == (1, 2))
    held.release()
    for thread in threads:
        thread.join(60)
    assert told["b"] == [1, 1, -1] and not arena._queue
    assert arena.used == 100
    assert arena.reserve(0, "e", lambda place: pytest.fail("it need not wait"))
    arena.check_integrity()
