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
        self._lay_out(group, heads, [span.tail.first(span.seen) for span in group.spans])
        self._places = [span.tail.place(span.rows) for span in group.spans]
        self._sizes = [span.rows for span in group.spans]
        packed = self._query.shape[2]
        self._later = [_later(span, tail, packed) for span, tail in zip(group.spans, self._tails, strict=True) if span.rows > 1]

    def _lay_out(self, group: Group, heads: int, tails: Sequence[KVSegment]) -> None:
        """Make the buffers, and their views: `tails` are as much of each span's tail as its rows get columns for."""
        shape = group.spans[0].tail.shape
        rows, packed, own = group.stop - group.start, heads // shape.kv_heads, max(tail.tokens for tail in tails)
        self._scores = torch.full((shape.kv_heads, rows * packed, own + group.chain), -torch.inf, device=shape.device)
        self._weights = torch.empty_like(self._scores)
        self._query = torch.empty((shape.kv_heads, rows, packed, shape.head_dim), device=shape.device)
        self._out = torch.empty_like(self._query)

        def block(of: Span | Shared, kv: KVSegment, column: int) -> _Block:
            of_rows = slice((of.start - group.start) * packed, (of.stop - group.start) * packed)
            columns = slice(column, column + kv.tokens)
            query, out = self._query.flatten(1, 2)[:, of_rows], self._out.flatten(1, 2)[:, of_rows]
            return _Block(kv.keys, kv.values, query, self._scores[:, of_rows, columns], self._weights[:, of_rows, columns], out)

        self._tails = [block(span, tail, 0) for span, tail in zip(group.spans, tails, strict=True)]
        self._segments = [block(shared, shared.segment, own + shared.before) for shared in group.shared]

    @staticmethod
    def bytes(group: Group, heads: int, own: int | None = None) -> int:
        """What its buffers take, all but the smallest. own: columns of the rows' own tails, if not as many as they see."""
        columns = max(span.seen for span in group.spans) if own is None else own
        return 2 * 4 * heads * (group.stop - group.start) * (columns + group.chain)

    def attend(self, layer: int, query: Tensor, kv: Tensor, scale: float) -> Tensor:
        """As StepBatch.attend, of the group's rows."""
        self._write(layer, kv.permute(1, 2, 0, 3))
        kv_heads, rows, packed, dim = self._query.shape
        self._query.copy_(query.view(rows, kv_heads, packed, dim).transpose(0, 1)).mul_(scale)
        for block in (*self._tails, *self._segments):
            torch.bmm(block.query, block.keys[layer].float(), out=block.scores)
        self._hide()
        torch.softmax(self._scores, -1, out=self._weights)
        for block in self._tails:  # every row has a tail, so this fills all of `out`
            torch.bmm(block.weights, block.values[layer].float(), out=block.out)
        for block in self._segments:
            block.out.baddbmm_(block.weights, block.values[layer].float())
        return self._out.transpose(0, 1).reshape(query.shape).to(query.dtype)

    def _write(self, layer: int, new: Tensor) -> None:
        """Put the keys and values [2, kv_heads, rows, d] of the group's rows in their tails."""
        for place, own in zip(self._places, new.split_with_sizes(self._sizes, 2), strict=True):
            place.write(layer, own)

    def _hide(self) -> None:
        """Own scores that a row does not see become minus infinity."""
        for scores, unseen in self._later:
            scores.masked_fill_(unseen, -torch.inf)


class StaticScoreAttention(ScoreAttention):
    """The same of a row from each turn, in static form: kernels and addresses are those of any other step of these turns, since how long
    a tail is stands in device memory. So a CUDA graph can hold it (graphs.py).

    columns: how many of a tail's tokens have scores, the new one included; lengths: int64 [rows], of each tail before the step, less than
    `columns`. What lies behind a tail's end counts nothing, but has to be finite.
    """

    def __init__(self, group: Group, heads: int, columns: int, lengths: Tensor) -> None:
        tails = [span.tail.first(columns) for span in group.spans]  # or as much as there is
        self._lay_out(group, heads, tails)
        self._caches = [tail.kv.unbind(0) for tail in tails]
        self._ends = torch.split(lengths, 1)
        own, (kv_heads, rows, packed, _) = max(tail.tokens for tail in tails), self._query.shape
        self._own = self._scores[:, :, :own].view(kv_heads, rows, packed, own)
        self._unseen = (torch.arange(own, device=lengths.device) > lengths[:, None])[:, None]  # [rows, 1, own]

    def _write(self, layer: int, new: Tensor) -> None:
        for cache, end, own in zip(self._caches, self._ends, torch.split(new, 1, 2), strict=True):
            cache[layer].index_copy_(2, end, own)

    def _hide(self) -> None:
        self._own.masked_fill_(self._unseen, -torch.inf)


def _later(span: Span, block: _Block, packed: int) -> tuple[Tensor, Tensor]:
    """The scores of a span's rows over each other, and which of them are of tokens that come later."""
    unseen = torch.ones(span.rows, span.rows, dtype=torch.bool, device=block.scores.device).triu(1)
    return block.scores[:, :, span.tail.length :], unseen.repeat_interleave(packed, 0)
