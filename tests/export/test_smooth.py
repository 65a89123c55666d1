"""Before a tower goes to INT8: its function stays, and channels that are much larger than others cost less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from glyph_rt.export.smooth import smooth
from torch import Tensor
from transformers import Glm4vVisionConfig

from glyph_rt.vision.tower import VisionTower

PATCHES = 24


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def tower(request: pytest.FixtureRequest) -> VisionTower:
    """Random, with a few channels that are made a hundred times as large as the others, and read by weights as small."""
    config: dict[str, Any] = {"hidden_size": 32, "depth": 2, "num_heads": 2, "out_hidden_size": 48, "intermediate_size": 64}
    torch.manual_seed(4)
    tower = VisionTower(Glm4vVisionConfig(**config, attention_bias=request.param)).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        for block in tower.blocks:
            for maker, reader in (
                (block.norm1.weight, block.attn.qkv),
                (block.attn.qkv.weight[64:], block.attn.proj),
                (block.norm2.weight, block.mlp.gate_up),
                (block.mlp.gate_up.weight[48:], block.mlp.down_proj),
            ):
                maker[:3] *= 100
                reader.weight[:, :3] /= 100
    return tower


@pytest.fixture
def feeds() -> list[tuple[Tensor, ...]]:
    torch.manual_seed(5)
    angles = torch.randn(PATCHES, 16)
    rest = torch.randn(PATCHES, 32), angles.cos(), angles.sin()
    return [(torch.randint(0, 256, (1, PATCHES, 196), dtype=torch.uint8), *rest) for _ in range(3)]


@torch.no_grad()
def rounded(tower: VisionTower, feed: tuple[Tensor, ...]) -> Tensor:
    """What the tower gives when every input of its blocks' products is rounded to 8 bits, by tensor."""

    def round_off(product: torch.nn.Module, inputs: tuple[Tensor]) -> Tensor:
        scale = inputs[0].abs().max() / 127
        return (inputs[0] / scale).round() * scale

    products = [p for block in tower.blocks for p in (block.attn.qkv, block.attn.proj, block.mlp.gate_up, block.mlp.down_proj)]
    hooks = [product.register_forward_pre_hook(round_off) for product in products]
    out: Tensor = tower(*feed)
    for hook in hooks:
        hook.remove()
    return out


@torch.no_grad()
def test_the_function_stays_and_rounding_costs_less(tower: VisionTower, feeds: list[tuple[Tensor, ...]]) -> None:
    before = {name: parameter.clone() for name, parameter in tower.named_parameters()}
    expected, roughly = tower(*feeds[0]), rounded(tower, feeds[0])
    smooth(tower, feeds)
    found, better = tower(*feeds[0]), rounded(tower, feeds[0])
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-5 * scale
    assert (better - expected).norm() < 0.3 * (roughly - expected).norm()
    changed = {name for name, parameter in tower.named_parameters() if not torch.equal(parameter, before[name])}
    parts = {"norm1.weight", "attn.qkv.weight", "attn.proj.weight", "norm2.weight", "mlp.gate_up.weight", "mlp.down_proj.weight"}
    parts |= {"attn.qkv.bias"} if "blocks.0.attn.qkv.bias" in before else set()
    assert changed == {f"blocks.{block}.{part}" for block in (0, 1) for part in parts}
    for part in ("qkv.weight", "qkv.bias"):  # queries and keys are as they were, but for the norm's share of their weights
        name = f"blocks.0.attn.{part}"
        if name in before and part == "qkv.bias":
            assert torch.equal(tower.get_parameter(name)[:64], before[name][:64])


def test_a_channel_that_no_page_uses_stays_finite(tower: VisionTower, feeds: list[tuple[Tensor, ...]]) -> None:
    with torch.no_grad():
        for block in tower.blocks:
            block.norm1.weight[5] = 0
            block.mlp.down_proj.weight[:, 7] = 0
        expected = tower(*feeds[0])
        smooth(tower, feeds)
        found = tower(*feeds[0])
    assert all(torch.isfinite(parameter).all() for parameter in tower.parameters())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
