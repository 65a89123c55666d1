"""Weight-only quantisation of the decoder's linears: int8 per row, or int4 per group of 32 inputs, by torch's own kernels.

torchao 0.18 was tried first: it has no int4 on a CPU, and its int8 is slower there than fp32 (one row by 1024 x 2048: 730 us against
250). The kernels used here are the ones that it builds on for GPUs, and exist for CPUs too. They take bf16 activations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glyph_rt.errors import ModelError
from glyph_rt.named import by_name

GROUP = 32  # inputs that share an int4 scale and zero
FEW_ROWS = 16  # beyond, one product with int8 weights unpacked is cheaper than the packed kernel; int4 stays packed, 1.8 times bf16's time


class Quant(Enum):
    """What the weights of the decoder's linears are kept as."""

    INT8 = "int8"
    INT4 = "int4"

    @classmethod
    def parse(cls, text: str | None) -> Quant | None:
        """ "int8", "int4", or None for weights as they are. Raises OptionError."""
        return None if text is None else by_name(cls, text, "quantisation")


def quantised_bytes(shape: Sequence[int], quant: Quant) -> int:
    """Bytes of a PackedLinear's weights [out, in]: values, and bf16 scales (int8), or scales and zeros (int4)."""
    rows, columns = shape
    return rows * columns + 2 * rows if quant == Quant.INT8 else rows * columns // 2 + 4 * rows * columns // GROUP


def quantise(module: nn.Module, quant: Quant, device: str = "cpu") -> None:
    """Replace the linears inside `module`, one by one, by their packed form on `device`. Raises ModelError for shapes that do not pack."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child.to(device), quant))


class PackedLinear(nn.Module):
    """A linear layer of packed weights: y = x W^T + b, with W rounded to a grid of 255 values a row, or 16 a group."""

    def __init__(self, linear: nn.Linear, quant: Quant) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        if quant == Quant.INT4 and (self.in_features % GROUP or self.out_features % 16):
            raise ModelError(f"a linear of {self.in_features} x {self.out_features} does not pack into int4; use --quant int8")
        self.quant = quant
        packed, scales = (_int8 if quant == Quant.INT8 else _int4)(linear.weight.detach().float())
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        y = self._product(rows).view(*x.shape[:-1], self.out_features).to(x.dtype)
        return y if self.bias is None else y + self.bias

    def _product(self, rows: Tensor) -> Tensor:
        packed: Tensor = self.packed  # type: ignore[assignment]
        scales: Tensor = self.scales  # type: ignore[assignment]
        if self.quant == Quant.INT8:
            if len(rows) > FEW_ROWS:
                return F.linear(rows, packed.to(torch.bfloat16) * scales[:, None])
            return torch._weight_int8pack_mm(rows, packed, scales)
        kernel = torch.ops.aten._weight_int4pack_mm if rows.is_cuda else torch.ops.aten._weight_int4pack_mm_for_cpu
        return kernel(rows, packed, GROUP, scales)  # type: ignore[no-any-return]


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values [out, in] and scales [out]: w = value * scale."""
    scales = (weight.abs().amax(1) / 127).clamp(min=1e-12).to(torch.bfloat16)
    return (weight / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def _int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values in the kernel's own layout, and [in / GROUP, out, 2]: w = (value - 8) * scale + zero, with values from 0 to 15."""
    rows, columns = weight.shape
    groups = weight.view(rows, -1, GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp(min=1e-12).to(torch.bfloat16)
    zero = (low + 8 * scale.float()).to(torch.bfloat16)
    values = ((groups - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15).to(torch.int32).view(rows, columns)
    scales = torch.stack([scale, zero], -1).transpose(0, 1).contiguous()
    if not weight.is_cuda:
        return torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1), scales
    # Not checked on a GPU yet. tinygemm packs tiles of 16 inputs, up to eight at a time, from pairs of values in a byte.
    pairs = (values[:, ::2] << 4 | values[:, 1::2]).to(torch.uint8)
    return torch.ops.aten._convert_weight_to_int4pack(pairs, min(8, math.gcd(columns // 16, 8))), scales
