"""Attention merged over segments against attention over everything at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import ClosedError
from glyph_rt.language import KVSegment, KVShape, KVTail, Past
from glyph_rt.language.attention import flash, segment_attention


def full_attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of the last rows over all keys, in float64: query [h, new, d], keys [kv, tokens, d]."""
    heads, new, _ = query.shape
    tokens = keys.shape[1]
    keys, values = (t.double().repeat_interleave(heads // len(t), 0) for t in (keys, values))
    scores = query.double() @ keys.transpose(1, 2) * scale
    allowed = torch.ones(new, tokens, dtype=torch.bool).tril(tokens - new)
    return torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1) @ values


@settings(max_examples=80, deadline=None)
@given(
    segments=st.lists(st.integers(0, 40), max_size=3),
    tail=st.integers(0, 20),
    new=st.integers(1, 20),
    kv_heads=st.sampled_from([1, 2, 3]),
    group=st.sampled_from([1, 2, 16]),
    sharpness=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 10**6),
)
def test_segments_equal_full_attention(
    segments: list[int], tail: int, new: int, kv_heads: int, group: int, sharpness: float, seed: int
) -> None:
    torch.manual_seed(seed)
    dim, heads, layers = 16, kv_heads * group, 2
    total = sum(segments) + tail + new
    keys, values = (torch.randn(kv_heads, total, dim) for _ in range(2))
    query = torch.randn(heads, new, dim) * sharpness
    past_tail = KVTail(KVShape(layers, kv_heads, dim, torch.float32), tail + new)
    parts, at = [], 0
    for size in segments:
        span = slice(at, at + size)
        parts.append(KVSegment(keys[None, :, span].expand(layers, -1, -1, -1), values[None, :, span].expand(layers, -1, -1, -1), "d"))
        at += size
    past_tail.write(1, keys[:, at : at + tail], values[:, at : at + tail])
    past_tail.advance(tail)
    at += tail
    found, _ = segment_attention(
        SimpleNamespace(layer_idx=1),  # type: ignore[arg-type]
        query[None],
        keys[None, :, at:],
        values[None, :, at:],
        None,
        scaling=dim**-0.5,
        past=Past(tuple(parts), past_tail),
    )
    expected = full_attention(query, keys, values, dim**-0.5)
    torch.testing.assert_close(found[0].transpose(0, 1).double(), expected, atol=2e-5, rtol=1e-4)
    assert torch.equal(past_tail.read(1, tail + new)[0], keys[:, -(tail + new) :])


@pytest.mark.parametrize("causal", [False, True])
def test_the_portable_path_equals_the_cpu_kernel(causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 9, 16), torch.randn(2, 3, 9, 16), torch.randn(2, 3, 9, 16)
    out, lse = flash(q, k, v, 0.25, causal)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.25)
    scores = (q @ k.transpose(-1, -2)) * 0.25
    if causal:
        scores = scores.masked_fill(~torch.ones(9, 9, dtype=torch.bool).tril(), -torch.inf)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-6, rtol=1e-5)


def test_a_tail_keeps_its_bound_and_is_gone_when_closed() -> None:
    tail = KVTail(KVShape(1, 1, 4, torch.float32), 3)
    with pytest.raises(ValueError, match="4 tokens in a tail of 3"):
        tail.write(0, torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    tail.close()
    with pytest.raises(ClosedError):
        tail.read(0, 1)


def test_kv_bytes_of_glm_4_1v() -> None:
    assert KVShape(layers=40, kv_heads=2, head_dim=128, dtype=torch.bfloat16).bytes_per_token == 40 * 1024
