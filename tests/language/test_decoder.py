"""The lean decoder against transformers' own modules: cold, over segments and tails, and many turns in one step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError
from glyph_rt.language import KVSegment, KVTail, LanguageModel, Past
from tests.language.parts import SHAPES, VOCABULARY, Sequence, Shape, Stock, opened, prefilled, run, save_random


@pytest.fixture(scope="module", params=[*SHAPES, *(replace(shape, native=False) for shape in SHAPES[::2])], ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, Stock]:
    """Steps of few rows by the native decoder, or by torch as all others are."""
    path = save_random(request.param, tmp_path_factory.mktemp("decoder"))
    model = opened(path)
    if not request.param.native:
        model.native = None
    return model, Stock(path)


def random_sequence(model: LanguageModel, tokens: int, seed: int) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    return Sequence(model, torch.randint(0, VOCABULARY, (tokens,), generator=generator).tolist(), generator)


def test_a_cold_run_has_transformers_logits(pair: tuple[LanguageModel, Stock]) -> None:
    model, stock = pair
    sequence = random_sequence(model, 70, 1)
    (found,) = run(model, [sequence.rows(Past((), KVTail(model.kv_shape, 70)), 0, 70)])
    torch.testing.assert_close(found, stock.logits(sequence.embeddings, sequence.positions), atol=1e-4, rtol=0)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_ragged_turns_over_shared_segments_have_transformers_logits(pair: tuple[LanguageModel, Stock], data: st.DataObject) -> None:
    """Documents of some segments, turns on each with tails of their own, any number of rows in the step: each as if alone."""
    model, stock = pair
    parts, expected = [], []
    for document in range(data.draw(st.integers(1, 2), "documents")):
        ends = torch.tensor(data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=3), "segments")).cumsum(0).tolist()
        shared = random_sequence(model, ends[-1] + 60, 100 * document + ends[-1])
        segments: tuple[KVSegment, ...] = ()
        for start, stop in zip([0, *ends], ends, strict=False):
            empty = stop == start
            segments += (KVSegment(torch.zeros(empty_shape(model))) if empty else prefilled(model, shared, segments, start, stop),)
        for turn in range(data.draw(st.integers(1, 3), "turns")):
            before = data.draw(st.integers(0, 20), "tail")
            rows = data.draw(st.sampled_from([1, 1, 1, 2, 7, 40]), "rows")
            own = random_sequence(model, before + rows, 1000 * document + turn)
            sequence = Sequence.__new__(Sequence)
            sequence.tokens = shared.tokens[: ends[-1]] + own.tokens
            after = shared.positions[:, max(0, ends[-1] - 1) : max(1, ends[-1])]
            sequence.positions = torch.cat([shared.positions[:, : ends[-1]], own.positions + after], 1)
            sequence.embeddings = model.embed(sequence.tokens)
            past = Past(segments, KVTail(model.kv_shape, before + rows))
            if before:
                run(model, [sequence.rows(past, ends[-1], ends[-1] + before)])
            parts.append(sequence.rows(past, ends[-1] + before, ends[-1] + before + rows))
            expected.append(stock.logits(sequence.embeddings, sequence.positions)[ends[-1] + before :])
    for found, wanted in zip(run(model, parts), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def empty_shape(model: LanguageModel) -> tuple[int, int, int, int, int]:
    """Of an empty segment."""
    shape = model.kv_shape
    return shape.layers, 2, shape.kv_heads, 0, shape.head_dim


def test_in_half_precision_it_is_as_near_to_the_truth_as_transformers_is(tmp_path: Path) -> None:
    path = save_random(Shape(4, 2), tmp_path, torch.bfloat16)
    model, stock, truth = opened(path, torch.bfloat16), Stock(path, torch.bfloat16), Stock(path)
    sequence = random_sequence(model, 60, 3)
    segment = prefilled(model, sequence, (), 0, 50)
    found = torch.cat([*run(model, [sequence.rows(Past((segment,), KVTail(model.kv_shape, 10)), 50, 60)])])
    wanted = truth.logits(sequence.embeddings, sequence.positions)[50:]
    theirs = stock.logits(sequence.embeddings, sequence.positions)[50:]
    assert (found - wanted).norm() < 1.5 * (theirs - wanted).norm()


def test_a_repeated_step_is_bit_identical(pair: tuple[LanguageModel, Stock]) -> None:
    model, _ = pair
    sequence = random_sequence(model, 40, 2)
    segment = prefilled(model, sequence, (), 0, 30)
    found = [run(model, [sequence.rows(Past((segment,), KVTail(model.kv_shape, 10)), 30, 40)])[0] for _ in range(3)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_pass_that_was_not_advanced_over_may_be_run_again(pair: tuple[LanguageModel, Stock]) -> None:
    model, stock = pair
    sequence, other = random_sequence(model, 12, 4), random_sequence(model, 12, 5)
    past = Past((), KVTail(model.kv_shape, 12))
    from glyph_rt.language.attention import StepBatch

    model.forward(other.embeddings, other.positions, StepBatch([other.rows(past, 0, 12)], model.heads))
    (found,) = run(model, [sequence.rows(past, 0, 12)])
    torch.testing.assert_close(found, stock.logits(sequence.embeddings, sequence.positions), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "gelu"), ("rope_type", "yarn")])
def test_what_the_decoder_does_not_compute_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = save_random(Shape(4, 2), tmp_path)
    config = json.loads((path / "config.json").read_text())
    text = config["text_config"]
    if key == "rope_type":
        text["rope_parameters"] |= {"rope_type": value, "factor": 2.0, "original_max_position_embeddings": 2048}
    else:
        text[key] = value
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="glyph-rt runs silu and default"):
        LanguageModel(Checkpoint.open(path))
