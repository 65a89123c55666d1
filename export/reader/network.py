"""The reader as a trainable network: the arithmetic of Glm4vForConditionalGeneration, batched for speed.

transformers' class runs pages one by one, embeds patches with a 3-D convolution of 1,176 inputs and resamples its
position table at every call. This module computes the same function for batches of equal pages; `checkpoint_state` gives
its weights under transformers' names, and a test holds the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from glyph_rt.export.reader.alphabet import BEGIN_OF_IMAGE, END_OF_IMAGE, PREFIX, VOCABULARY_SIZE
from glyph_rt.export.reader.attention import attention, later
from glyph_rt.export.reader.size import Size
from torch import Tensor, nn

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # Glm4vImageProcessor

HEADS_NOT_SHIPPED = ("character_head.", "slot_head.", "value_head.")  # of the auxiliary losses


class RMSNorm(nn.Module):
    def __init__(self, size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def linear(inputs: int, outputs: int, bias: bool = False, zero: bool = False) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=0.0 if zero else 0.8 / math.sqrt(inputs))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class VisionAttention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.vision_heads
        self.qkv = linear(size.vision_hidden, 3 * size.vision_hidden)
        self.proj = linear(size.vision_hidden, size.vision_hidden, zero=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        pages, patches, hidden = x.shape
        q, k, v = self.qkv(x).view(pages, patches, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out = attention(_rotate_half(q, cos, sin).to(v.dtype), _rotate_half(k, cos, sin).to(v.dtype), v)
        return self.proj(out.transpose(1, 2).reshape(pages, patches, hidden))


class VisionMLP(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_proj = linear(size.vision_hidden, size.hidden)
        self.up_proj = linear(size.vision_hidden, size.hidden)
        self.down_proj = linear(size.hidden, size.vision_hidden, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class VisionBlock(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(size.vision_hidden), RMSNorm(size.vision_hidden)
        self.attn, self.mlp = VisionAttention(size), VisionMLP(size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.proj = linear(size.hidden, size.hidden)
        self.post_projection_norm = nn.LayerNorm(size.hidden, eps=1e-5)
        self.gate_proj, self.up_proj = linear(size.hidden, size.merger), linear(size.hidden, size.merger)
        self.down_proj = linear(size.merger, size.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.post_projection_norm(self.proj(x)))
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Vision(nn.Module):
    """Ink patches [pages, patches, 196] to visual tokens [pages, patches / 4, hidden], for one page size."""

    def __init__(self, size: Size, rows: int, columns: int) -> None:
        super().__init__()
        self.patch = nn.Linear(196, size.vision_hidden)  # on ink in 0..1
        nn.init.normal_(self.patch.weight, std=0.15)
        nn.init.normal_(self.patch.bias, std=0.02)
        self.position = nn.Parameter(torch.randn(size.vision_table**2, size.vision_hidden) * 0.1)
        self.post_conv_layernorm, self.post_layernorm = RMSNorm(size.vision_hidden), RMSNorm(size.vision_hidden)
        self.blocks = nn.ModuleList(VisionBlock(size) for _ in range(size.vision_depth))
        self.downsample = linear(4 * size.vision_hidden, size.hidden, bias=True)  # inputs: (patch in block, channel)
        self.merger = Merger(size)
        row, column = _merge_order(rows, columns)
        half = size.vision_hidden // size.vision_heads // 2
        inverse = size.vision_theta ** -(torch.arange(0, half, 2).float() / half)
        angles = torch.cat([row[:, None] * inverse, column[:, None] * inverse], -1).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        # Bicubic sampling of the table is linear in it: one matrix, computed once.
        side = size.vision_table
        grid = torch.stack(((column + 0.5) / columns * 2 - 1, (row + 0.5) / rows * 2 - 1), -1)[None, :, None]
        table = torch.eye(side * side).view(1, side * side, side, side)
        sampled = F.grid_sample(table, grid, mode="bicubic", align_corners=False, padding_mode="border")
        self.register_buffer("sampling", sampled[0, :, :, 0].T.contiguous(), persistent=False)  # [patches, table]

    def forward(self, ink: Tensor) -> Tensor:
        x = self.post_conv_layernorm(self.patch(ink)) + self.sampling @ self.position
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        pages, patches, hidden = x.shape
        return self.merger(self.downsample(self.post_layernorm(x).reshape(pages, patches // 4, 4 * hidden)))


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.q_proj = linear(size.hidden, size.hidden, bias=True)
        self.k_proj = linear(size.hidden, size.kv_heads * size.head_dim, bias=True)
        self.v_proj = linear(size.hidden, size.kv_heads * size.head_dim, bias=True)
        self.o_proj = linear(size.hidden, size.hidden)

    def first_head(self, projection: nn.Linear, x: Tensor) -> Tensor:
        """The part of a projection that belongs to head 0."""
        dim = self.size.head_dim
        return F.linear(x, projection.weight[:dim], projection.bias[:dim])

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, last: int) -> Tensor:
        """For the last `last` tokens of x [batch, tokens, hidden], what they fetch from all up to themselves, as `mask` has it."""
        batch, tokens, _ = x.shape
        heads, kv_heads, dim = self.size.heads, self.size.kv_heads, self.size.head_dim
        q = _rotate_pairs(self.q_proj(x[:, -last:]).view(batch, last, heads, dim).transpose(1, 2), cos[-last:], sin[-last:])
        k = _rotate_pairs(self.k_proj(x).view(batch, tokens, kv_heads, dim).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(batch, tokens, kv_heads, dim).transpose(1, 2)
        out = attention(q, k, v, mask)
        return self.o_proj(out.transpose(1, 2).reshape(batch, last, heads * dim))


class MLP(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_up_proj = linear(size.hidden, 2 * size.mlp)
        self.down_proj = linear(size.mlp, size.hidden)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class TextBlock(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(size.hidden), RMSNorm(size.hidden)
        self.post_self_attn_layernorm, self.post_mlp_layernorm = RMSNorm(size.hidden, 0.4), RMSNorm(size.hidden, 0.4)
        self.self_attn, self.mlp = Attention(size), MLP(size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, last: int) -> Tensor:
        """The last `last` tokens of x."""
        x = x[:, -last:] + self.post_self_attn_layernorm(self.self_attn(self.input_layernorm(x), cos, sin, mask, last))
        return x + self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(x)))

    def pointer(self, x: Tensor, cos: Tensor, sin: Tensor, text_start: int, image: Tensor) -> Tensor:
        """Scores of query head 0 of every text token over the visual tokens at `image`: [batch, text, visual]."""
        y, attention = self.input_layernorm(x), self.self_attn
        q = _rotate_pairs(attention.first_head(attention.q_proj, y[:, text_start:]), cos[text_start:], sin[text_start:])
        k = _rotate_pairs(attention.first_head(attention.k_proj, y[:, image]), cos[image], sin[image])
        return q @ k.transpose(-1, -2) / math.sqrt(attention.size.head_dim)

    def fetched(self, x: Tensor) -> Tensor:
        """What query head 0 can fetch of the tokens x: [batch, tokens, head_dim]."""
        return self.self_attn.first_head(self.self_attn.v_proj, self.input_layernorm(x))


@dataclass(frozen=True)
class Output:
    """Scores of one forward pass.

    logits: [documents, text, vocabulary], the next token.
    pointers: [2, documents, text, pages * visual tokens], where two layers look for it.
    slots: [documents, text, 8], which character of that visual token it is.
    fetched: [documents * pages, visual tokens, 8, vocabulary], the characters of every visual token as the pointing layers can fetch them.
    visual: [documents * pages, visual tokens, hidden], the visual tokens.
    """

    logits: Tensor
    pointers: Tensor
    slots: Tensor
    fetched: Tensor
    visual: Tensor


class Reader(nn.Module):
    """The whole network for pages of `rows` x `columns` patches. Training only: no cache."""

    def __init__(self, size: Size, rows: int, columns: int) -> None:
        super().__init__()
        self.size, self.rows, self.columns = size, rows, columns
        self.visual = Vision(size, rows, columns)
        self.embed_tokens = nn.Embedding(VOCABULARY_SIZE, size.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        self.layers = nn.ModuleList(TextBlock(size) for _ in range(size.layers))
        self.norm = RMSNorm(size.hidden)
        self.lm_head = linear(size.hidden, VOCABULARY_SIZE)
        # Which character stands under each of a visual token's eight cells: trains the vision tower before the decoder
        # can use it. Not part of the shipped model.
        self.character_head = linear(size.hidden, 8 * VOCABULARY_SIZE)
        # Which of the eight the next character is, read before the last layer. Without it the decoder points at the right
        # visual token long before it learns to choose within it. Not part of the shipped model either.
        self.slot_head = linear(size.hidden, 8)
        # The characters again, read from what the two pointing layers can fetch of a visual token: their values. Nothing else
        # tells these few features to hold all eight.
        self.value_head = linear(len(size.pointing) * size.head_dim, 8 * VOCABULARY_SIZE)

    def guesses(self, visual: Tensor) -> Tensor:
        """The characters [..., 8, vocabulary] of visual tokens [..., hidden], as the vision tower gives them."""
        return self.character_head(visual).unflatten(-1, (8, -1))

    def positions(self, pages: int, text_tokens: int) -> tuple[Tensor, Tensor]:
        """Rope positions [3, tokens] as Glm4vModel.get_rope_index gives them, and the indices of the visual tokens."""
        height, width = self.rows // 2, self.columns // 2
        parts = [torch.arange(len(PREFIX)).expand(3, -1)]
        images = []
        at, index = len(PREFIX), len(PREFIX)
        for _ in range(pages):
            start = at + 1
            h = start + torch.arange(height).repeat_interleave(width)
            w = start + torch.arange(width).repeat(height)
            end = start + max(height, width)
            parts += [torch.full((3, 1), at), torch.stack([torch.full_like(h, start), h, w]), torch.full((3, 1), end)]
            images.append(index + 1 + torch.arange(height * width))
            at, index = end + 1, index + 2 + height * width
        parts.append((at + torch.arange(text_tokens)).expand(3, -1))
        return torch.cat(parts, 1), torch.cat(images)

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each [tokens, head_dim / 2], of interleaved multimodal rope."""
        dim = self.size.head_dim // 2
        angles = positions[..., None].float() * self.size.theta ** -(torch.arange(0, dim, 2).float() / dim)
        chunks = angles.split(list(self.size.mrope_section), -1)
        merged = torch.cat([chunk[i % 3] for i, chunk in enumerate(chunks)], -1).repeat_interleave(2, -1)
        return merged.cos(), merged.sin()

    def forward(self, ink: Tensor, tokens: Tensor, frozen_vision: bool = False) -> Output:
        """ink [documents * pages, patches, 196] in 0..1, tokens [documents, text] after the last page.

        A frozen vision tower gets no gradient from this pass.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen_vision):
            visual = self.visual(ink)
        documents, text = tokens.shape
        pages = len(ink) // documents
        device = tokens.device
        marks = (
            self.embed_tokens(torch.tensor([BEGIN_OF_IMAGE, END_OF_IMAGE], device=device)).view(1, 1, 2, -1).expand(documents, pages, 2, -1)
        )
        framed = torch.cat([marks[:, :, :1], visual.view(documents, pages, *visual.shape[1:]), marks[:, :, 1:]], 2)
        prefix = self.embed_tokens(torch.tensor(PREFIX, device=device)).expand(documents, -1, -1)
        x = torch.cat([prefix, framed.flatten(1, 2), self.embed_tokens(tokens)], 1)
        positions, image = self.positions(pages, text)
        image = image.to(device)
        cos, sin = (turn.to(device) for turn in self.rope(positions))
        mask = later(x.shape[1], device)
        scores, values = [], []
        slots = x.new_zeros(())
        for number, layer in enumerate(self.layers):
            if number in self.size.pointing:
                scores.append(layer.pointer(x, cos, sin, x.shape[1] - text, image))
                values.append(layer.fetched(x[:, image]))
            final = number == self.size.layers - 1
            if final:
                slots = self.slot_head(x[:, -text:])
            x = layer(x, cos, sin, mask, last=text if final else x.shape[1])
        logits = self.lm_head(self.norm(x))
        fetched = self.value_head(torch.cat(values, -1)).unflatten(-1, (8, -1)).unflatten(1, (pages, -1)).flatten(0, 1)
        return Output(logits, torch.stack(scores), slots, fetched, visual)


def checkpoint_state(reader: Reader) -> dict[str, Tensor]:
    """The weights under transformers' names and in its shapes, fp32."""
    state: dict[str, Tensor] = {}
    for name, weight in reader.state_dict().items():
        name = name.replace("_orig_mod.", "")
        if name.startswith(("layers.", "norm.", "embed_tokens.")):
            state["model.language_model." + name] = weight
        elif name.startswith("visual.") and not name.startswith(("visual.patch.", "visual.position", "visual.downsample.weight")):
            state["model." + name] = weight
        elif name.startswith("lm_head."):
            state[name] = weight
    visual, size = reader.visual, reader.size
    # ink = 1 - grey, grey = std * pixel + mean for each of three equal channels and two equal frames.
    weight, bias = -visual.patch.weight, visual.patch.bias + visual.patch.weight.sum(1)
    kernel = torch.stack([(weight * std / 6).view(-1, 1, 14, 14).expand(-1, 2, -1, -1) for std in CLIP_STD], 1)
    state["model.visual.patch_embed.proj.weight"] = kernel
    state["model.visual.patch_embed.proj.bias"] = bias + weight.sum(1) * sum(CLIP_MEAN) / 3
    state["model.visual.embeddings.position_embedding.weight"] = visual.position
    state["model.visual.downsample.weight"] = visual.downsample.weight.view(size.hidden, 2, 2, size.vision_hidden).permute(0, 3, 1, 2)
    return {name: weight.detach().float().contiguous() for name, weight in state.items()}


