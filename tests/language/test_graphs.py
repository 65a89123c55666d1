"""Captured steps without a GPU: the static form against the ordinary one, and which steps are captured, used again and dropped."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt import Runtime, Sampling
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ClosedError, OptionError
from glyph_rt.language import KVSegment, KVTail, LanguageModel, Past, StepLoop, graphs
from glyph_rt.language.graphs import CudaRecorder, Recorder, StepGraphs, Work, eagerly
from glyph_rt.language.rows import Rows
from glyph_rt.memory.limits import KVDtype, Limits
from tests.conftest import TEXT
from tests.language.parts import SHAPES, VOCABULARY, opened, save_random
from tests.language.test_batching import OTHER, assert_mixed_answers
from tests.test_runtime import QUESTIONS

EDGES = [0, 1, 31, 32, 62, 63, 64, 65, 95, 96, 127, 128]  # where columns are outgrown: 64, 128; and AHEAD of these


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return opened(save_random(request.param, tmp_path_factory.mktemp("decoder")))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return opened(save_random(SHAPES[1], tmp_path_factory.mktemp("decoder")))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step that may be captured is."""
    monkeypatch.setattr(graphs, "SETTLED", 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Same kernels, same sums, whatever else runs on this box."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Recorded:
    """Records eagerly; counts what is done again, and keeps nothing of it."""

    def __init__(self) -> None:
        self.replays = 0
        self.works: list[weakref.ref[object]] = []  # the static steps

    def __call__(self, work: Work) -> Work:
        self.works.append(weakref.ref(work.__self__))  # type: ignore[attr-defined]

        def again() -> None:
            self.replays += 1
            work()

        return again


def random_segment(model: LanguageModel, tokens: int) -> KVSegment:
    shape = model.kv_shape
    return KVSegment(torch.randn(shape.layers, 2, shape.kv_heads, tokens, shape.head_dim))


def random_past(model: LanguageModel, segments: tuple[KVSegment, ...], length: int, capacity: int) -> Past:
    """What lies behind the tail's end is NaN, as in fresh memory it may be."""
    tail = KVTail(model.kv_shape, capacity)
    tail.first(capacity).kv.fill_(torch.nan)
    tail.first(length).kv.normal_()
    tail.advance(length)
    return Past(segments, tail)


def copied(past: Past) -> Past:
    tail = KVTail(past.tail.shape, past.tail.capacity)
    tail.first(tail.capacity).kv.copy_(past.tail.first(tail.capacity).kv)
    tail.advance(past.tail.length)
    return Past(past.segments, tail)


def row(past: Past, token: int = 3) -> Rows:
    return Rows(past, [token], range(70 + past.tail.length, 71 + past.tail.length), wanted=1)


@torch.inference_mode()
def forward(loop: StepLoop, pasts: list[Past], tokens: list[int]) -> torch.Tensor:
    return torch.cat(list(loop._forward([row(past, token) for past, token in zip(pasts, tokens, strict=True)]))).clone()


def capturing(model: LanguageModel, record: Recorder = eagerly) -> tuple[StepLoop, StepGraphs]:
    loop = StepLoop(model, record)
    assert loop._graphs is not None
    return loop, loop._graphs


# -- the static form


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_static_form_has_the_ordinary_logits_and_leaves_the_same_kv(model: LanguageModel, data: st.DataObject) -> None:
    """Turns on chains of segments, some with one of their own more, some on none, with tails at the edges of columns; several steps."""
    torch.manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    ordinary, (loop, own) = StepLoop(model), capturing(model)
    chains = [
        tuple(random_segment(model, tokens) for tokens in data.draw(st.lists(st.sampled_from([0, 1, 30, 100]), max_size=3), "segments"))
        for _ in range(data.draw(st.integers(1, 2), "documents"))
    ]
    steps = data.draw(st.integers(1, 4), "steps")
    pasts = []
    for chain in chains:
        for _ in range(data.draw(st.integers(1, 3), "turns")):
            kept = (random_segment(model, 5),) if data.draw(st.booleans(), "of an earlier turn") else ()
            length = data.draw(st.sampled_from(EDGES), "length")
            room = data.draw(st.sampled_from([0, 1, 200]), "room")
            pasts.append(random_past(model, chain + kept, length, length + steps + room))
    mirror = [copied(past) for past in pasts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "SETTLED", 0)
        for _ in range(steps):
            tokens = torch.randint(0, VOCABULARY, (len(pasts),)).tolist()
            expected = forward(ordinary, pasts, tokens)
            torch.testing.assert_close(forward(loop, mirror, tokens), expected, atol=1e-5, rtol=1e-5)
    assert own.captures >= 1 and len(own) == 1
    for past, mirrored in zip(pasts, mirror, strict=True):
        assert past.tail.length == mirrored.tail.length
        written = past.tail.length
        torch.testing.assert_close(mirrored.tail.first(written).kv, past.tail.first(written).kv, atol=1e-5, rtol=1e-5)


def test_in_half_precision_it_is_as_near_as_the_ordinary_form(tmp_path: Path, at_once: None) -> None:
    torch.manual_seed(1)
    model = opened(save_random(SHAPES[1], tmp_path, torch.bfloat16), torch.bfloat16)
    segment = KVSegment(random_segment(model, 50).kv.bfloat16())
    pasts = [random_past(model, (segment,), length, 80) for length in (10, 63)]
    mirror = [copied(past) for past in pasts]
    loop, own = capturing(model)
    expected = forward(StepLoop(model), pasts, [1, 2])
    torch.testing.assert_close(forward(loop, mirror, [1, 2]), expected, atol=0.02, rtol=0.02)
    assert own.captures == 1


def test_packed_documents_are_read_by_captured_steps(small: LanguageModel, at_once: None) -> None:
    torch.manual_seed(2)
    packed = KVTail(replace(small.kv_shape, kept=KVDtype.INT8), 40)
    for layer in range(small.kv_shape.layers):
        packed.place(40).write(layer, torch.randn(2, small.kv_shape.kv_heads, 40, small.kv_shape.head_dim))
    packed.advance(40)
    segment = packed.seal()
    past = random_past(small, (segment,), 7, 20)
    mirror = copied(past)
    loop, own = capturing(small)
    expected = forward(StepLoop(small), [past], [1])
    torch.testing.assert_close(forward(loop, [mirror], [1]), expected, atol=1e-5, rtol=1e-5)
    assert own.captures == 1


# -- which steps are captured


def test_a_membership_is_captured_once_it_has_lasted(small: LanguageModel) -> None:
    """Joining, leaving and coming back; what was captured is used again at once."""
    record = Recorded()
    loop, own = capturing(small, record)
    a, b = (random_past(small, (), 3, 60) for _ in range(2))
    for n in range(graphs.SETTLED):
        forward(loop, [a, b], [1, 2])
        assert own.captures == 0, f"after {n + 1} steps"
    forward(loop, [a, b], [1, 2])
    assert (own.captures, record.replays) == (1, 1)
    forward(loop, [a], [1])
    assert (own.captures, record.replays) == (1, 1), "alone, which is another membership"
    forward(loop, [b, a], [1, 2])
    assert (own.captures, record.replays) == (1, 1), "in another order, too"
    forward(loop, [a, b], [1, 2])
    assert (own.captures, record.replays) == (1, 2)


def test_a_tail_that_outgrows_its_columns_is_captured_anew(small: LanguageModel, at_once: None) -> None:
    past = random_past(small, (), 0, 200)
    mirror = copied(past)
    loop, own = capturing(small)
    ordinary = StepLoop(small)
    captured = []
    for n in range(200):
        torch.testing.assert_close(forward(loop, [mirror], [n % 7]), forward(ordinary, [past], [n % 7]), atol=1e-5, rtol=1e-5)
        captured.append(own.captures)
    assert [captured.index(n) for n in (1, 2, 3)] == [0, 64, 128] and captured[-1] == 3
    with pytest.raises(ValueError, match="201 tokens in a tail of 200"):
        forward(loop, [mirror], [1])


def test_graphs_are_bounded_and_the_least_recently_used_goes(small: LanguageModel, at_once: None) -> None:
    record = Recorded()
    loop, own = capturing(small, record)
    pasts = [random_past(small, (), 3, 60) for _ in range(graphs.GRAPHS + 1)]
    for past in pasts[:-1]:
        forward(loop, [past], [1])
    forward(loop, [pasts[0]], [1])
    forward(loop, [pasts[-1]], [1])
    assert len(own) == graphs.GRAPHS == own.captures - 1
    forward(loop, [pasts[0]], [1])
    assert own.captures == graphs.GRAPHS + 1, "used not long ago"
    forward(loop, [pasts[1]], [1])
    assert own.captures == graphs.GRAPHS + 2, "the first to go"
    gc.collect()
    assert sum(work() is not None for work in record.works) == graphs.GRAPHS, "what was dropped is gone"


@pytest.mark.parametrize("case", ["draft", "prompt", "page", "packed tail", "positions of a page", "more rows than there is room for"])
def test_what_has_no_static_form_runs_as_ever(small: LanguageModel, at_once: None, case: str) -> None:
    own = StepGraphs(small, eagerly, 2)
    past = random_past(small, (), 3, 60)
    rows = row(past)
    if case == "packed tail":
        past = Past((), KVTail(replace(small.kv_shape, kept=KVDtype.INT8), 60))
    parts = {
        "draft": [replace(rows, tokens=[1, 2], positions=range(3, 5), wanted=2)],
        "prompt": [replace(rows, wanted=0)],
        "page": [replace(rows, image=slice(0, 1), visual=torch.zeros(1, 64))],
        "packed tail": [row(past)],
        "positions of a page": [replace(rows, positions=torch.tensor([[3], [4], [5]]))],
        "more rows than there is room for": [rows, *(row(random_past(small, (), 3, 60)) for _ in range(2))],
    }[case]
    with torch.inference_mode():
        assert own.step([rows]) is not None, "else it proves nothing"
        before = [part.past.tail.length for part in parts]
        assert own.step(parts) is None
    assert [part.past.tail.length for part in parts] == before and own.captures == 1


def test_a_step_whose_scores_are_too_large_is_not_captured(small: LanguageModel, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    past = random_past(small, (random_segment(small, 36),), 3, 300)
    size = 2 * 4 * small.heads * (64 + 36)
    loop, own = capturing(small)
    monkeypatch.setattr(graphs, "CAPTURED_SCORES_BYTES", size - 1)
    forward(loop, [past], [1])
    assert own.captures == 0 and past.tail.length == 4
    monkeypatch.setattr(graphs, "CAPTURED_SCORES_BYTES", size)
    forward(loop, [past], [1])
    assert own.captures == 1


def test_a_capture_that_fails_is_told_once_and_given_up_in_the_end(
    small: LanguageModel, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    tried = 0

    def failing(work: Work) -> Work:
        nonlocal tried
        tried += 1
        work()  # as a warm-up does
        raise RuntimeError("operation not permitted when stream is capturing")

    past = random_past(small, (), 3, 60)
    mirror = copied(past)
    loop, own = capturing(small, failing)
    with caplog.at_level(logging.WARNING):
        for n in range(8):
            expected = forward(StepLoop(small), [past], [n])
            torch.testing.assert_close(forward(loop, [mirror], [n]), expected, atol=1e-5, rtol=1e-5)
    assert tried == graphs.ATTEMPTS and (own.captures, len(own)) == (0, 0)
    assert [record.message for record in caplog.records] == [
        "a decode step could not be captured and runs without: operation not permitted when stream is capturing"
    ]


def test_a_decoder_without_a_gpu_is_refused(runtime: Runtime) -> None:
    with pytest.raises(OptionError, match=r"\(--cuda-graphs\) need the decoder on a GPU, and it runs on cpu"):
        CudaRecorder("cpu")
    with pytest.raises(OptionError, match="--cuda-graphs"):
        Runtime.open(runtime.checkpoint.path, encoder="torch", limits=Limits(cuda_graphs=True))


def test_a_gpu_that_is_not_there_is_refused(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="torch has no GPU here for --device cuda:1"):
        LanguageModel(Checkpoint.open(random_model), "cuda:1")


# -- memory


def test_a_graph_keeps_no_kv_and_goes_with_its_members(small: LanguageModel, at_once: None) -> None:
    record = Recorded()
    loop, own = capturing(small, record)
    segment = random_segment(small, 9)
    ending, staying = (random_past(small, (segment,), 3, 60) for _ in range(2))
    forward(loop, [ending, staying], [1, 2])
    forward(loop, [staying], [1])
    kv = weakref.ref(ending.tail.first(1).kv.untyped_storage()), weakref.ref(segment.kv)
    tail = ending.tail
    assert kv[0]() is not None
    tail.close()
    gc.collect()
    assert kv[0]() is None, "given back although the graph is still there"
    with pytest.raises(ClosedError):
        record.works[0]().run()  # type: ignore[union-attr]
    replays = record.replays
    with pytest.raises(ClosedError):
        forward(loop, [ending, staying], [1, 2])
    assert record.replays == replays
    own.prune()
    assert len(own) == 1
    del ending, staying, segment
    gc.collect()
    assert kv[1]() is None
    own.prune()
    assert len(own) == 0 and not any(work() for work in record.works)


def test_a_tail_in_the_place_of_one_that_is_gone_is_another(small: LanguageModel, at_once: None) -> None:
    """Python and torch give the same addresses again; a graph of the old tail must not be taken for one of the new."""
    loop, own = capturing(small)
    seen: set[tuple[int, int]] = set()
    for n in range(1, 301):
        past = random_past(small, (), 3, 60)
        place = id(past.tail), past.tail.first(1).kv.data_ptr()
        forward(loop, [past], [1])
        assert own.captures == n
        past.tail.close()
        del past
        if place in seen:
            break
        seen.add(place)
    else:
        raise AssertionError("no address came back, so that nothing is proven")
    own.prune()
    assert len(own) == 0


# -- through the loop


@dataclass(frozen=True)
class Captured:
    """A runtime whose loop captures."""

    runtime: Runtime
    graphs: StepGraphs
    record: Recorded


def captured(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Captured:
    record = Recorded()
    own = StepGraphs(runtime.model, record, 64)
    monkeypatch.setattr(runtime.loop, "_graphs", own)
    return Captured(runtime, own, record)


def test_answers_have_the_same_tokens_whoever_comes_and_goes(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of several lengths on two documents; some drafted, one cancelled, a reading in their midst."""
    lengths, sampling = [90, 12, 140, 33, 70, 25], Sampling(draft=False)
    options = [replace(sampling, max_new_tokens=length, draft=n == 3) for n, length in enumerate(lengths)]
    with runtime.read(TEXT) as one, runtime.read(OTHER) as two:
        documents = [(one, two)[n % 2] for n in range(len(lengths))]
        alone = [d.ask(QUESTIONS[n % 2], o).text for n, (d, o) in enumerate(zip(documents, options, strict=True))]
        way = captured(runtime, monkeypatch)
        together = [d.ask(QUESTIONS[n % 2], o) for n, (d, o) in enumerate(zip(documents, options, strict=True))]
        gone = one.ask(QUESTIONS[0], replace(sampling, max_new_tokens=200))
        next(gone.steps(), None)
        gone.close()
        runtime.read(TEXT + OTHER).close()
        assert [answer.text for answer in together] == alone
        assert way.graphs.captures >= 2 and way.record.replays > 40
        assert len(way.graphs) <= graphs.GRAPHS
    runtime.loop.wait(lambda: not runtime.loop._turns)
    assert runtime.arena.used == 0 and len(way.graphs) == 0


def test_a_conversation_is_captured_too(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that stands on a kept one, which was captured itself."""
    sampling = Sampling(max_new_tokens=20, draft=False)

    def talk() -> list[str]:
        with runtime.read(TEXT) as document, document.ask(QUESTIONS[0], sampling, keep=True) as first:
            texts = [first.text, document.ask(QUESTIONS[1], sampling, after=first).text]
            return [*texts, document.ask("Why?", sampling, after=first).text]

    expected = talk()
    way = captured(runtime, monkeypatch)
    assert talk() == expected and way.graphs.captures >= 2
    runtime.store.settle()
    assert runtime.arena.used == 0


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_mixture_gives_everyone_their_own_answer(reader_runtime: Runtime, data: st.DataObject) -> None:
    """On the reader with its real weights: started, read a bit, cancelled and read out in any order, with and without drafts."""
    with pytest.MonkeyPatch.context() as patch, reader_runtime.read(TEXT) as document:
        patch.setattr(graphs, "SETTLED", data.draw(st.integers(0, 2), "settled"))
        questions = [f"What is the value of {key}?" for key in ("order number", "weight", "carrier", "door code")]
        expected = {question: document.ask(question).text for question in questions}
        way = captured(reader_runtime, patch)
        assert_mixed_answers(document, expected, data, st.integers(2, 10))
        last = document.ask(questions[0], Sampling(draft=False))
        assert last.text == expected[questions[0]] and way.record.replays > 0
    assert reader_runtime.arena.used == 0
