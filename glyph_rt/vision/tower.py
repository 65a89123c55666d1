"""VisionTower: Glm4vVisionModel for dense batches of equal pages, in a form every exporter accepts.

The same function as transformers' class, with three exact rewritings:
- The patch embedding (Conv3d over two equal frames and three equal channels, after rescale, mean and standard deviation)
  is one linear map of 196 ink bytes: 24 times fewer input bytes.
- Attention is full inside a page and pages are a batch dimension: no mask, no cu_seqlens, no data-dependent split.
- What depends on the page size comes in as inputs (geometry.py): one graph serves every size.

With weights in half precision, what loses most there stays in fp32: the patch embedding (its folded weights come near the smallest
normal FP16 number, and it is a thousandth of the work), norms, rope and softmax. Queries, keys and values are back in half right
before attention: TensorRT does not fuse an attention that is fed with FP32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glyph_rt.errors import ModelError

# Glm4vImageProcessor's image_mean and image_std (CLIP's); rescale is 1/255.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PATCH_BYTES = 196  # one grey patch of 14 x 14 px
COLOUR_PATCH_BYTES = 3 * PATCH_BYTES  # red, green and blue planes


def fold_patch_embedding(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Conv3d kernel [hidden, 3, 2, 14, 14] and bias to a linear map of ink: weight [hidden, 588], bias [hidden], fp32.

    With p = 255 - ink for each channel and frame, sum_ct K_ct (p / 255 - mean_c) / std_c + b is linear in ink. Where the channels
    are equal, their weights add up: [hidden, 196]. Computed in double precision.
    """
    std = torch.tensor(STD, dtype=torch.float64)
    mean = torch.tensor(MEAN, dtype=torch.float64)
    by_channel = kernel.double().sum(2).flatten(2)  # [hidden, 3, 196]
    weight = by_channel / std[:, None] / 255
    offset = bias.double() - (by_channel * (mean / std)[:, None]).sum((1, 2))
    return (-weight.flatten(1)), (offset + 255 * weight.sum((1, 2))).float()