def load_checkpoint_state(reader: Reader, state: dict[str, Tensor]) -> None:
    """The inverse of `checkpoint_state`, up to the rounding of the stored weights. Heads that are not shipped stay as they are."""
    size = reader.size
    own: dict[str, Tensor] = {}
    for name, weight in state.items():
        weight = weight.float()
        if name == "model.visual.patch_embed.proj.weight":
            kernel = weight.view(size.vision_hidden, 3, 2, 196) * 6 / torch.tensor(CLIP_STD).view(3, 1, 1)
            folded = kernel.mean((1, 2))
            own["visual.patch.weight"] = -folded
        elif name == "model.visual.downsample.weight":
            own["visual.downsample.weight"] = weight.permute(0, 2, 3, 1).reshape(size.hidden, -1)
        elif name == "model.visual.embeddings.position_embedding.weight":
            own["visual.position"] = weight
        elif name != "model.visual.patch_embed.proj.bias":
            own[name.removeprefix("model.").removeprefix("language_model.")] = weight
    pixels = folded.sum(1)
    own["visual.patch.bias"] = state["model.visual.patch_embed.proj.bias"].float() + pixels * (1 - sum(CLIP_MEAN) / 3)
    missing, unexpected = reader.load_state_dict(own, strict=False)
    if unexpected or any(not name.startswith(HEADS_NOT_SHIPPED) for name in missing):
        raise ValueError(f"these are not the weights of a {size}: {unexpected or missing}")


def _merge_order(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, in merge-block order."""
    row = torch.arange(rows).view(rows // 2, 1, 2, 1).expand(-1, columns // 2, -1, 2).reshape(-1)
    column = torch.arange(columns).view(1, columns // 2, 1, 2).expand(rows // 2, -1, 2, -1).reshape(-1)
    return row, column


def _rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def _rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotary, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    turned = torch.stack((-rotary[..., 1::2], rotary[..., 0::2]), -1).flatten(-2)
    return torch.cat([rotary * cos + turned * sin, rest], -1)
