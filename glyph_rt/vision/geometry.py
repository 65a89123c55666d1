"""Geometry of a page for the vision tower: the inputs that depend on the page's size alone.

Computed on the host once per page size, so that neither the bicubic sampling of the position table nor the rope tables
are part of any exported graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 14  # px
MERGE = 2  # patches along each side of a visual token


@dataclass(frozen=True)
class VisionGeometry:
    """Per-patch inputs of one page size, in merge-block order, fp32 on the CPU.

    positions: [patches, hidden], the learned position table sampled at every patch.
    cos, sin: [patches, head_dim], axial rope; the minus of rotate_half is folded into the first half of `sin`.
    """

    positions: Tensor
    cos: Tensor
    sin: Tensor


def patch_grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, each [patches] float, in merge-block order; both counts are even."""
    row = torch.arange(rows).view(rows // MERGE, 1, MERGE, 1).expand(-1, columns // MERGE, -1, MERGE).reshape(-1)
    column = torch.arange(columns).view(1, columns // MERGE, 1, MERGE).expand(rows // MERGE, -1, MERGE, -1).reshape(-1)
    return row.float(), column.float()


def page_geometry(width: int, height: int, table: Tensor, head_dim: int, theta: float) -> VisionGeometry:
    """Geometry of a page of `width` x `height` px.

    `table` is the position embedding [side * side, hidden]. As Glm4vVisionEmbeddings does, it is sampled bicubically at
    patch centres with its border repeated; rope angles are as in Glm4vVisionRotaryEmbedding: the first quarter of
    head_dim turns with the row, the second with the column, and the halves are equal.
    """
    rows, columns = height // PATCH, width // PATCH
    row, column = patch_grid(rows, columns)
    side = round(len(table) ** 0.5)
    plane = table.float().view(side, side, -1).permute(2, 0, 1)[None]
    grid = torch.stack(((column + 0.5) / columns * 2 - 1, (row + 0.5) / rows * 2 - 1), -1)[None, :, None]
    sampled = F.grid_sample(plane, grid, mode="bicubic", align_corners=False, padding_mode="border")
    half = head_dim // 2
    inverse = theta ** -(torch.arange(0, half, 2).float() / half)
    angles = torch.cat([row[:, None] * inverse, column[:, None] * inverse], -1).repeat(1, 2)
    sin = angles.sin()
    sin[:, :half] *= -1
    return VisionGeometry(sampled[0, :, :, 0].T.contiguous(), angles.cos(), sin)
