"""Shared by the vision tests: pages our typesetter drew, probe pages, and random towers of a given size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Glm4vVisionConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vVisionModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.typeset import PRESETS, Page, Style, Typesetter
from glyph_rt.vision import ProbePage
from glyph_rt.vision.golden import GoldenPage
from glyph_rt.vision.graph import OUTPUT
from glyph_rt.vision.torch_encoder import TorchEncoder
from tests.conftest import TEXT

GREY, RED = "#000000", "#B01030"
TINY = {"hidden_size": 32, "depth": 1, "num_heads": 1, "out_hidden_size": 48, "intermediate_size": 64}
MIDDLE = {"hidden_size": 384, "depth": 8, "num_heads": 6, "out_hidden_size": 512, "intermediate_size": 1024}


def pages_of(width: int, height: int, count: int, colour: str = GREY) -> list[Page]:
    style = Style.from_json(PRESETS["reader"].to_json() | {"page-size": f"{width},{height}", "font-color": colour}, "test")
    return list(Typesetter(style).pages(TEXT * 60))[:count]


def stacked(pages: list[Page]) -> np.ndarray:
    return np.stack([page.patches for page in pages])


def probe(colour: str = GREY) -> ProbePage:
    return ProbePage(stacked(pages_of(280, 140, 1, colour)), 280, 140)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the expected range."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def golden_page(name: str, patches: np.ndarray, width: int, height: int, oracle: TorchEncoder) -> GoldenPage:
    """As an export makes it, of a page's patches."""
    found = {stage: values[0].numpy() for stage, values in oracle.observe(patches[None], width, height).items()}
    rows = np.arange(0, len(patches) // 4, 7)
    tokens = found.pop(OUTPUT)[rows]
    return GoldenPage(name, width, height, patches, rows, tokens, np.stack([values[4 * rows] for values in found.values()]))


def random_tower(path: Path, size: dict[str, Any]) -> tuple[Checkpoint, Glm4vVisionModel]:
    """A checkpoint whose vision tower has random weights, norms and biases that are not trivial, and transformers' model of it in fp64.

    Only the vision tensors are there: nothing that exports or encodes may ask for others.
    """
    torch.manual_seed(11)
    visual = Glm4vVisionModel._from_config(Glm4vVisionConfig(**size), attn_implementation="sdpa").eval().requires_grad_(False)
    for name, parameter in visual.named_parameters():
        if parameter.ndim == 1:
            parameter.data = 0.2 * torch.randn_like(parameter) + float(name.endswith("weight"))
        elif "position_embedding" in name:
            parameter.data = 0.5 * torch.randn_like(parameter)
        else:
            parameter.data = torch.randn_like(parameter) * parameter[0].numel() ** -0.5
    path.mkdir(parents=True, exist_ok=True)
    save_file({f"model.visual.{name}": t.clone() for name, t in visual.state_dict().items()}, path / "model.safetensors")
    vision = visual.config.to_dict() | {"model_type": "glm4v_vision"}
    config = {"architectures": ["Glm4vForConditionalGeneration"], "model_type": "glm4v", "vision_config": vision}
    (path / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(path), visual.double()
