"""Attention of one step: rows of many turns over the segments they share and the tails they own, merged by log-sum-exp.

Attention over a union of key sets is the softmax-weighted mean of the attentions over each set, with each set's log-sum-exp as its
weight (FlashAttention, arXiv:2205.14135, section 3.1): nothing is concatenated, nothing is copied, and no mask spans the past. So all
turns of a step that stand on one segment read its keys and values once, in one call.

Query heads that share a KV head are packed as rows of it. Repeating K and V for every query head instead, as transformers does
whenever there is a mask, reads 16 times the memory on GLM-4.1V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glyph_rt.language.segments import KVSegment, KVTail

FEW_ROWS = 32  # up to here two matrix products beat torch's fused CPU kernel, which works on blocks of 32 rows


@dataclass(frozen=True)
class Past:
    """What a turn's tokens attend to besides themselves: segments in order, then the tail."""

    segments: tuple[KVSegment, ...]
    tail: KVTail


@dataclass(frozen=True)
class Rows:
    """What one turn or reading brings into a step.

    tokens: ids; positions: rope positions, a range or int64 [3, tokens]; wanted: for how many of the last tokens logits are wanted;
    visual: what takes the place of the tokens at `image`, [n, hidden].
    """

    past: Past
    tokens: Sequence[int]
    positions: range | Tensor
    wanted: int = 0
    image: slice | None = None
    visual: Tensor | None = None


@dataclass(frozen=True)
class _Shared:
    """Rows [start, stop) of a step that all attend to `segment`."""

    segment: KVSegment
    start: int
    stop: int


class StepBatch:
    """Whose rows lie where in one step.

    Turns that stand on the same segments should be neighbours: neighbours read a segment together.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.spans: list[tuple[KVTail, int, int]] = []  # tail, rows [start, stop)
        self.shared: list[_Shared] = []
        before: dict[int, _Shared] = {}  # by place in the chain, what the part before attends to
        at = 0
        for part in parts:
            stop = at + len(part.tokens)
            self.spans.append((part.past.tail, at, stop))
            here: dict[int, _Shared] = {}
            for place, segment in enumerate(s for s in part.past.segments if s.tokens):
                last = before.get(place)
                start = last.start if last is not None and last.segment is segment else at
                here[place] = _Shared(segment, start, stop)
                if start != at:
                    self.shared.remove(last)  # type: ignore[arg-type]  # not None: start is its start
                self.shared.append(here[place])
            before, at = here, stop

    def advance(self) -> None:
        """Make the rows part of their tails, once every layer has written them and nothing can fail any more."""
        for tail, start, stop in self.spans:
            tail.advance(stop - start)

    def attend(self, layer: int, query: Tensor, kv: Tensor, scale: float) -> Tensor:
        """Write the rows' keys and values to their tails, and attend: query [rows, heads, d], kv [rows, 2, kv_heads, d], rotated, to
        [rows, heads, d]."""
        rows, heads, dim = query.shape
        grouped = query.view(rows, kv.shape[2], -1, dim)  # [rows, kv_heads, group, d]
        parts = [self._private(layer, tail, grouped[start:stop], kv[start:stop], scale) for tail, start, stop in self.spans]
        out, lse = parts[0] if len(parts) == 1 else (torch.cat(outs) for outs in zip(*parts, strict=True))
        for shared in self.shared:
            whole = shared.start == 0 and shared.stop == rows
            span = slice(shared.start, shared.stop)
            keys, values = shared.segment.layer(layer)
            merged = _merge((out[span], lse[span]), _attend(grouped[span], keys, values, scale))
            if whole:
                out, lse = merged
            else:
                out[span], lse[span] = merged
        return out.reshape(rows, heads, dim)

    @staticmethod
    def _private(layer: int, tail: KVTail, query: Tensor, kv: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """New tokens of one turn over its tail and each other."""
        tail.write(layer, kv)
        if len(query) == 1:
            return _attend(query, *tail.read(layer, tail.length + 1), scale)
        own = _attend_causal(query, kv, scale)
        return _merge(own, _attend(query, *tail.read(layer, tail.length), scale)) if tail.length else own


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Every row of query [rows, kv_heads, group, d] over all keys [kv_heads, tokens, d]: output of query's shape, and log-sum-exp
    fp32 [rows, kv_heads, group]."""
    rows, kv_heads, group, dim = query.shape
    packed = query.transpose(0, 1).reshape(kv_heads, rows * group, dim)
    if packed.shape[1] <= FEW_ROWS and packed.dtype == torch.float32:
        scores = torch.baddbmm(packed.new_empty(()), packed, keys.transpose(1, 2), beta=0, alpha=scale)
        weights = torch.softmax(scores, -1)
        out = weights @ values
        lse = scores.amax(-1) - weights.amax(-1).log()  # the largest weight is exp(largest score - lse)
    else:
        out, lse = flash(packed[:, None], keys[:, None], values[:, None], scale, causal=False)
    return out.view(kv_heads, rows, group, dim).transpose(0, 1), lse.view(kv_heads, rows, group).transpose(0, 1)


def _attend_causal(query: Tensor, kv: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The new tokens among themselves; as `_attend`. K and V of a KV head are seen by its query heads through a stride of zero."""
    packed = query.permute(1, 2, 0, 3)  # [kv_heads, group, rows, d]
    keys, values = (t.transpose(0, 1)[:, None].expand(-1, packed.shape[1], -1, -1) for t in kv.unbind(1))
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
