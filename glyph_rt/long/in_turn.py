"""Whose turn it is: long work that others wait for too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class InTurn(Protocol):
    """Has work done that keeps a processor busy: laying out, indexing, cutting, reading. Gives what the work gives, raises what it raises.

    A server does it on the few threads that read, so that long texts wait their turn there, at every part again.
    """

    def __call__(self, work: Callable[[], T], /) -> T: ...


def at_once(work: Callable[[], T], /) -> T:
    """Here and now."""
    return work()
