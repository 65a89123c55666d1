"""Stable pagination: pages that start where the text says, so that an edit changes the pages around it and no others.

A place where a page must start (an anchor) is a place where a line may start whose hash is the smallest of all such places within
WINDOW pages to either side: content-defined chunking by local minima (Bjoerner, Blass, Gurevich, Journal of Computer and System Sciences
76, 2010). Whether a place is an anchor thus depends on the text around it alone. What lies between two anchors and is longer than a page
is split at its own smallest hash, and so on, so that a change in one part of it leaves the pages of the other parts as they were.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 0.45  # of a page, to either side. Anchors are at least this far apart and on average twice as far
FULL = 0.95  # of a page: what is longer, by the rough count of lines used here, is split
EDGE = 0.3  # of a page: no split so close to an end of what is split
CONTEXT = 64  # code points behind a place that its hash covers
_PLACE = re.compile(r"(?<=\n)[^\n]|(?<= )[^ \n]")


@dataclass(frozen=True)
class _Candidate:
    """A place where a page may start."""

    height: float  # lines above it, roughly
    sketch: bytes  # hash of the text behind it
    offset: int


def page_starts(text: str, rows: int, columns: float) -> NDArray[np.int64]:
    """Sorted offsets of `text` where a page must start, for pages of `rows` lines of about `columns` characters.

    Candidates are the starts of source lines and, in source lines longer than two lines of a page, of words.
    """
    candidates = [_Candidate(height, _sketch(text, offset), offset) for height, offset in _places(text, columns)]
    if not candidates:
        return np.zeros(0, np.int64)
    anchors = _local_minima(candidates, max(1.0, WINDOW * rows))
    out: list[int] = []
    for first, end in itertools.pairwise([0, *anchors, len(candidates)]):
        if first > 0:
            out.append(candidates[first].offset)
        _split(candidates, first, end, rows, out)
    return np.array(sorted(out), np.int64)


def _sketch(text: str, offset: int) -> bytes:
    return hashlib.blake2b(text[offset : offset + CONTEXT].encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _local_minima(candidates: list[_Candidate], window: float) -> list[int]:
    """Indices of those with a smaller hash than all others within `window` lines. Equal hashes cancel each other: repeated text says
    nothing about where it is.
    """
    out: list[int] = []
    rising: deque[int] = deque()  # candidates of the window around the one being decided, hashes increasing
    ahead = 0
    for here, candidate in enumerate(candidates):
        while ahead < len(candidates) and candidates[ahead].height <= candidate.height + window:
            while rising and candidates[rising[-1]].sketch > candidates[ahead].sketch:
                rising.pop()
            rising.append(ahead)
            ahead += 1
        while candidates[rising[0]].height < candidate.height - window:
            rising.popleft()
        alone = len(rising) < 2 or candidates[rising[1]].sketch != candidate.sketch
        if rising[0] == here and alone and candidate.height >= window:
            out.append(here)
    return out


def _split(candidates: list[_Candidate], first: int, end: int, rows: int, out: list[int]) -> None:
    """Add page starts inside candidates[first:end) until no part is longer than a page."""
    waiting = [(first, end)]
    while waiting:
        first, end = waiting.pop()
        bottom = candidates[end].height if end < len(candidates) else candidates[-1].height + 1
        top = candidates[first].height
        inner = range(first + 1, end)
        if bottom - top <= FULL * rows or not inner:
            continue
        fit = [i for i in inner if top + EDGE * rows <= candidates[i].height <= bottom - EDGE * rows]
        center = (top + bottom) / 2
        middle = min(fit or inner, key=lambda i: (candidates[i].sketch, abs(candidates[i].height - center)))
        out.append(candidates[middle].offset)
        waiting += [(first, middle), (middle, end)]


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
