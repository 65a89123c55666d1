"""The arena's accounts under any sequence of operations, and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from glyph_rt.arena import Arena, Reservation
from glyph_rt.errors import ClosedError, LimitError, OptionError
from glyph_rt.memory import Limits, parse_size, peak_rss_bytes


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


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("2KiB", 2048), ("1.5 MiB", 3 * 2**19), ("3g", 3 * 2**30), ("1GIB", 2**30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1TB", "1e9", "GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(OptionError, match="is not a size"):
        parse_size(text)


def test_limits_and_peak_memory() -> None:
    with pytest.raises(OptionError):
        Limits(kv_bytes=0)
    assert 10 * 2**20 < peak_rss_bytes() < 2**40
