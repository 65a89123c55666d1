"""KV memory: immutable segments that questions share, and the growing tail that each turn or reading owns.

A document's keys and values may be kept in a byte each (`KVDtype`): what a step writes is rounded with one scale for each token and KV
head, and unpacked, layer by layer, when a step reads it. Scales for smaller groups, or for each channel of the keys of a page, were
measured on earlier weights of the embedded reader and rejected: 1.6e-3 to 2.1e-3 relative error of the logits, against 2.0e-3 (fp8: 1.1e-2
either way). Of those shipped now the test says what int8 costs; groups were not measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from glyph_rt.errors import ClosedError
from glyph_rt.language import _step
from glyph_rt.memory.limits import KVDtype

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # what a byte of each kind may hold
_CODES = {KVDtype.INT8: torch.int8, KVDtype.FP8: torch.float8_e4m3fn}
_FP8_VALUES = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()  # torch converts 13 times as slowly on a CPU


@dataclass(frozen=True)
class KVShape:
    """What one token's keys and values are made of. dtype: what is computed with; kept: what they are held in."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: str = "cpu"
    kept: KVDtype = KVDtype.MODEL

    @property
    def bytes_per_token(self) -> int:
        head = self.head_dim * self.dtype.itemsize if self.kept == KVDtype.MODEL else self.head_dim + torch.float32.itemsize
        return 2 * self.layers * self.kv_heads * head

    def unpacked_bytes(self, tokens: int) -> int:
        """What reading that many kept tokens takes beside them: one layer, in fp32."""
        return 0 if self.kept == KVDtype.MODEL else 2 * self.kv_heads * self.head_dim * torch.float32.itemsize * tokens


