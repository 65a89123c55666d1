"""The C library's memory: what Python and torch have freed, and glibc keeps."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def give_back_free_memory() -> None:
    """Return free memory to the system; milliseconds, without the GIL.

    glibc gives back only what lies at the end of a thread's arena. Under threads that allocate by turns that is little: resident memory
    of a server grew by 60 MiB an hour although nothing was held (bench/soak.py), and one call took it back to where it began. C libraries
    without `malloc_trim` keep less by themselves.
    """
    if _trim is not None:
        _trim(0)


_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
