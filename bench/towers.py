"""Shared by the vision benches: towers of several sizes with random weights, what a page costs, and how fast this box multiplies."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Glm4vVisionConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vVisionModel

from glyph_rt.typeset import PRESETS, Page, Typesetter
from glyph_rt.vision.torch_encoder import VISION_PREFIX

SIZES: dict[str, dict[str, Any]] = {
    "reader": {"hidden_size": 128, "depth": 2, "num_heads": 4, "out_hidden_size": 192, "intermediate_size": 384},
    "middle": {"hidden_size": 384, "depth": 8, "num_heads": 6, "out_hidden_size": 1024, "intermediate_size": 3424},
    "full": {"hidden_size": 1536, "depth": 24, "num_heads": 12, "out_hidden_size": 4096, "intermediate_size": 13696},  # GLM-4.1V-9B
}
STYLES = {"reader": "reader", "middle": "glyph-en-72", "full": "glyph-en-72"}
TEXT = "The carrier shall deliver the goods to the agreed place within four days of the order, and the buyer shall inspect them. " * 200


def random_model(path: Path, size: dict[str, Any]) -> Path:
    """A checkpoint of the vision tower alone, random, in bf16."""
    path.mkdir(parents=True)
    config = Glm4vVisionConfig(**size)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Glm4vVisionModel(config).state_dict().items()}
    torch.manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if "norm" in name:
            state[VISION_PREFIX + name] = torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
        else:
            fan_in = shape[1:].numel() if len(shape) > 1 else 100
            state[VISION_PREFIX + name] = torch.empty(shape, dtype=torch.bfloat16).normal_(std=fan_in**-0.5)
    save_file(state, path / "model.safetensors")
    vision = config.to_dict()
    (path / "config.json").write_text(
        json.dumps({"architectures": ["Glm4vForConditionalGeneration"], "model_type": "glm4v", "vision_config": vision})
    )
    return path


def drawn(style: str, count: int) -> list[Page]:
    """Full pages of text of one size."""
    whole = PRESETS[style].changed(style, auto_crop_width=False, auto_crop_last_page=False)
    return list(itertools.islice(Typesetter(whole).pages(TEXT * count), count))


def flops_per_page(size: dict[str, Any], patches: int) -> float:
    """Of matrix products, attention included."""
    hidden, out, wide = size["hidden_size"], size["out_hidden_size"], size["intermediate_size"]
    block = patches * (4 * hidden**2 + 3 * hidden * out) + 2 * patches**2 * hidden
    merger = patches / 4 * (4 * hidden * out + out**2 + 3 * out * wide)
    return 2.0 * (patches * 196 * hidden + size["depth"] * block + merger)


def matrix_speed(dtype: torch.dtype, device: str = "cpu", side: int = 1536) -> float:
    """FLOP/s of a square product here and now, best of ten."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
