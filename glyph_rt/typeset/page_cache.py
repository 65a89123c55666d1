"""PageCache: drawn pages by what they show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import InternalError
from glyph_rt.memory.byte_cache import ByteCache


class PageCache(ByteCache[NDArray[np.uint8]]):
    """Patches of pages by page digest; nobody can write to them."""

    def check_integrity(self) -> None:
        super().check_integrity()
        with self._lock:
            if any(patches.flags.writeable for patches in self._values.values()):
                raise InternalError("a cached page can be written to")
