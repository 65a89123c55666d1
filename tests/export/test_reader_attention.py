"""The attention that the trainable network writes out, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from glyph_rt.export.reader import attention as written
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor


@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    tokens=st.integers(1, 40),
    last=st.integers(1, 40),
    strip=st.integers(1, 48),
    causal=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_strips_fetch_what_torchs_attention_fetches(
    batch: int, kv_heads: int, group: int, tokens: int, last: int, strip: int, causal: bool
) -> None:
    """Forwards and backwards, for the last tokens of a sequence, whatever the strips are."""
    last = min(last, tokens)
    torch.manual_seed(tokens)
    shapes = (kv_heads * group, last), (kv_heads, tokens), (kv_heads, tokens)
    inputs = [torch.randn(batch, heads, rows, 8, requires_grad=True) for heads, rows in shapes]
    mask = written.later(tokens, torch.device("cpu")) if causal else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "STRIP", strip)
        found = written.attention(*inputs, mask)
    wanted = F.scaled_dot_product_attention(*inputs, attn_mask=None if mask is None else mask[-last:], enable_gqa=True)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    upstream = torch.randn_like(wanted)
    for ours, theirs in zip(_gradients(found, inputs, upstream), _gradients(wanted, inputs, upstream), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def _gradients(out: Tensor, inputs: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, inputs, upstream)
