"""The torch oracle against transformers, on pages our typesetter drew."""

from __future__ import annotations

import pytest
import torch
from transformers import Glm4vForConditionalGeneration

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError, NonFiniteError
from glyph_rt.vision.torch_encoder import VISION_PREFIX, TorchEncoder
from glyph_rt.vision.tower import attend_in_steps, load_tower
from tests.conftest import processor_inputs
from tests.vision.parts import GREY, RED, distance, pages_of, stacked

SIZES = [(280, 140), (56, 28), (28, 28), (588, 840)]


@pytest.mark.parametrize("colour", [GREY, RED])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_folded_tower_equals_transformers(checkpoint: Checkpoint, width: int, height: int, colour: str) -> None:
    """From the PNG a person sees, through transformers' processor and vision model, to the same visual tokens.

    The reference runs in fp64: in fp32, its sum over 1,176 normalised pixels is further from the truth than the folded sum.
    """
    reference = Glm4vForConditionalGeneration.from_pretrained(checkpoint.path, dtype=torch.float64).eval()
    pages = pages_of(width, height, 2, colour)
    assert pages[0].patches.shape[1] == (196 if colour == GREY else 588)
    pixel_values, grid = processor_inputs([page.pixels() for page in pages])
    with torch.inference_mode():
        expected = reference.model.visual(pixel_values.double(), grid_thw=grid).pooler_output.float()
    found = TorchEncoder(checkpoint).encode(stacked(pages), width, height)
    assert found.shape == (len(pages), width // 28 * (height // 28), checkpoint.config.text_config.hidden_size)
    assert distance(found.flatten(0, 1), expected) < 1e-5


def test_a_page_is_encoded_alike_alone_and_in_a_batch(checkpoint: Checkpoint) -> None:
    encoder, pages = TorchEncoder(checkpoint), stacked(pages_of(280, 140, 5))
    together = encoder.encode(pages, 280, 140)
    alone = torch.cat([encoder.encode(page[None], 280, 140) for page in pages])
    assert distance(together, alone) < 1e-5


def test_attention_in_steps_is_attention() -> None:
    q, k, v = torch.randn(3, 2, 4, 40, 32).unbind(0)
    assert distance(attend_in_steps(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v)) < 1e-5
    half = attend_in_steps(q.half(), k.half(), v.half())
    assert half.dtype == torch.float16 and distance(half.float(), attend_in_steps(q, k, v)) < 2e-3


def test_in_half_precision_norms_and_the_patch_embedding_stay_fp32(checkpoint: Checkpoint) -> None:
    tower, table = load_tower(checkpoint.config.vision_config, checkpoint.tensors(VISION_PREFIX), torch.float16)
    kept = {name for name, t in tower.state_dict().items() if t.dtype == torch.float32}
    assert kept == {name for name in tower.state_dict() if "norm" in name or name.startswith(("patch.", "colour_weight"))}
    assert table.dtype == torch.float32 and tower.blocks[0].attn.qkv.weight.dtype == torch.float16


@pytest.mark.parametrize("lost", ["blocks.0.mlp.up_proj.weight", "merger.gate_proj.weight", "patch_embed.proj.bias", "downsample.bias"])
def test_a_missing_tensor_is_named(checkpoint: Checkpoint, lost: str) -> None:
    tensors = [(name, t) for name, t in checkpoint.tensors(VISION_PREFIX) if name != lost]
    with pytest.raises(ModelError, match="do not fit its configuration"):
        load_tower(checkpoint.config.vision_config, tensors, torch.float32)
    with pytest.raises(ModelError, match="surplus"):
        load_tower(checkpoint.config.vision_config, [*checkpoint.tensors(VISION_PREFIX), ("surplus", torch.ones(1))], torch.float32)


def test_nan_is_an_error_and_not_an_answer(checkpoint: Checkpoint) -> None:
    encoder = TorchEncoder(checkpoint)
    encoder.tower.patch.bias.data = encoder.tower.patch.bias + float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        encoder.encode(stacked(pages_of(280, 140, 1)), 280, 140)
