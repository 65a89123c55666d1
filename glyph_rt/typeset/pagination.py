"""Stable pagination: pages that start where the text says, so that an edit changes the pages around it and no others.

A place where a page must start (an anchor) is a place where a line may start whose hash is the smallest of all such places within
WINDOW pages to either side. Whether a place is an anchor thus depends on the text around it alone, and between two anchors pages are
filled as always. This is content-defined chunking by local minima (Bjørner, Blass, Gurevich, Journal of Computer and System Sciences
76, 2010), with pages as chunks.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque

import numpy as np
from numpy.typing import NDArray

WINDOW = 0.45  # of a page, to either side. Anchors are at least this far apart and on average twice as far
CONTEXT = 64  # code points behind a place that its hash covers
_PLACE = re.compile(r"(?<=\n)[^\n]|(?<= )[^ \n]")


def page_starts(text: str, rows: int, columns: float) -> NDArray[np.int64]:
    """Sorted offsets of the anchors of `text`, for pages of `rows` lines of about `columns` characters.

    Places are the starts of source lines and, in source lines longer than two lines of a page, of words.
    """
    window = max(1.0, WINDOW * rows)
    out: list[int] = []
    recent: deque[tuple[float, bytes, int]] = deque()  # candidates whose hash may still be a minimum: increasing hashes
    pending: deque[tuple[float, bytes, int]] = deque()  # places whose window is not complete
    for height, offset in _places(text, columns):
        sketch = hashlib.blake2b(text[offset : offset + CONTEXT].encode("utf-8", "surrogatepass"), digest_size=8).digest()
        while pending and pending[0][0] < height - window:
            _settle(pending.popleft(), recent, window, out)
        while recent and recent[-1][1] > sketch:
            recent.pop()
        recent.append((height, sketch, offset))
        pending.append((height, sketch, offset))
    while pending:
        _settle(pending.popleft(), recent, window, out)
    return np.array(out, np.int64)


def _settle(place: tuple[float, bytes, int], recent: deque[tuple[float, bytes, int]], window: float, out: list[int]) -> None:
    """Decide a place all of whose window has been seen. Equal hashes make no anchor: repeated text says nothing about where it is."""
    height, sketch, offset = place
    while recent and recent[0][0] < height - window:
        recent.popleft()
    smallest = [c for c in recent if c[1] <= sketch and c[0] <= height + window]
    if len(smallest) == 1 and smallest[0][2] == offset and height >= window:
        out.append(offset)


def _places(text: str, columns: float) -> list[tuple[float, int]]:
    """(lines above it, roughly; offset) of every place where a page may start."""
    places: list[tuple[float, int]] = []
    height, start = 0.0, 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        length = end - start
        places.append((height, start))
        if length > 2 * columns:
            places += [(height + (m.start() - start) / columns, m.start()) for m in _PLACE.finditer(text, start + 1, end)]
        height += max(1.0, length / columns)
        start = end + 1
    return places
