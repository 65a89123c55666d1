"""The vision tower as an ONNX graph for any number of pages of any size."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.vision.geometry import page_geometry
from glyph_rt.vision.onnx_encoder import INPUTS, MODEL_DIGEST, OUTPUT
from glyph_rt.vision.select import onnx_path
from glyph_rt.vision.torch_encoder import VISION_PREFIX
from glyph_rt.vision.tower import load_tower

OPSET = 18  # decomposed attention: every ONNX Runtime, and the TensorRT 10.3 parser, take it


def export_vision(checkpoint: Checkpoint, store: Path) -> Path:
    """Write the fp32 graph of this checkpoint's tower into `store` and return its path.

    Pages and patches are dynamic. The file appears whole or not at all.
    """
    vision = checkpoint.config.vision_config
    tower, table = load_tower(vision, checkpoint.tensors(VISION_PREFIX), torch.float32)
    geometry = page_geometry(112, 84, table, vision.hidden_size // vision.num_heads, vision.rope_parameters["rope_theta"])
    patches = torch.zeros(2, len(geometry.positions), tower.patch.in_features, dtype=torch.uint8)
    pages = torch.export.Dim("pages", min=1, max=64)
    blocks = torch.export.Dim("visual_tokens", min=2, max=16384)
    per_patch = {0: 4 * blocks}  # a page has four patches for each visual token
    program = torch.onnx.export(
        tower,
        (patches, geometry.positions, geometry.cos, geometry.sin),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_shapes=({0: pages, 1: 4 * blocks}, per_patch, per_patch, per_patch),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {MODEL_DIGEST: checkpoint.digest})
    path = onnx_path(checkpoint, store)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    onnx.save_model(model, part)
    part.replace(path)
    return path
