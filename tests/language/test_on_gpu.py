"""Captured steps on a GPU. Skipped where there is none, which so far is everywhere it was run."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace

import pytest
import torch

from glyph_rt import Answer, Document, Limits, Runtime, Sampling
from glyph_rt.language import CudaRecorder, graphs
from glyph_rt.language.graphs import StepGraphs
from tests.conftest import TEXT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this box has no GPU that torch can use")

KEYS = ("order number", "weight", "carrier", "door code")
OTHER = "".join(f"line {n}: {n * 7919 % 1000}\n" for n in range(45))


def opened(captured: bool) -> Runtime:
    """The reader, which no token stops, so that steps settle."""
    runtime = Runtime.open(encoder="torch", device="cuda", limits=Limits(cuda_graphs=captured))
    runtime.template.marks = replace(runtime.template.marks, stop=frozenset())
    return runtime


def transcript(document: Document, key: str, tokens: int = 80) -> Answer:
    """Long enough for columns to be outgrown."""
    return document.ask(f"What is the value of {key}?", Sampling(max_new_tokens=tokens, draft=False))


def graphs_of(runtime: Runtime) -> StepGraphs:
    assert runtime.loop._graphs is not None
    return runtime.loop._graphs


def test_captured_answers_have_the_same_tokens() -> None:
    """On two documents, of several lengths, while pages are encoded and read by another thread."""
    with opened(False) as ordinary, ordinary.read(TEXT) as one, ordinary.read(OTHER) as two:
        expected = [transcript(document, key, 60 + 30 * n).text for n, key in enumerate(KEYS) for document in (one, two)]
    with opened(True) as runtime, runtime.read(TEXT) as one, runtime.read(OTHER) as two:
        answers = [transcript(document, key, 60 + 30 * n) for n, key in enumerate(KEYS) for document in (one, two)]
        reading = threading.Thread(target=lambda: runtime.read(TEXT + OTHER).close())
        reading.start()
        assert [answer.text for answer in answers] == expected
        reading.join()
        alone = transcript(one, KEYS[0], 150)
        assert alone.text is not None
        own = graphs_of(runtime)
        assert own.captures >= 3 and own._attempts == graphs.ATTEMPTS, "no capture failed"
    assert runtime.arena.used == 0


def test_the_memory_of_graphs_comes_back() -> None:
    """Captured again and again; and the pool is taken up again after all its graphs are gone."""
    with opened(True) as runtime, runtime.read(TEXT) as document:
        held = []
        for _ in range(6):
            assert transcript(document, KEYS[0]).text is not None
            runtime.loop.wait(lambda: not runtime.loop._turns)
            assert len(graphs_of(runtime)) == 0
            gc.collect()
            torch.cuda.empty_cache()
            held.append(torch.cuda.memory_reserved())
        assert graphs_of(runtime).captures >= 6 and max(held[1:]) <= held[1]


def test_a_broken_capture_leaves_stream_and_answers_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(False) as ordinary, ordinary.read(TEXT) as document:
        expected = transcript(document, KEYS[0]).text
    run = graphs.StaticStep.run

    def with_a_look_at_the_device(self: graphs.StaticStep) -> None:
        run(self)
        if torch.cuda.is_current_stream_capturing():
            self._desk.tokens.tolist()  # which waits for the device

    monkeypatch.setattr(graphs.StaticStep, "run", with_a_look_at_the_device)
    with opened(True) as runtime, runtime.read(TEXT) as document:
        assert transcript(document, KEYS[0]).text == expected
        assert graphs_of(runtime)._attempts == 0 and graphs_of(runtime).captures == 0
        monkeypatch.undo()
        buffer = torch.zeros(3, device="cuda")

        def count() -> None:
            buffer.add_(1)

        CudaRecorder("cuda")(count)()
        assert buffer.tolist() == [2.0, 2.0, 2.0], "once to warm up, once played back"
