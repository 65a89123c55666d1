"""Batches made ahead of the training that wants them: on a thread, or, where one thread cannot feed a GPU, by processes."""

from __future__ import annotations

import multiprocessing
import random
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import cache

from glyph_rt.export.reader.curriculum import SHARES, Stage
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.samples import Batch, SampleMaker, Shape
from glyph_rt.export.reader.vocabulary import TRAINING

from glyph_rt.typeset import Style, Typesetter


class Prefetcher:
    """A stage's batches, in an order that the seed gives alone.

    makers: processes that make them; 0: one thread of this process. scale: every batch has so many times its shape's documents. alike: so
    many neighbours have one shape, so that replicas which compute them side by side take equally long.
    """

    def __init__(self, style: Style, stage: Stage, seed: int, makers: int = 0, scale: int = 1, alike: int = 1) -> None:
        self._rng = random.Random(seed)
        self._weights, self._shapes = zip(*stage.shapes, strict=True)
        self._scale = scale
        self._alike = alike
        self._drawn: deque[Shape] = deque()
        self._style = style
        self._executor: Executor = ThreadPoolExecutor(1)
        if makers:
            self._executor = ProcessPoolExecutor(makers, multiprocessing.get_context("spawn"))
        self._ahead: deque[Future[Batch]] = deque(self._order() for _ in range(3 + 2 * makers))

    def next(self) -> Batch:
        """Raises what went wrong while it was made."""
        self._ahead.append(self._order())
        return self._ahead.popleft().result()

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _order(self) -> Future[Batch]:
        if not self._drawn:
            self._drawn.extend(self._rng.choices(self._shapes, self._weights) * self._alike)
        shape = self._drawn.popleft()
        shape = replace(shape, documents=shape.documents * self._scale)
        return self._executor.submit(_make, self._style, shape, self._rng.getrandbits(64))


@cache
def _typesetter(style: Style) -> Typesetter:
    """Of this process: a typesetter is slow to open, and cannot be sent."""
    return Typesetter(style)


def _make(style: Style, shape: Shape, seed: int) -> Batch:
    return SampleMaker(_typesetter(style), Writer(TRAINING, seed, SHARES)).batch(shape)
