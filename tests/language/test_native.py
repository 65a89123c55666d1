"""The native decode step: what torch computes, to the bit the same whatever else is in the step."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt import Runtime, Sampling
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.language import KVSegment, KVShape, KVTail, LanguageModel, Past, Quant, Turn, native
from glyph_rt.language._step import KV
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.native import MOST_ROWS, NativeDecoder
from glyph_rt.language.rows import Rows
from glyph_rt.memory.limits import KVDtype
from tests.conftest import TEXT
from tests.language.parts import VOCABULARY, Shape, opened, run, save_random

FLOATS, HALVES = torch.float32, torch.bfloat16
ODD = Shape(3, 1, 22, rotary=0.55, mlp=37)
CHECKPOINTS = [
    (Shape(3, 1, 64), HALVES), (Shape(4, 2), FLOATS), (Shape(4, 4, 32), HALVES), (Shape(16, 1, 8), HALVES),
    (Shape(6, 3, 24, rotary=1.0), FLOATS), (ODD, FLOATS), (ODD, HALVES), (Shape(5, 5, 6, rotary=1.0, mlp=1), FLOATS),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def any_width() -> Iterator[None]:
    """Heads of any width are right, whichever are worth it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WIDEST", 1)
        yield


@pytest.fixture(scope="module", params=CHECKPOINTS, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """In fp32, of a checkpoint in fp32, or in bfloat16, whose weights are kept in halves."""
    shape, dtype = request.param
    return opened(save_random(shape, tmp_path_factory.mktemp("native"), dtype))


@st.composite
def steps(draw: st.DrawFn) -> dict[str, Any]:
    """Turns by (segments of the common chain that they see, one of their own behind it, tokens in their tail, rows)."""
    turn = st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 70), st.sampled_from([1, 1, 1, 2, 3, 5, 9, MOST_ROWS]))
    return {
        "segments": draw(st.tuples(*[st.sampled_from([0, 1, 7, 64, 130])] * 3)),
        "turns": draw(st.lists(turn, min_size=1, max_size=6)),
        "seed": draw(st.integers(0, 10**6)),
    }


def parts_of(model: LanguageModel, segments: tuple[int, ...], turns: list[tuple[int, bool, int, int]], seed: int) -> list[Rows]:
    """Fresh, with the same numbers for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def segment(tokens: int) -> KVSegment:
        shape = model.kv_shape
        return KVSegment(torch.randn(shape.layers, 2, shape.kv_heads, tokens, shape.head_dim, generator=generator))

    chain = [segment(tokens) for tokens in segments]
    parts = []
    for seen, own, before, rows in turns:
        tail = KVTail(model.kv_shape, before + rows + 1)
        tail.first(before).kv.copy_(segment(before).kv)
        tail.advance(before)
        tokens = torch.randint(0, VOCABULARY, (rows,), generator=generator).tolist()
        positions = torch.randint(0, 500, (3, rows), generator=generator)
        parts.append(Rows(Past((*chain[:seen], *([segment(11)] if own else [])), tail), tokens, positions, wanted=rows))
    return parts


def by_torch(model: LanguageModel, parts: list[Rows]) -> list[torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "native", None)
        return run(model, parts)


def written(parts: list[Rows]) -> list[torch.Tensor]:
    return [part.past.tail.first(part.past.tail.length).kv for part in parts]


@settings(max_examples=6, deadline=None)
@given(step=steps())
def test_a_step_is_what_torch_makes_of_it(model: LanguageModel, step: dict[str, Any]) -> None:
    ours, reference = parts_of(model, **step), parts_of(model, **step)
    found, expected = run(model, ours), by_torch(model, reference)
    for logits, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-5)
    for kv, kept in zip(written(ours), written(reference), strict=True):
        torch.testing.assert_close(kv, kept, atol=1e-5, rtol=1e-5)


@settings(max_examples=6, deadline=None)
@given(step=steps(), page=st.booleans())
def test_a_turn_has_the_same_bits_alone_and_beside_others(model: LanguageModel, step: dict[str, Any], page: bool) -> None:
    """Also beside a page, whose many rows torch runs; and its rows one by one have the bits that they have as a draft."""
    together = parts_of(model, **step)
    beside = parts_of(model, (), [(0, False, 0, MOST_ROWS + 1)], 1) if page else []
    found = run(model, [*beside, *together])[len(beside) :]
    alone = parts_of(model, **step)
    for turn, logits in zip(alone, found, strict=True):
        assert isinstance(turn.positions, torch.Tensor)
        one = [run(model, [Rows(turn.past, [token], turn.positions[:, [n]], wanted=1)])[0] for n, token in enumerate(turn.tokens)]
        assert torch.equal(torch.cat(one), logits)
    assert all(torch.equal(a, b) for a, b in zip(written(alone), written(together), strict=True))


def test_many_threads_compute_the_same_bits(model: LanguageModel) -> None:
    step: dict[str, Any] = {"segments": (40, 64, 9), "turns": [(3, False, 5, 1), (3, True, 0, 4), (1, False, 9, 2)], "seed": 3}
    found: list[list[torch.Tensor]] = []
    threads = [threading.Thread(target=lambda: found.extend(run(model, parts_of(model, **step)) for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 20
    assert all(torch.equal(a, b) for each in found for a, b in zip(each, found[0], strict=True))


def test_halves_are_the_weights_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_random(ODD, tmp_path, HALVES)
    halves = opened(path)
    monkeypatch.setattr(native, "_packed", lambda weight: weight.numpy())
    whole = opened(path)
    step: dict[str, Any] = {"segments": (40, 64, 9), "turns": [(3, False, 5, 1), (3, True, 0, 7)], "seed": 3}
    for found, expected in zip(run(halves, parts_of(halves, **step)), run(whole, parts_of(whole, **step)), strict=True):
        assert torch.equal(found, expected)


@pytest.fixture
def drawn_from(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[torch.Tensor]]]:
    """The logits that each turn was given, by the turn's id."""
    logits: dict[int, list[torch.Tensor]] = {}
    accept = Turn.accept

    def noted(turn: Turn, rows: Rows, given: torch.Tensor) -> None:
        logits.setdefault(id(turn), []).append(given.clone())
        accept(turn, rows, given)

    monkeypatch.setattr(Turn, "accept", noted)
    yield logits


