"""Quantised weights: near the weights they stand for, smaller, and good enough for the reader to read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from glyph_rt import Runtime
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError, OptionError
from glyph_rt.language import KVTail, LanguageModel, Past, Quant
from glyph_rt.language.quantise import GROUP, PackedLinear, quantise, quantised_bytes
from glyph_rt.language.rows import Rows
from tests.conftest import TEXT
from tests.language.parts import run


def grid_step(weight: torch.Tensor, quant: Quant) -> torch.Tensor:
    """The distance between two values that a weight may take, for each weight."""
    if quant == Quant.INT8:
        return (weight.abs().amax(1, keepdim=True) / 127).expand_as(weight)
    groups = weight.view(len(weight), -1, GROUP)
    return ((groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15).expand_as(groups).reshape(weight.shape)


@pytest.mark.parametrize("quant", Quant)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 16, 17, 60]),
    inputs=st.integers(1, 6).map(lambda n: n * GROUP),
    outputs=st.integers(1, 8).map(lambda n: n * 16),
    spread=st.sampled_from([1e-3, 1.0, 30.0]),
    shift=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 999),
)
def test_products_are_those_of_weights_on_a_grid(
    quant: Quant, rows: int, inputs: int, outputs: int, spread: float, shift: float, seed: int
) -> None:
    """Each weight is off by half a step of its grid at most, and bf16's rounding; so is what a unit vector picks out of them."""
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs).requires_grad_(False)
    linear.weight.mul_(spread * inputs**0.5).add_(shift * spread)
    packed = PackedLinear(linear, quant)
    picked = packed(torch.eye(inputs)).T - linear.bias[:, None]
    bound = 0.55 * grid_step(linear.weight, quant) + 0.012 * linear.weight.abs().amax() + 0.01 * linear.bias.abs().amax()
    assert ((picked - linear.weight).abs() <= bound).all()
    x = torch.randn(rows, inputs)
    expected = F.linear(x, picked, linear.bias)
    torch.testing.assert_close(packed(x), expected, atol=float(0.03 * expected.abs().max()), rtol=0)
    assert packed(x[None]).shape == (1, rows, outputs)


@pytest.mark.parametrize("quant", Quant)
def test_a_weight_of_zeros_stays_zero(quant: Quant) -> None:
    linear = nn.Linear(GROUP, 16, bias=False).requires_grad_(False)
    linear.weight.zero_()
    assert not PackedLinear(linear, quant)(torch.randn(3, GROUP)).any()


@pytest.mark.parametrize("quant", Quant)
def test_bytes_are_what_was_said(quant: Quant) -> None:
    module = nn.Sequential(nn.Linear(64, 48, bias=False), nn.Sequential(nn.LayerNorm(48), nn.Linear(48 // 16 * 32, 32, bias=False)))
    shapes = [(48, 64), (32, 96)]
    quantise(module, quant)
    assert sum(b.nbytes for b in module.buffers()) == sum(quantised_bytes(shape, quant) for shape in shapes)
    assert not any(isinstance(child, nn.Linear) for child in module.modules())


def test_a_shape_that_does_not_pack_is_refused() -> None:
    with pytest.raises(ModelError, match="does not pack into int4; use --quant int8"):
        quantise(nn.Sequential(nn.Linear(20, 20)), Quant.INT4)
    with pytest.raises(OptionError, match="choose one of: int8, int4"):
        Quant.parse("int2")


@pytest.mark.parametrize(("quant", "cosine", "share"), [(Quant.INT8, 0.999, 0.30), (Quant.INT4, 0.95, 0.22)])
def test_a_quantised_decoder_is_near_and_small(checkpoint: Checkpoint, quant: Quant, cosine: float, share: float) -> None:
    plain, small = LanguageModel(checkpoint), LanguageModel(checkpoint, quant=quant)
    fixed = sum(t.numel() for n, t in checkpoint.tensors("") if n.startswith(("lm_head", "model.language_model")) and "layers" not in n)
    assert small.weight_bytes - 4 * fixed < share * (plain.weight_bytes - 4 * fixed)
    tokens = list(range(16, 80))
    positions = torch.arange(len(tokens)).expand(3, -1)
    found, expected = (run(model, [Rows(Past((), KVTail(model.kv_shape, len(tokens))), tokens, positions)])[0] for model in (small, plain))
    assert F.cosine_similarity(found, expected).mean() > cosine


@pytest.mark.parametrize("quant", Quant)
def test_the_reader_still_reads(quant: Quant) -> None:
    with Runtime.open(encoder="torch", quant=quant) as runtime, runtime.read(TEXT) as document:
        assert document.ask("What is the value of order number?").text == "QX-58213"
        assert runtime.plan().weights == runtime.model.weight_bytes
