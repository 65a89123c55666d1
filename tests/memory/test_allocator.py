"""Memory that glibc keeps is given back."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from glyph_rt.memory.allocator import give_back_free_memory
from glyph_rt.memory.limits import MIB

SIZE, COUNT = 32 * 1024, 2048  # below glibc's threshold for blocks of their own; 64 MiB


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library is not glibc")
def test_free_memory_below_what_is_in_use_goes_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(SIZE) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    last = blocks.pop()  # at the end of the arena: nothing below it goes back by itself
    for block in blocks:
        libc.free(block)
    before = resident()
    give_back_free_memory()
    libc.free(last)
    assert before - resident() > SIZE * COUNT / 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_in_use_stays() -> None:
    held = bytearray(os.urandom(MIB))
    copy = bytes(held)
    give_back_free_memory()
    assert held == copy


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
