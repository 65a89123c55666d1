"""Attention segment by segment, merged by log-sum-exp, where a matrix of all scores would be too large.

Attention over a union of key sets is the softmax-weighted mean of the attentions over each set, with each set's log-sum-exp as its
weight (FlashAttention, arXiv:2205.14135, section 3.1): nothing is concatenated, and no mask spans the past.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glyph_rt.language.rows import Group, Span
from glyph_rt.language.segments import KVSegment


class FlashAttention:
    """Attention of one group of a step."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._spans = [_SpanAttention(span) for span in group.spans]
        self._sizes = [span.rows for span in group.spans]

    def attend(self, layer: int, query: Tensor, kv: Tensor, scale: float) -> Tensor:
        """As StepBatch.attend, of the group's rows."""
        packed = query.view(len(query), kv.shape[2], -1, query.shape[2])  # [rows, kv_heads, group, d]
        new = kv.permute(1, 2, 0, 3).split_with_sizes(self._sizes, 2)  # [2, kv_heads, own rows, d]
        own = zip(self._spans, packed.split_with_sizes(self._sizes), new, strict=True)
        out, lse = (torch.cat(each) for each in zip(*(span.attend(layer, q, rows, scale) for span, q, rows in own), strict=True))
        for shared in self._group.shared:
            rows = slice(shared.start - self._group.start, shared.stop - self._group.start)
            out[rows], lse[rows] = _merge((out[rows], lse[rows]), _attend(packed[rows], shared.segment, layer, scale))
        return out.reshape(query.shape)


class _SpanAttention:
    """Rows over their own tail. Views of the tail are cut once per step and not once per layer."""

    def __init__(self, span: Span) -> None:
        self._place = span.tail.place(span.rows)
        self._past = span.tail.first(span.tail.length)

    def attend(self, layer: int, query: Tensor, new: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Write the new keys and values [2, kv_heads, rows, d], and attend to the tail and to each other; as `_attend`."""
        self._place.write(layer, new)
        own = _attend_causal(query, new, scale)
        return _merge(own, _attend(query, self._past, layer, scale)) if self._past.tokens else own


def _attend(query: Tensor, past: KVSegment, layer: int, scale: float) -> tuple[Tensor, Tensor]:
    """Every row of query [rows, kv_heads, group, d] over all of a segment: output of query's shape, and log-sum-exp fp32 [rows, kv_heads,
    group]."""
    rows, kv_heads, group, dim = query.shape
    packed = query.transpose(0, 1).reshape(1, kv_heads, rows * group, dim)
    keys, values = past.keys[layer].to(query.dtype), past.values[layer].to(query.dtype)
    out, lse = flash(packed, keys.transpose(1, 2)[None], values[None], scale, causal=False)
    return out.view(kv_heads, rows, group, dim).transpose(0, 1), lse.view(kv_heads, rows, group).transpose(0, 1)


def _attend_causal(query: Tensor, new: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """New tokens among themselves; as `_attend`. K and V of a KV head are seen by its query heads through a stride of zero."""
    packed = query.permute(1, 2, 0, 3)  # [kv_heads, group, rows, d]
    keys, values = (t[:, None].expand(-1, packed.shape[1], -1, -1) for t in new.unbind(0))
    out, lse = flash(packed, keys, values, scale, causal=True)
    return out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)


def flash(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp: query [b, h, rows, d], key and value [b, h, tokens, d] to [b, h, rows, d], [b, h, rows]."""
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
        return out, lse
    # Other devices: plain matrices. Right everywhere, not fast: never run on a GPU so far.
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if causal:
        rows, tokens = scores.shape[-2:]
        scores = scores.masked_fill(~torch.ones(rows, tokens, dtype=torch.bool, device=scores.device).tril(), -torch.inf)
    lse = scores.logsumexp(-1)
    return ((scores - lse[..., None]).exp() @ value.float()).to(query.dtype), lse


def _merge(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint key sets, joined: b counts exp(lse_b) / (exp(lse_a) + exp(lse_b)). In fp32."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    share = torch.sigmoid(lse_b - lse_a)[..., None]
    out = torch.lerp(out_a.float(), out_b.float(), share)
    return out.to(out_a.dtype), torch.logaddexp(lse_a, lse_b)
