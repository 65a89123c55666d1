"""PageCache: drawn pages by what they show."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import InternalError


class PageCache:
    """Patches of pages by page digest, at most `budget` bytes of them; the least recently used leave first. Thread-safe."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._pages: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def get(self, digest: str) -> NDArray[np.uint8] | None:
        with self._lock:
            patches = self._pages.get(digest)
            if patches is None:
                self.misses += 1
                return None
            self._pages.move_to_end(digest)
            self.hits += 1
            return patches

    def put(self, digest: str, patches: NDArray[np.uint8]) -> None:
        """Keep a page. One larger than the whole budget is not kept."""
        with self._lock:
            if digest in self._pages or patches.nbytes > self.budget:
                return
            self._pages[digest] = patches
            self._bytes += patches.nbytes
            while self._bytes > self.budget:
                _, oldest = self._pages.popitem(last=False)
                self._bytes -= oldest.nbytes

    @property
    def bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._pages)

    def check_integrity(self) -> None:
        """Raise InternalError when the books do not balance, the budget is exceeded, or a page could be written to."""
        with self._lock:
            held = sum(patches.nbytes for patches in self._pages.values())
            if held != self._bytes or held > self.budget:
                raise InternalError(f"page cache holds {held} bytes, counts {self._bytes} and may hold {self.budget}")
            if any(patches.flags.writeable for patches in self._pages.values()):
                raise InternalError("a cached page can be written to")
