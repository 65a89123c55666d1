"""Attention merged over segments against attention over everything at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import ClosedError
from glyph_rt.language import KVSegment, KVShape, KVTail, Past, attention
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.flash import FlashAttention, flash
from glyph_rt.language.rows import Rows, grouped
from glyph_rt.language.scores import ScoreAttention


def full_attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of the last rows over all keys, in float64: query [new, h, d], keys [kv, tokens, d]."""
    new, heads, _ = query.shape
    tokens = keys.shape[1]
    keys, values = (t.double().repeat_interleave(heads // len(t), 0) for t in (keys, values))
    scores = query.double().transpose(0, 1) @ keys.transpose(1, 2) * scale
    allowed = torch.ones(new, tokens, dtype=torch.bool).tril(tokens - new)
    return (torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1) @ values).transpose(0, 1)


@settings(max_examples=80, deadline=None)
@given(
    segments=st.lists(st.sampled_from([0, 1, 7, 40, 300]), max_size=3),
    turns=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=4),
    kv_heads=st.sampled_from([1, 2, 3]),
    group=st.sampled_from([1, 2, 16]),
    sharpness=st.sampled_from([0.1, 1.0, 30.0]),
    few=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_segments_equal_full_attention(
    segments: list[int], turns: list[tuple[int, int]], kv_heads: int, group: int, sharpness: float, few: bool, seed: int
) -> None:
    """Several turns on one chain of segments, every other on one segment more of its own; the first also alone on no segment, in their
    midst. By plain products (`few`) and by flash attention."""
    torch.manual_seed(seed)
    dim, heads, layers, layer = 16, kv_heads * group, 2, 1
    shared = torch.randn(layers, 2, kv_heads, sum(segments), dim)
    chain = tuple(KVSegment(part) for part in shared.split(segments, 3)) if segments else ()
    kept = [KVSegment(torch.randn(layers, 2, kv_heads, 5, dim)) for _ in turns[1::2]]  # of earlier turns
    chains = [chain if n % 2 == 0 else (*chain, kept[n // 2]) for n in range(len(turns))]
    chains.insert(len(turns) // 2, ())
    turns.insert(len(turns) // 2, turns[0])
    parts, queries, news, expected = [], [], [], []
    for past_segments, (before, new) in zip(chains, turns, strict=True):
        own = torch.randn(2, kv_heads, before + new, dim)
        query = torch.randn(new, heads, dim) * sharpness
        tail = KVTail(KVShape(layers, kv_heads, dim, torch.float32), before + new)
        tail.place(before).write(layer, own[:, :, :before])
        tail.advance(before)
        parts.append(Rows(Past(past_segments, tail), [0] * new, range(new)))
        queries.append(query)
        news.append(own[:, :, before:].permute(2, 0, 1, 3))
        keys, values = torch.cat([*(segment.kv[layer] for segment in past_segments), own], 2)
        expected.append(full_attention(query, keys, values, dim**-0.5))
    sides = (len(turns) > 1) + (len(turns) > 2)
    expected_reads = max(1, sides) * sum(s > 0 for s in segments) + len(kept)
    assert sum(len(g.shared) for g in grouped(parts)) == expected_reads, "neighbours read a segment together"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SCORES_BYTES", 2**40 if few else 0)
        batch = StepBatch(parts, heads)
    found = batch.attend(layer, torch.cat(queries), torch.cat(news), dim**-0.5)
    torch.testing.assert_close(found.double(), torch.cat(expected), atol=2e-5, rtol=1e-4)
    for part, new in zip(parts, news, strict=True):
        assert torch.equal(part.past.tail.first(part.past.tail.capacity).values[layer][:, -len(new) :], new[:, 1].transpose(0, 1))


def test_the_scores_of_a_step_keep_their_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three documents, room for the scores of two: the third takes the other way, and all are right."""
    torch.manual_seed(0)
    heads, dim, shape = 4, 16, KVShape(1, 2, 16, torch.float32)
    segments = [KVSegment(torch.randn(1, 2, 2, 50, dim)) for _ in range(3)]
    parts = [Rows(Past((segment,), KVTail(shape, 1)), [0], range(1)) for segment in segments]
    one = ScoreAttention.bytes(next(grouped(parts)), heads)
    assert one == 2 * 4 * heads * 51
    monkeypatch.setattr(attention, "SCORES_BYTES", 2 * one)
    batch = StepBatch(parts, heads)
    assert [type(each) for each in batch._attentions] == [ScoreAttention, ScoreAttention, FlashAttention]
    query, new = torch.randn(3, heads, dim), torch.randn(3, 2, 2, dim)
    found = batch.attend(0, query, new, 0.25)
    for n, segment in enumerate(segments):
        keys, values = torch.cat([segment.kv[0], new[n, :, :, None]], 2)
        torch.testing.assert_close(found[n : n + 1].double(), full_attention(query[n : n + 1], keys, values, 0.25), atol=2e-5, rtol=1e-4)


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
        tail.place(4)
    tail.close()
    with pytest.raises(ClosedError):
        tail.first(1)


def test_a_tail_forgets_and_writes_again() -> None:
    tail = KVTail(KVShape(layers=1, kv_heads=1, head_dim=2, dtype=torch.float32), 4)
    for value in range(3):
        tail.place(1).write(0, torch.full((2, 1, 1, 2), value))
        tail.advance(1)
    tail.truncate(1)
    tail.place(2).write(0, torch.full((2, 1, 2, 2), 9))
    tail.advance(2)
    assert tail.first(tail.length).values[0][0, :, 0].tolist() == [0.0, 9.0, 9.0]
    with pytest.raises(ValueError, match="cannot truncate 3 tokens to 4"):
        tail.truncate(4)


def test_a_beginning_shares_the_memory_and_a_copy_does_not() -> None:
    segment = KVSegment(torch.randn(2, 2, 1, 5, 4))
    first, copy = segment.first(3), segment.first(3).copied_to("cpu")
    assert first.kv.data_ptr() == segment.kv.data_ptr() != copy.kv.data_ptr()
    assert torch.equal(copy.kv, segment.kv[:, :, :, :3]) and copy.kv.is_contiguous()


def test_kv_bytes_of_glm_4_1v() -> None:
    assert KVShape(layers=40, kv_heads=2, head_dim=128, dtype=torch.bfloat16).bytes_per_token == 40 * 1024
