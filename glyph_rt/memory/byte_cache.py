"""ByteCache: values by digest within a byte budget; the least recently used leave first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from glyph_rt.errors import InternalError


class Sized(Protocol):
    """Whatever knows its size in bytes: arrays and tensors."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class ByteCache(Generic[V]):
    """At most `budget` bytes of values. Thread-safe."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._values: OrderedDict[str, V] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def get(self, digest: str) -> V | None:
        with self._lock:
            value = self._values.get(digest)
            if value is None:
                self.misses += 1
                return None
            self._values.move_to_end(digest)
            self.hits += 1
            return value

    def put(self, digest: str, value: V) -> None:
        """Keep a value. One larger than the whole budget is not kept."""
        with self._lock:
            if digest in self._values or value.nbytes > self.budget:
                return
            self._values[digest] = value
            self._bytes += value.nbytes
            while self._bytes > self.budget:
                _, oldest = self._values.popitem(last=False)
                self._bytes -= oldest.nbytes

    @property
    def bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._values)

    def check_integrity(self) -> None:
        """Raise InternalError when the books do not balance or the budget is exceeded."""
        with self._lock:
            held = sum(value.nbytes for value in self._values.values())
            if held != self._bytes or held > self.budget:
                raise InternalError(f"a cache holds {held} bytes, counts {self._bytes} and may hold {self.budget}")
