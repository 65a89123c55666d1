"""KV memory: immutable segments that questions share, and the growing tail that each turn or reading owns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from glyph_rt.errors import ClosedError


@dataclass(frozen=True)
class KVShape:
    """What one token's keys and values are made of."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: str = "cpu"

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class KVSegment:
    """Keys and values of consecutive tokens; never changes once made, so any number of turns may read it.

    kv: [layers, 2, kv_heads, tokens, head_dim], keys first, already rotated. What it was prefilled from is known to whoever keeps it
    (segment_store.py, by page digests); never to be named by token ids, since every page of every document has the same ones.
    """

    kv: Tensor

    @property
    def tokens(self) -> int:
        return self.kv.shape[3]

    @cached_property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Of each layer, keys [kv_heads, head_dim, tokens] and values [kv_heads, tokens, head_dim]: views."""
        return _layers(self.kv)

    def first(self, tokens: int) -> KVSegment:
        """The segment's first tokens, in the same memory: what a longer document with the same beginning shares."""
        return KVSegment(self.kv[:, :, :, :tokens])

    def copied_to(self, device: str) -> KVSegment:
        """The segment in memory of its own."""
        return KVSegment(self.kv.to(device, copy=True, memory_format=torch.contiguous_format))


class KVTail:
    """Keys and values being written, up to a capacity fixed at the start. Owned by one turn or one reading.

    A forward pass puts every layer's new tokens behind `length`, then `advance` makes them part of the past; what was not advanced
    over may be written again. Raises MemoryError when there is less memory than was reserved.
    """

    def __init__(self, shape: KVShape, capacity: int) -> None:
        self.shape = shape
        size = (shape.layers, 2, shape.kv_heads, capacity, shape.head_dim)
        try:
            self._kv: Tensor | None = torch.empty(size, dtype=shape.dtype, device=shape.device)
        except RuntimeError as error:  # what torch's allocators raise
            raise MemoryError(f"no memory for the KV of {capacity:,} tokens, though it was reserved") from error
        self.capacity = capacity
        self.length = 0

    def place(self, tokens: int) -> Sequence[Tensor]:
        """Of each layer, where the next tokens' keys and values go: [2, kv_heads, tokens, head_dim]. The caller has reserved the room."""
        end = self.length + tokens
        if end > self.capacity:
            raise ValueError(f"{end} tokens in a tail of {self.capacity}")
        return self._buffer()[:, :, :, self.length : end].unbind(0)

    def layers(self, tokens: int) -> list[tuple[Tensor, Tensor]]:
        """The first tokens, as `KVSegment.layers`."""
        return _layers(self._buffer()[:, :, :, :tokens])

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on; the memory stays reserved."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
        self.length = length

    def seal(self) -> KVSegment:
        """Turn what was written into a segment, without a copy; the tail is closed."""
        kv = self._buffer()[:, :, :, : self.length]
        self.close()
        return KVSegment(kv)

    @property
    def closed(self) -> bool:
        return self._kv is None

    def close(self) -> None:
        """Give the memory back. Any later use raises ClosedError."""
        self._kv = None

    def _buffer(self) -> Tensor:
        if self._kv is None:
            raise ClosedError("this KV tail was closed")
        return self._kv


def _layers(kv: Tensor) -> list[tuple[Tensor, Tensor]]:
    """[layers, 2, kv_heads, tokens, head_dim], cut by layer into keys, turned as products with them want it, and values."""
    return list(zip(kv[:, 0].transpose(-1, -2).unbind(0), kv[:, 1].unbind(0), strict=True))
