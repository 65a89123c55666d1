"""What the recorder of CUDA graphs asks of torch, by names and arguments that torch has: on a fake, since there is no GPU here."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from glyph_rt.language.graphs import CudaRecorder, Work


class FakeCuda:
    """Streams and graphs that write down what is done with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.current = "caller"
        self.pools = 0
        fake, keywords = self, inspect.signature(torch.cuda.graph.__init__)

        class Stream:
            device = torch.device("cuda:1")

            def __init__(self, name: str) -> None:
                self.name = name

            def wait_stream(self, other: Stream) -> None:
                fake.told.append(f"{self.name} waits for {other.name}")

        class Graph:
            def __init__(self) -> None:
                self._pool: object = None

            def pool(self) -> object:
                return self._pool

            def replay(self) -> None:
                fake.told.append("replay")

        @contextmanager
        def stream(own: Stream) -> Iterator[None]:
            before, fake.current = fake.current, own.name
            yield
            fake.current = before

        @contextmanager
        def graph(*arguments: Any, **options: Any) -> Iterator[None]:
            given = keywords.bind(None, *arguments, **options).arguments
            given["cuda_graph"]._pool = given["pool"]
            fake.told.append(f"capture on {given['stream'].name} into {given['pool']}, {given['capture_error_mode']}")
            yield

        def handle() -> str:
            fake.pools += 1
            return f"pool {fake.pools}"

        for name, stand_in in {
            "Stream": lambda device: Stream("side"), "current_stream": lambda device: Stream("caller"), "stream": stream,
            "CUDAGraph": Graph, "graph": graph, "graph_pool_handle": handle,
        }.items():  # fmt: skip
            assert hasattr(torch.cuda, name)
            monkeypatch.setattr(torch.cuda, name, stand_in)


def test_the_recorder_warms_up_captures_and_shares_a_pool_while_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    recorder = CudaRecorder("cuda:1")

    def record() -> Work:
        return recorder(lambda: cuda.told.append(f"work on {cuda.current}"))

    first = record()
    assert cuda.told == [
        "side waits for caller", "work on side", "caller waits for side", "capture on side into pool 1, thread_local", "work on side",
    ]  # fmt: skip
    cuda.told.clear()
    first()
    assert cuda.told == ["replay"] and cuda.current == "caller"
    second = record()
    del first
    third = record()
    assert cuda.pools == 1, "as long as any graph of it is there"
    del second, third
    gc.collect()
    record()
    assert cuda.pools == 2, "torch does not take a pool again that nobody has"
