"""Attention by plain matrix products, with one softmax over all that a row sees.

For the rows of a decode step the CPU's flash kernel takes about twice as long (a row of 3 heads over 1,040 keys: 71 us against 38), before
anything is merged; and buffers and views are made here once per step, not once per layer. All is fp32, whatever the model's dtype.

One matrix of scores holds a row for each query head of each token, and these columns:

    own tail | first segment | second segment | ...

What a row does not see stays at minus infinity: columns behind its own tail's end, or behind the end of its chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glyph_rt.language.rows import Group, Shared, Span
from glyph_rt.language.segments import KVSegment


@dataclass(frozen=True)
class _Block:
    """Rows over keys that they all see; but for these, views of the buffers."""

    keys: Sequence[Tensor]  # of each layer, [kv_heads, d, n]
    values: Sequence[Tensor]  # of each layer, [kv_heads, n, d]
    query: Tensor  # [kv_heads, rows * group, d]
    scores: Tensor  # [kv_heads, rows * group, n]
    weights: Tensor  # the same, after the softmax
    out: Tensor  # as query


class ScoreAttention:
    """Attention of one group of a step."""

    def __init__(self, group: Group, heads: int) -> None:
        shape = group.spans[0].tail.shape
        rows, packed, own = group.stop - group.start, heads // shape.kv_heads, _own_columns(group)
        self._scores = torch.full((shape.kv_heads, rows * packed, own + group.chain), -torch.inf, device=shape.device)
        self._weights = torch.empty_like(self._scores)
        self._query = torch.empty((shape.kv_heads, rows, packed, shape.head_dim), device=shape.device)
        self._out = torch.empty_like(self._query)

        def block(of: Span | Shared, kv: KVSegment, column: int) -> _Block:
            of_rows = slice((of.start - group.start) * packed, (of.stop - group.start) * packed)
            columns = slice(column, column + kv.tokens)
            query, out = self._query.flatten(1, 2)[:, of_rows], self._out.flatten(1, 2)[:, of_rows]
            return _Block(kv.keys, kv.values, query, self._scores[:, of_rows, columns], self._weights[:, of_rows, columns], out)

        self._places = [span.tail.place(span.rows) for span in group.spans]
        self._sizes = [span.rows for span in group.spans]
        self._tails = [block(span, span.tail.first(span.seen), 0) for span in group.spans]
        self._segments = [block(shared, shared.segment, own + shared.before) for shared in group.shared]
        self._later = [_later(span, tail, packed) for span, tail in zip(group.spans, self._tails, strict=True) if span.rows > 1]

    @staticmethod
    def bytes(group: Group, heads: int) -> int:
        """What its buffers take, all but the smallest."""
        return 2 * 4 * heads * (group.stop - group.start) * (_own_columns(group) + group.chain)

    def attend(self, layer: int, query: Tensor, kv: Tensor, scale: float) -> Tensor:
        """As StepBatch.attend, of the group's rows."""
        for place, new in zip(self._places, kv.permute(1, 2, 0, 3).split_with_sizes(self._sizes, 2), strict=True):
            place.write(layer, new)
        kv_heads, rows, packed, dim = self._query.shape
        self._query.copy_(query.view(rows, kv_heads, packed, dim).transpose(0, 1)).mul_(scale)
        for block in (*self._tails, *self._segments):
            torch.bmm(block.query, block.keys[layer].float(), out=block.scores)
        for scores, unseen in self._later:
            scores.masked_fill_(unseen, -torch.inf)
        torch.softmax(self._scores, -1, out=self._weights)
        for block in self._tails:  # every row has a tail, so this fills all of `out`
            torch.bmm(block.weights, block.values[layer].float(), out=block.out)
        for block in self._segments:
            block.out.baddbmm_(block.weights, block.values[layer].float())
        return self._out.transpose(0, 1).reshape(query.shape).to(query.dtype)


def _own_columns(group: Group) -> int:
    return max(span.seen for span in group.spans)


def _later(span: Span, block: _Block, packed: int) -> tuple[Tensor, Tensor]:
    """The scores of a span's rows over each other, and which of them are of tokens that come later."""
    unseen = torch.ones(span.rows, span.rows, dtype=torch.bool, device=block.scores.device).triu(1)
    return block.scores[:, :, span.tail.length :], unseen.repeat_interleave(packed, 0)
