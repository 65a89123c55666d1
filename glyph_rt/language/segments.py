"""KV memory: immutable segments that questions share, and the growing tail that each turn owns."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class KVSegment:
    """Keys and values of consecutive tokens; never changes once made, so any number of turns may read it.

    keys, values: [layers, kv_heads, tokens, head_dim], keys already rotated.
    digest names what was prefilled (page contents in order, model, dtype): never the token ids, since every page of every
    document has the same ones.
    """

    keys: Tensor
    values: Tensor
    digest: str

    @property
    def tokens(self) -> int:
        return self.keys.shape[2]


class KVTail:
    """Keys and values being written, up to a capacity fixed at the start. Owned by one turn or one prefill.

    A forward pass writes every layer's new tokens behind `length`, then `advance` makes them part of the past.
    """

    def __init__(self, shape: KVShape, capacity: int) -> None:
        size = (shape.layers, shape.kv_heads, capacity, shape.head_dim)
        self._keys: Tensor | None = torch.empty(size, dtype=shape.dtype, device=shape.device)
        self._values: Tensor | None = torch.empty(size, dtype=shape.dtype, device=shape.device)
        self.capacity = capacity
        self.length = 0

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Put [kv_heads, new, head_dim] behind the past of `layer`. The caller has reserved the room."""
        new = slice(self.length, self.length + keys.shape[1])
        if new.stop > self.capacity:
            raise ValueError(f"{new.stop} tokens in a tail of {self.capacity}")
        own_keys, own_values = self._buffers()
        own_keys[layer, :, new] = keys
        own_values[layer, :, new] = values

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """The first `tokens` tokens of a layer: views [kv_heads, tokens, head_dim]."""
        keys, values = self._buffers()
        return keys[layer, :, :tokens], values[layer, :, :tokens]

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on; the memory stays reserved."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
        self.length = length

    def seal(self, digest: str) -> KVSegment:
        """Turn what was written into a segment, without a copy; the tail is closed."""
        keys, values = self._buffers()
        length = self.length
        self.close()
        return KVSegment(keys[:, :, :length], values[:, :, :length], digest)

    def close(self) -> None:
        """Give the memory back. Any later use raises ClosedError."""
        self._keys = self._values = None

    def _buffers(self) -> tuple[Tensor, Tensor]:
        if self._keys is None or self._values is None:
            raise ClosedError("this KV tail was closed")
        return self._keys, self._values
