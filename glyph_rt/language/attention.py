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
        self.spans: list[Span] = []
        self.shared: list[_Shared] = []
        before: dict[int, _Shared] = {}  # by place in the chain, what the part before attends to
        at = 0
        for part in parts:
            stop = at + len(part.tokens)
            self.spans.append(Span(part.past.tail, at, stop))
            here: dict[int, _Shared] = {}
            for place, segment in enumerate(s for s in part.past.segments if s.tokens):
                last = before.get(place)
                start = last.start if last is not None and last.segment is segment else at
                here[place] = _Shared(segment, start, stop)
                if start != at:
                    self.shared.remove(last)  # type: ignore[arg-type]  # not None: start is its start
                self.shared.append(here[place])
            before, at = here, stop
        self._rows = at
        self._sizes = [span.stop - span.start for span in self.spans]

    def advance(self) -> None:
        """Make the rows part of their tails, once every layer has written them and nothing can fail any more."""
        for span in self.spans:
            span.tail.advance(span.stop - span.start)

    def attend(self, layer: int, query: Tensor, kv: Tensor, scale: float) -> Tensor:
        """Write the rows' keys and values to their tails, and attend: query [rows, heads, d], kv [rows, 2, kv_heads, d], rotated, to
        [rows, heads, d]."""
        grouped = query.view(len(query), kv.shape[2], -1, query.shape[2])  # [rows, kv_heads, group, d]
        new = torch.split(kv.permute(1, 2, 0, 3), self._sizes, 2)  # [2, kv_heads, own rows, d]
        own = zip(self.spans, torch.split(grouped, self._sizes), new, strict=True)
        parts = [span.attend(layer, q, rows, scale) for span, q, rows in own]
        out, lse = parts[0] if len(parts) == 1 else (torch.cat(each) for each in zip(*parts, strict=True))
        for shared in self.shared:
            keys, values = shared.segment.layers[layer]
            if shared.stop - shared.start == self._rows:
                out, lse = _merge((out, lse), _attend(grouped, keys, values, scale))
            else:
                rows = slice(shared.start, shared.stop)
                out[rows], lse[rows] = _merge((out[rows], lse[rows]), _attend(grouped[rows], keys, values, scale))
        return out.reshape(query.shape)


class Span:
    """Rows [start, stop) of a step, which one tail gets. Views of the tail are cut once per step and not once per layer."""

    def __init__(self, tail: KVTail, start: int, stop: int) -> None:
        self.tail, self.start, self.stop = tail, start, stop
        self._single = stop - start == 1
        self._places = tail.place(stop - start)
        self._past = tail.layers(tail.length + self._single)

    def attend(self, layer: int, query: Tensor, new: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Write the new keys and values [2, kv_heads, rows, d], and attend to the tail and to each other; as `_attend`."""
        self._places[layer].copy_(new)
        keys, values = self._past[layer]
        if self._single:  # its own place is part of the past already
            return _attend(query, keys, values, scale)
        own = _attend_causal(query, new, scale)
        return _merge(own, _attend(query, keys, values, scale)) if self.tail.length else own


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Every row of query [rows, kv_heads, group, d] over all keys [1, kv_heads, tokens, d]: output of query's shape, and log-sum-exp
    fp32 [rows, kv_heads, group]."""
    rows, kv_heads, group, dim = query.shape
    if rows == 1:  # the batch of one that the kernel wants
        return flash(query, keys, values, scale, causal=False)
    packed = query.transpose(0, 1).reshape(1, kv_heads, rows * group, dim)
    out, lse = flash(packed, keys, values, scale, causal=False)
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
