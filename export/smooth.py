"""Moves what is hard to round from activations into weights, before a tower goes to INT8, without changing its function.

An activation has one scale for all its channels, so a few channels that are large take the accuracy of the others. Weights have a scale for
each output and can bear more. Dividing an input channel by s where it is made, and multiplying the weights that read it by s, leaves every
product as it was (SmoothQuant, Xiao et al., ICML 2023, equation 4; its strength is 0.5 there, too).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from glyph_rt.vision.tower import Block, VisionTower

STRENGTH = 0.5  # 0: weights take the scale of their own channels away; 1: activations become equally large. 0.4 to 0.7 differ little
LEAST = 1e-5  # a channel that no page uses stays finite


@torch.inference_mode()
def smooth(tower: VisionTower, feeds: Iterable[tuple[Tensor, ...]]) -> None:
    """Change the weights of `tower`'s blocks in place, by how large their inputs become on `feeds`, the arguments of its forward."""
    largest = _largest_inputs(tower, feeds)
    for block in tower.blocks:
        for product, makers in _inputs(block):
            weights = product.weight.abs().amax(0).float()
            scale = largest[product].clamp(min=LEAST) ** STRENGTH / weights.clamp(min=LEAST) ** (1 - STRENGTH)
            product.weight.mul_(scale)
            for maker in makers:
                maker.div_(scale if maker.ndim == 1 else scale[:, None])


def _inputs(block: Block) -> Iterator[tuple[nn.Linear, tuple[Tensor, ...]]]:
    """Each product with weights of `block`, and views of the parameters that make its input: by channel, in their first dimension.

    An attention's output is a mean of values, and a gated unit's is linear in what comes up: both scale with these alone.
    """
    attention, mlp = block.attn, block.mlp
    yield attention.qkv, (block.norm1.weight,)
    value = [parameter.chunk(3)[2] for parameter in attention.qkv.parameters()]
    yield attention.proj, tuple(value)
    yield mlp.gate_up, (block.norm2.weight,)
    yield mlp.down_proj, (mlp.gate_up.weight.chunk(2)[1],)


def _largest_inputs(tower: VisionTower, feeds: Iterable[tuple[Tensor, ...]]) -> dict[nn.Module, Tensor]:
    """By product: the largest magnitude of each channel of its input, fp32 [inputs]."""
    largest: dict[nn.Module, Tensor] = {}

    def note(product: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        found = inputs[0].abs().flatten(0, -2).amax(0).float()
        largest[product] = torch.maximum(largest[product], found) if product in largest else found

    hooks = [product.register_forward_hook(note) for block in tower.blocks for product, _ in _inputs(block)]
    try:
        for feed in feeds:
            tower(*feed)
    finally:
        for hook in hooks:
            hook.remove()
    return largest
