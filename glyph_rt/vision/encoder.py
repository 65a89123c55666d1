"""VisionEncoder: pages to visual tokens. The interface of the second wing."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MAX_BATCH = 8  # pages per call: bounds the workspace; more pages are encoded in several calls


class VisionEncoder(Protocol):
    """Encodes batches of pages of one size. Implementations are the torch oracle and runners of exported graphs.

    Every implementation computes the same function: golden.py holds each to the torch oracle at every start, and a test holds the
    torch oracle to transformers. Safe to call from several threads.
    """

    name: str  # "torch", "onnx-portable-fp32-grey": part of a document's identity, so it says the precision
    out_hidden: int

    def encode(self, patches: NDArray[np.uint8], width: int, height: int) -> Tensor:
        """Ink patches uint8 [pages, patches, 196] of `width` x `height` px pages to fp32 [pages, patches / 4, out_hidden].

        Pages with colour have 588 bytes a patch. Every page is encoded by itself: its tokens do not depend on the other pages of the
        batch. Raises NonFiniteError when the tower's output holds NaN or infinity, and EncoderError for pages with colour when this
        encoder takes grey ones only.
        """
        ...


@runtime_checkable
class Selective(Protocol):
    """A VisionEncoder that does not take pages of every size."""

    def takes(self, width: int, height: int) -> bool: ...


@runtime_checkable
class Observable(Protocol):
    """A VisionEncoder that can be looked into, to find where it goes wrong. Slow, and for nothing else."""

    def observe(self, patches: NDArray[np.uint8], width: int, height: int) -> dict[str, Tensor]:
        """The residual stream of pages as `encode` takes them, by graph.stages, and the visual tokens under graph.OUTPUT.

        fp32 on the CPU, NaN and infinity as they come. Raises EncoderError when it cannot be looked into here.
        """
        ...