def test_answers_have_the_same_logits_to_the_bit_whatever_is_answered_beside_them(
    runtime: Runtime, drawn_from: dict[int, list[torch.Tensor]]
) -> None:
    """Short questions, so that no row of them is torch's; asked one by one, all at once, and while a document is read."""
    questions = [f"Q{n}?" for n in range(5)]
    options = [Sampling(max_new_tokens=5 + 7 * n, draft=n % 2 == 0) for n in range(5)]
    with runtime.read(TEXT) as document:
        assert all(len(runtime.template.question(question, 0).tokens) <= MOST_ROWS for question in questions)

        def logits(turns: list[Turn]) -> list[torch.Tensor]:
            return [torch.cat(drawn_from.pop(id(turn))) for turn in turns]

        expected = []
        for question, sampling in zip(questions, options, strict=True):
            answer = document.ask(question, sampling)
            assert answer.text is not None
            expected += logits([answer._turn])
        answers = [document.ask(*each) for each in zip(questions, options, strict=True)]
        runtime.read(TEXT + "and more of it\n" * 20).close()
        assert all(answer.text is not None for answer in answers)
        assert all(torch.equal(a, b) for a, b in zip(logits([answer._turn for answer in answers]), expected, strict=True))


def test_only_small_plain_decoders_have_one(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LanguageModel(checkpoint).native is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WIDEST", 48)
        assert LanguageModel(checkpoint).native is None, "heads that do not fill vectors"
    assert LanguageModel(checkpoint, quant=Quant.INT8).native is None
    assert LanguageModel(checkpoint, dtype=torch.bfloat16).native is None
    monkeypatch.setattr(native, "LAYER_BYTES", 1000)
    assert LanguageModel(checkpoint).native is None


@pytest.mark.parametrize(
    ("segment", "tail", "rows", "taken"),
    [
        (KVDtype.MODEL, KVDtype.MODEL, MOST_ROWS, True),
        (KVDtype.MODEL, KVDtype.MODEL, MOST_ROWS + 1, False),
        (KVDtype.INT8, KVDtype.MODEL, 1, False),
        (KVDtype.MODEL, KVDtype.INT8, 1, False),
    ],
)
def test_packed_kv_and_many_rows_are_torchs(segment: KVDtype, tail: KVDtype, rows: int, taken: bool) -> None:
    shape = KVShape(1, 1, 4, torch.float32)
    past = Past((KVTail(replace(shape, kept=segment), 3).first(3),), KVTail(replace(shape, kept=tail), rows))
    assert NativeDecoder.takes(Rows(past, [0] * rows, range(rows))) is taken


def test_kv_is_gone_when_its_tail_is_closed(checkpoint: Checkpoint) -> None:
    model = LanguageModel(checkpoint)
    tail = KVTail(model.kv_shape, 4)
    run(model, [Rows(Past((), tail), [20], torch.zeros(3, 1, dtype=torch.int64), wanted=1)])
    memory = weakref.ref(tail.buffer.kv)
    assert isinstance(tail.buffer.native, KV) and memory() is not None
    tail.close()
    assert memory() is None


def test_what_does_not_fit_is_refused(checkpoint: Checkpoint) -> None:
    model = LanguageModel(checkpoint)
    assert model.native is not None
    shape, step = model.kv_shape, model.native._model
    kv, x, at = KVTail(shape, 4).buffer.native, np.zeros((2, 128), np.float32), np.zeros((3, 2), np.int64)
    fitting: tuple[Any, ...] = (x, at, [(kv, 0, 2)], [(kv, 0, 0, 1), (kv, 1, 1, 2)])
    step.forward(*fitting)
    for place, wrong, told in [
        (0, np.zeros((2, 127), np.float32), "x must be"),
        (1, np.zeros((3, 3), np.int64), "positions"),
        (2, [(kv, 0, 3)], "rows of the step"),
        (2, [(kv, 1, 1)], "rows of the step"),
        (3, [(kv, 0, 0, 1)], "cover the rows"),
        (3, [(kv, 0, 1, 2), (kv, 0, 0, 1)], "cover the rows"),
        (3, [(kv, 3, 0, 2)], "no room"),
        (3, [(kv, -1, 0, 2)], "cover the rows"),
        (3, [(KV(np.zeros((9, 2, 1, 4, 4), np.float32)), 0, 0, 2)], "another model"),
    ]:
        with pytest.raises(ValueError, match=told):
            step.forward(*fitting[:place], wrong, *fitting[place + 1 :])
    with pytest.raises(ValueError, match="hidden must be"):
        step.logits(x, np.zeros((1, 7), np.float32))
    with pytest.raises(TypeError):
        step.forward(x.astype(np.float64), *fitting[1:])
    with pytest.raises(ValueError, match="behind each other"):
        KV(np.zeros((1, 2, 1, 8, 4), np.float32)[:, :, :, ::2])
    with pytest.raises(ValueError, match="keys and values"):
        KV(np.zeros((1, 3, 1, 8, 4), np.float32))
    assert StepBatch([], model.heads).spans == []
