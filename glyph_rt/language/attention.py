"""Attention over a shared past and a private tail, merged by log-sum-exp.

Registered with transformers' AttentionInterface, so the stock Glm4v text model runs on our KV memory. Attention over a
union of key sets is the softmax-weighted mean of the attentions over each set, with each set's log-sum-exp as its weight
(FlashAttention, arXiv:2205.14135, section 3.1): nothing is concatenated, nothing is copied, and no mask spans the past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from glyph_rt.language.segments import KVSegment, KVTail

IMPLEMENTATION = "glyph_segments"


@dataclass(frozen=True)
class Past:
    """What the tokens of one forward pass attend to besides themselves: segments in order, then the tail."""

    segments: tuple[KVSegment, ...]
    tail: KVTail


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    past: Past,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [1, heads, new, d], key and value [1, kv_heads, new, d], already rotated.

    Writes the new keys and values into `past.tail`. Returns [1, new, heads, d].
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    heads, new, dim = query.shape[1:]
    kv_heads = key.shape[1]
    tail = past.tail
    tail.write(layer, key[0], value[0])
    # Query heads that share a KV head become extra query rows of it: [kv_heads, 1, group * new, d]. The alternative,
    # repeating K and V for every query head, reads 16 times the memory on GLM-4.1V.
    packed = query.reshape(kv_heads, 1, heads // kv_heads * new, dim)
    parts = [_attend(packed, s.keys[layer], s.values[layer], scaling) for s in past.segments if s.tokens]
    if new == 1:
        parts.append(_attend(packed, *tail.read(layer, tail.length + 1), scaling))
    else:
        if tail.length:
            parts.append(_attend(packed, *tail.read(layer, tail.length), scaling))
        parts.append(_attend_causal(query, key, value, scaling))
    out = _merge(parts).view(1, heads, new, dim)
    return out.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, segment_attention)
AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Every row of query [kv_heads, 1, rows, d] over all keys [kv_heads, tokens, d]: output and log-sum-exp (fp32)."""
    return flash(query, keys[:, None], values[:, None], scale, causal=False)


def _attend_causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The new tokens among themselves. K and V of a KV head are seen by its query heads through a stride of zero."""
    _, heads, new, dim = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    q = query.reshape(kv_heads, group, new, dim)
    k, v = (t.reshape(kv_heads, 1, new, dim).expand(-1, group, -1, -1) for t in (key, value))
    out, lse = flash(q, k, v, scale, causal=True)
    return out.reshape(kv_heads, 1, group * new, dim), lse.reshape(kv_heads, 1, group * new)


def flash(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp: query [b, h, rows, d], key and value [b, h, tokens, d] to [b, h, rows, d], [b, h, rows]."""
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
        return out, lse
    # Other devices: plain matrices. Right everywhere, not fast; the fused GPU kernels come with the batching work.
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if causal:
        rows, tokens = scores.shape[-2:]
        scores = scores.masked_fill(~torch.ones(rows, tokens, dtype=torch.bool, device=scores.device).tril(), -torch.inf)
    lse = scores.logsumexp(-1)
    return ((scores - lse[..., None]).exp() @ value.float()).to(query.dtype), lse


def _merge(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Outputs of disjoint key sets, joined: sum of exp(lse_i - max) * out_i over sum of exp(lse_i - max), in fp32."""
    if len(parts) == 1:
        return parts[0][0]
    lse = torch.stack([part[1].float() for part in parts])
    weights = torch.softmax(lse, 0)[..., None]
    out = torch.stack([part[0].float() for part in parts])
    return (weights * out).sum(0).to(parts[0][0].dtype)
