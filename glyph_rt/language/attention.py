"""Attention of one step: rows of many turns over the segments they share and the tails they own.

Nothing of the past is copied or repeated: keys and values are read where they lie, and once for all neighbours in a step that share them.
Query heads that share a KV head are packed as rows of it; repeating K and V for every query head instead, as transformers does whenever
there is a mask, reads 16 times the memory on GLM-4.1V.

Few rows take plain matrix products with one softmax over everything a row sees (scores.py), which a decode step is fastest with; where
the scores would be too large to hold, attention is computed segment by segment and merged (flash.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from glyph_rt.language.flash import FlashAttention
from glyph_rt.language.rows import Group, Rows, Span, grouped
from glyph_rt.language.scores import ScoreAttention

Choose = Callable[[Sequence[Group], int], Iterable[ScoreAttention | FlashAttention]]  # an attention for each group of a step

SCORES_BYTES = 32 * 2**20  # of a step; beyond, scores leave the caches, and merged flash attention is as fast


class StepBatch:
    """The rows of one step, and how they attend. heads: of queries; choose: how each group does, if not as suits its size.

    Turns that stand on the same segments should be neighbours: neighbours read a segment together.
    """

    def __init__(self, parts: Sequence[Rows], heads: int, choose: Choose | None = None) -> None:
        self.parts, self.choose = parts, choose
        self.groups = list(grouped(parts))
        self.spans: list[Span] = [span for group in self.groups for span in group.spans]
        self._heads = heads

    def only(self, chosen: Sequence[int]) -> tuple[StepBatch, Tensor]:
        """The step of some of the parts alone, and which rows they are here, int64 [rows]."""
        rows = torch.cat([torch.arange(self.spans[n].start, self.spans[n].stop) for n in chosen])
        return StepBatch([self.parts[n] for n in chosen], self._heads), rows

    def advance(self) -> None:
        """Make the rows part of their tails, once every layer has written them and nothing can fail any more."""
        for span in self.spans:
            span.tail.advance(span.rows)

    def attend(self, layer: int, query: Tensor, kv: Tensor, scale: float) -> Tensor:
        """Write the rows' keys and values to their tails, and attend: query [rows, heads, d], kv [rows, 2, kv_heads, d], rotated, to
        [rows, heads, d], which the next layer's may overwrite."""
        if len(self._attentions) == 1:
            return self._attentions[0].attend(layer, query, kv, scale)
        sizes = [group.stop - group.start for group in self.groups]
        each = zip(self._attentions, query.split_with_sizes(sizes), kv.split_with_sizes(sizes), strict=True)
        return torch.cat([attention.attend(layer, own_query, own_kv, scale) for attention, own_query, own_kv in each])

    @cached_property
    def _attentions(self) -> list[ScoreAttention | FlashAttention]:
        return list((self.choose or _as_suits)(self.groups, self._heads))


def _as_suits(groups: Sequence[Group], heads: int) -> Iterator[ScoreAttention | FlashAttention]:
    """By scores as long as they fit, all groups' together: all are in memory until the step's last layer."""
    left = SCORES_BYTES
    for group in groups:
        size = ScoreAttention.bytes(group, heads)
        if size <= left:
            left -= size
            yield ScoreAttention(group, heads)
        else:
            yield FlashAttention(group)
