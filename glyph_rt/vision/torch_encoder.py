"""The vision tower run by torch: the oracle that other encoders are held to."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import NonFiniteError
from glyph_rt.vision.geometry import VisionGeometry, page_geometry
from glyph_rt.vision.graph import OUTPUT, stages
from glyph_rt.vision.tower import VisionTower, load_tower

VISION_PREFIX = "model.visual."
PAGE_SIZES = 32  # geometries kept
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def geometry_cache(checkpoint: Checkpoint, table: Tensor) -> Callable[[int, int], VisionGeometry]:
    """page_geometry for this checkpoint's tower, remembered per (width, height)."""
    vision = checkpoint.config.vision_config

    @lru_cache(maxsize=PAGE_SIZES)
    def geometry(width: int, height: int) -> VisionGeometry:
        head_dim = vision.hidden_size // vision.num_heads
        return page_geometry(width, height, table, head_dim, vision.rope_parameters["rope_theta"])

    return geometry


def checked_finite(tokens: Tensor, encoder: str) -> Tensor:
    """`tokens`, or NonFiniteError."""
    if not torch.isfinite(tokens).all():
        raise NonFiniteError(f"the {encoder} vision encoder produced NaN or infinity; use fp32, or another encoder")
    return tokens


def torch_name(device: str, precision: str) -> str:
    """Name of a TorchEncoder: what differs from fp32 on a CPU."""
    return "-".join(["torch", *([device] if device != "cpu" else []), *([precision] if precision != "fp32" else [])])


class TorchEncoder:
    """VisionEncoder on torch. In fp32 on a CPU it is the oracle, and its name is "torch" alone."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", precision: str = "fp32") -> None:
        self.name = torch_name(device, precision)
        vision = checkpoint.config.vision_config
        tower, self.table = load_tower(vision, checkpoint.tensors(VISION_PREFIX), DTYPES[precision])
        self.tower: VisionTower = tower.to(device)
        self.out_hidden = int(vision.out_hidden_size)
        self.geometry = geometry_cache(checkpoint, self.table)
        self._device = device

    @torch.inference_mode()
    def encode(self, patches: NDArray[np.uint8], width: int, height: int) -> Tensor:
        tokens = self.tower(*self._inputs(patches, width, height))
        return checked_finite(tokens.float().cpu(), self.name)

    @torch.inference_mode()
    def observe(self, patches: NDArray[np.uint8], width: int, height: int) -> dict[str, Tensor]:
        stream = list(self.tower.stream(*self._inputs(patches, width, height)))
        names = (*stages(len(stream) - 1), OUTPUT)
        return {name: x.float().cpu() for name, x in zip(names, (*stream, self.tower.merge(stream[-1])), strict=True)}

    def _inputs(self, patches: NDArray[np.uint8], width: int, height: int) -> tuple[Tensor, ...]:
        geometry = self.geometry(width, height)
        inputs = (torch.from_numpy(np.ascontiguousarray(patches)), geometry.positions, geometry.cos, geometry.sin)
        return tuple(t.to(self._device) for t in inputs)
