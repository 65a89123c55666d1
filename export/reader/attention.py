"""Attention of the trainable network, written out: on a CPU faster than torch's flash attention, whose backward pass is slow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Queries at a time. What is computed of a strip stays in a core's cache, and the keys behind its last query are not looked at: forwards
# and backwards over 1,064 tokens took 29 ms in strips of 266, 35 ms in two and 92 ms in one (2 documents, 3 heads of 64, one EPYC core).
STRIP = 256


def later(tokens: int, device: torch.device) -> Tensor:
    """[tokens, tokens] fp32, to be added to scores: -inf where the key stands behind the query, else 0.

    Handed in as numbers, since a mask that compiled code makes of indices takes as long as all else it does.
    """
    return torch.full((tokens, tokens), -math.inf, device=device).triu(1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the last `rows` tokens, q [batch, heads, rows, dim], fetch: [batch, heads, rows, dim].

    k, v: [batch, kv_heads, tokens, dim], where kv_heads divides heads; the queries of one kv head are rows of one product. mask: None: of
    all tokens; or `later(tokens)`: of those up to themselves.
    """
    batch, heads, rows, dim = q.shape
    kv_heads, tokens = k.shape[1:3]
    before = tokens - rows
    fetched = []
    for start in range(0, rows, STRIP):
        end = min(start + STRIP, rows)
        seen = tokens if mask is None else before + end
        strip = q[:, :, start:end].reshape(batch, kv_heads, -1, dim)
        scores = (strip @ k[:, :, :seen].transpose(2, 3)).view(batch, heads, end - start, seen).float() * dim**-0.5
        if mask is not None:
            scores = scores + mask[before + start : before + end, :seen]
        shares = scores.softmax(-1).to(v.dtype).view(batch, kv_heads, -1, seen)
        fetched.append((shares @ v[:, :, :seen]).view(batch, heads, end - start, dim))
    return torch.cat(fetched, 2)