@dataclass(frozen=True, eq=False)
class KVSegment:
    """Keys and values of consecutive tokens; never changes once made, so any number of turns may read it.

    kv: [layers, 2, kv_heads, tokens, head_dim], keys first, already rotated. scales: fp32 [layers, 2, kv_heads, tokens, 1], if `kv` is
    packed. What it was prefilled from is known to whoever keeps it (segment_store.py, by page digests); never to be named by token ids,
    since every page of every document has the same ones.
    """

    kv: Tensor
    scales: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.kv.shape[3]

    @property
    def nbytes(self) -> int:
        return self.kv.nbytes + (0 if self.scales is None else self.scales.nbytes)

    @cached_property
    def keys(self) -> Sequence[Tensor]:
        """Of each layer, [kv_heads, head_dim, tokens]: turned, as products with them want it. Views, or unpacked as they are taken."""
        return self._layers(0, turned=True)

    @cached_property
    def values(self) -> Sequence[Tensor]:
        """Of each layer, [kv_heads, tokens, head_dim]; views, or unpacked as they are taken."""
        return self._layers(1, turned=False)

    @cached_property
    def native(self) -> _step.KV:
        """What the native decode step finds it by; of numbers that are not packed, on a CPU."""
        return _step.KV(self.kv.numpy())

    def part(self, start: int, stop: int) -> KVSegment:
        """Tokens [start, stop), in the same memory."""
        return KVSegment(*(part[:, :, :, start:stop] for part in self._parts))

    def first(self, tokens: int) -> KVSegment:
        """The segment's first tokens, in the same memory: what a longer document with the same beginning shares."""
        return self.part(0, tokens)

    def copied_to(self, device: str, pinned: bool = False) -> KVSegment:
        """The segment in memory of its own."""
        return KVSegment(*(torch.empty(part.shape, dtype=part.dtype, device=device, pin_memory=pinned).copy_(part) for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return (self.kv,) if self.scales is None else (self.kv, self.scales)

    def _layers(self, which: int, turned: bool) -> Sequence[Tensor]:
        if self.scales is not None:
            return _Unpacked(self.kv[:, which], self.scales[:, which], turned)
        of_kind = self.kv[:, which]
        return (of_kind.transpose(-1, -2) if turned else of_kind).unbind(0)


class KVTail:
    """Keys and values being written, up to a capacity fixed at the start. Owned by one turn or one reading.

    A forward pass puts every layer's new tokens behind `length`, then `advance` makes them part of the past; what was not advanced
    over may be written again. Raises MemoryError when there is less memory than was reserved.
    """

    def __init__(self, shape: KVShape, capacity: int) -> None:
        size = (shape.layers, 2, shape.kv_heads, capacity)
        try:
            kv = torch.empty((*size, shape.head_dim), dtype=_CODES.get(shape.kept, shape.dtype), device=shape.device)
            scales = None if shape.kept == KVDtype.MODEL else torch.empty((*size, 1), device=shape.device)
        except RuntimeError as error:  # what torch's allocators raise
            raise MemoryError(f"no memory for the KV of {capacity:,} tokens, though it was reserved") from error
        self._whole: KVSegment | None = KVSegment(kv, scales)
        self.shape = shape
        self.capacity = capacity
        self.length = 0

    def place(self, tokens: int) -> KVPlace:
        """Where the next tokens' keys and values go. The caller has reserved the room."""
        return KVPlace(self.buffer.part(self.length, self.length_with(tokens)))

    def length_with(self, tokens: int) -> int:
        """Its length with so many tokens more. Raises ValueError beyond its capacity."""
        end = self.length + tokens
        if end > self.capacity:
            raise ValueError(f"{end} tokens in a tail of {self.capacity}")
        return end

    def first(self, tokens: int) -> KVSegment:
        """The first tokens, as they are now."""
        return self.buffer.first(tokens)

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on; the memory stays reserved."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
        self.length = length

    def seal(self) -> KVSegment:
        """Turn what was written into a segment, without a copy; the tail is closed."""
        sealed = self.first(self.length)
        self.close()
        return sealed

    @property
    def closed(self) -> bool:
        return self._whole is None

    def close(self) -> None:
        """Give the memory back. Any later use raises ClosedError."""
        self._whole = None

    @property
    def buffer(self) -> KVSegment:
        """All of its memory."""
        if self._whole is None:
            raise ClosedError("this KV tail was closed")
        return self._whole


class KVPlace:
    """Where the tokens of one step go in a tail."""

    def __init__(self, part: KVSegment) -> None:
        self._kv = part.kv.unbind(0)
        self._scales = None if part.scales is None else part.scales.unbind(0)

    def write(self, layer: int, new: Tensor) -> None:
        """Put the keys and values [2, kv_heads, tokens, head_dim] of a layer in their place."""
        if self._scales is None:
            self._kv[layer].copy_(new)
        else:
            _pack(new, self._kv[layer], self._scales[layer])


class _Unpacked(Sequence[Tensor]):
    """Packed keys or values, unpacked to fp32 one layer at a time: codes [layers, kv_heads, tokens, head_dim]."""

    def __init__(self, codes: Tensor, scales: Tensor, turned: bool) -> None:
        self._codes, self._scales, self._turned = codes.unbind(0), scales.unbind(0), turned

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, layer: int) -> Tensor:  # type: ignore[override]  # slices are not wanted
        codes = self._codes[layer]
        if codes.dtype == torch.float8_e4m3fn and not codes.is_cuda:
            numbers = _FP8_VALUES.index_select(0, codes.reshape(-1).view(torch.uint8).int()).view(codes.shape)
        else:
            numbers = codes.float()
        unpacked = numbers.mul_(self._scales[layer])
        return unpacked.transpose(-1, -2) if self._turned else unpacked


def _pack(numbers: Tensor, codes: Tensor, scales: Tensor) -> None:
    """Write numbers [..., d] as codes [..., d] times scales [..., 1]: the largest becomes the largest that a code can be.

    int8 is off by at most half a scale, fp8 (e4m3: three bits behind the leading one) by at most a 16th of the number, or 2^-10 scales.
    """
    numbers, largest = numbers.float(), _LARGEST[codes.dtype]
    scales.copy_((numbers.abs().amax(-1, keepdim=True) / largest).clamp(min=1e-30))
    scaled = (numbers / scales).clamp(-largest, largest)  # a quotient may be rounded up
    codes.copy_(scaled.round_() if codes.dtype == torch.int8 else scaled)