class RMSNorm(nn.Module):
    """Root-mean-square norm with its weight, computed in fp32 whatever the type of its input."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def attend_in_steps(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """scaled_dot_product_attention in operators that every ONNX version has, with its softmax in fp32.

    q, k, v and the result: [pages, heads, patches, head_dim]. Queries are scaled before the product, as TensorRT's fused kernel wants it.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.float().softmax(-1).to(q.dtype) @ v  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.in_steps = False  # True: attend_in_steps, for exporters that have no attention operator
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=bias)
        self.proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        pages, patches, hidden = x.shape
        # [3, pages, heads, patches, head_dim]
        q, k, v = self.qkv(x).reshape(pages, patches, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attend = attend_in_steps if self.in_steps else F.scaled_dot_product_attention
        out = attend(_rope(q, cos, sin), _rope(k, cos, sin), v)
        return self.proj(out.transpose(1, 2).reshape(pages, patches, hidden))  # type: ignore[no-any-return]


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), with gate and up as one matrix."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(inputs, 2 * width, bias=False)
        self.down_proj = nn.Linear(width, inputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = Attention(config.hidden_size, config.num_heads, config.attention_bias)
        self.mlp = GatedMLP(config.hidden_size, config.out_hidden_size)  # out_hidden_size: Glm4VisionMlp's width

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Merger(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.proj = nn.Linear(config.out_hidden_size, config.out_hidden_size, bias=False)
        self.post_projection_norm = nn.LayerNorm(config.out_hidden_size)
        self.mlp = GatedMLP(config.out_hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.post_projection_norm
        x = self.proj(x)
        y = F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
        return self.mlp(F.gelu(y).to(x.dtype))  # type: ignore[no-any-return]


class VisionTower(nn.Module):
    """Ink patches to visual tokens for pages of one size.

    forward(patches, positions, cos, sin):
        patches: uint8 [pages, patches, 196], or 588 for pages with colour: ink in merge-block order
        positions: [patches, hidden], cos, sin: [patches, head_dim], fp32, from geometry.page_geometry
    returns [pages, patches / 4, out_hidden] in the dtype of the matrices.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        if (config.patch_size, config.temporal_patch_size, config.spatial_merge_size) != (14, 2, 2):
            raise ModelError("the vision tower must have patch size 14, temporal patch size 2 and spatial merge size 2")
        self.config = config
        self.patch = nn.Linear(PATCH_BYTES, config.hidden_size)
        self.colour_weight = nn.Parameter(torch.empty(config.hidden_size, COLOUR_PATCH_BYTES))  # its bias is the grey one's
        self.post_conv_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.post_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.downsample = nn.Linear(4 * config.hidden_size, config.out_hidden_size)
        self.merger = Merger(config)

    def forward(self, patches: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        (last,) = deque(self.stream(patches, positions, cos, sin), maxlen=1)
        return self.merge(last)

    def stream(self, patches: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Iterator[Tensor]:
        """The residual stream [pages, patches, hidden]: after the patch embedding, and after each block."""
        weight = self.patch.weight if patches.shape[-1] == PATCH_BYTES else self.colour_weight
        x = F.linear(patches.float(), weight.float(), self.patch.bias.float())
        x = (self.post_conv_layernorm(x) + positions).to(self.downsample.weight.dtype)
        yield x
        for block in self.blocks:
            x = block(x, cos, sin)
            yield x

    def merge(self, x: Tensor) -> Tensor:
        """What comes after the last block: four patches become one visual token."""
        x = self.post_layernorm(x)
        pages, count, hidden = x.shape
        # The four patches of a block follow each other, so the 2 x 2 convolution is one linear map.
        return self.merger(self.downsample(x.reshape(pages, count // 4, 4 * hidden)))  # type: ignore[no-any-return]


def load_tower(config: Any, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> tuple[VisionTower, Tensor]:
    """A VisionTower with a checkpoint's weights, and its position table [side * side, hidden] (fp32).

    `tensors` are (name under `model.visual.`, tensor); each is converted as it comes, so that no second copy of the tower is ever in
    memory. Matrices get `dtype`; norms and the patch embedding stay fp32. Raises ModelError for missing or unexpected tensors.
    """
    with torch.device("meta"):
        tower = VisionTower(config)
    shapes = {name: t.shape for name, t in tower.state_dict().items()}
    state: dict[str, Tensor] = {}
    apart: dict[str, Tensor] = {}  # what is not simply renamed and converted
    half_filled: set[str] = set()
    try:
        for name, tensor in tensors:
            if name.startswith(("patch_embed.", "embeddings.")):
                apart[name] = tensor
            elif name.endswith(("gate_proj.weight", "up_proj.weight")):
                stem, part = name.removesuffix("_proj.weight").rsplit(".", 1)
                merged = _mlp(stem) + ".gate_up.weight"
                both = state.setdefault(merged, torch.empty(shapes[merged], dtype=dtype))
                both.chunk(2)[part == "up"].copy_(tensor)
                half_filled ^= {merged}
            elif name.endswith("down_proj.weight"):
                state[_mlp(name.removesuffix(".down_proj.weight")) + ".down_proj.weight"] = tensor.to(dtype)
            elif name == "downsample.weight":
                state[name] = tensor.permute(0, 2, 3, 1).flatten(1).to(dtype).contiguous()
            else:
                state[name] = tensor.to(torch.float32 if "norm" in name else dtype)
        weight, bias = fold_patch_embedding(apart.pop("patch_embed.proj.weight"), apart.pop("patch_embed.proj.bias"))
        state["patch.weight"], state["patch.bias"] = weight.view(-1, 3, PATCH_BYTES).sum(1).float(), bias
        state["colour_weight"] = weight.float()
        table = apart.pop("embeddings.position_embedding.weight").float()
        if half_filled or apart:
            raise KeyError(*sorted(half_filled), *apart)
        tower.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"the vision tower's tensors do not fit its configuration: {' '.join(str(error).split())[:300]}") from None
    return tower.eval().requires_grad_(False), table


def _mlp(stem: str) -> str:
    """Where a gated MLP sits in VisionTower: in blocks under the checkpoint's own name, in the merger one level deeper."""
    return stem if stem.endswith("mlp") else stem + ".mlp"


def _rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    h = x.float()
    half = x.shape[-1] // 2
    return (h * cos + torch.cat((h[..., half:], h[..., :half]), -1) * sin).to(x.dtype)
