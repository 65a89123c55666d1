"""The pycuda device layer, on a driver that is none: every call in the primary context, and given back on every thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.vision.device import GpuUse, PycudaDevice, open_device
from glyph_rt.vision.store import Engine
from glyph_rt.vision.tensorrt_encoder import TensorRTEncoder
from glyph_rt.vision.torch_encoder import TorchEncoder
from glyph_rt.vision.trt_api import TensorRT
from tests.vision.fake_tensorrt import FakeStream, FakeTensorRT
from tests.vision.parts import distance, pages_of, stacked
from tests.vision.test_store import manifest


class Driver(ModuleType):
    """What we use of pycuda.driver. Like the real one, its calls fail on a thread whose context was not pushed."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.pushed = threading.local()
        self.at: dict[int, NDArray[np.uint8]] = {}
        self.retained = 0
        driver = self

        class Context:
            def push(self) -> None:
                driver.pushed.depth = getattr(driver.pushed, "depth", 0) + 1

            @staticmethod
            def pop() -> None:
                driver.here().depth -= 1

        class Device:
            def __init__(self, index: int) -> None:
                assert index == 0

            def retain_primary_context(self) -> Context:
                driver.retained += 1
                return Context()

        class Stream(FakeStream):
            def __init__(self) -> None:
                super().__init__()
                driver.here()
                driver.stream = self

        class Event:
            def __init__(self) -> None:
                driver.here()

            def record(self, stream: Stream) -> None:
                self.stream = stream

            def synchronize(self) -> None:
                self.stream.synchronize()

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event

    def here(self) -> Any:
        assert getattr(self.pushed, "depth", 0) > 0, "no context on this thread"
        return self.pushed

    def init(self) -> None: ...

    def mem_alloc(self, size: int) -> int:
        self.here()
        address = 4096 * (1 + len(self.at))
        self.at[address] = np.full(size, 0xAA, np.uint8)
        return address

    def pagelocked_empty(self, size: int, dtype: type[np.uint8]) -> NDArray[np.uint8]:
        self.here()
        return np.full(size, 0xBB, dtype)

    def memcpy_htod_async(self, target: int, source: NDArray[np.uint8], stream: FakeStream) -> None:
        self.here()
        stream.work.append(lambda: self.at[target].__setitem__(slice(len(source)), source))

    def memcpy_dtoh_async(self, target: NDArray[np.uint8], source: int, stream: FakeStream) -> None:
        self.here()
        stream.work.append(lambda: target.__setitem__(slice(None), self.at[source][: len(target)]))

    def mem_get_info(self) -> tuple[int, int]:
        self.here()
        return 1, 2

    # what FakeTensorRT asks of a device beside
    def bytes_at(self, address: int) -> torch.Tensor:
        return torch.from_numpy(self.at[address])

    def launch(self, handle: int, work: Callable[[], None]) -> None:
        self.here()
        self.stream.work.append(work)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made, package = Driver(), ModuleType("pycuda")
    package.driver = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


def test_an_encoder_runs_on_pycuda_alone_from_any_thread(checkpoint: Checkpoint, driver: Driver) -> None:
    device = open_device(GpuUse("pycuda"))
    assert isinstance(device, PycudaDevice) and driver.retained == 1
    oracle = TorchEncoder(checkpoint)
    fake: Any = FakeTensorRT(driver, oracle.tower, [((1, 8), (3, 200))])  # type: ignore[arg-type]
    encoder = TensorRTEncoder(checkpoint, Engine(manifest(b""), memoryview(b"")), TensorRT(fake, "tensorrt"), device)
    patches = stacked(pages_of(280, 140, 7))
    expected = oracle.encode(patches, 280, 140)
    found: list[tuple[torch.Tensor, int]] = []
    threads = [threading.Thread(target=lambda: found.append((encoder.encode(patches, 280, 140), driver.pushed.depth))) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [(distance(tokens, expected) < 2e-3, depth) for tokens, depth in found] == [(True, 0)] * 3, "what was pushed was popped"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch serves here")
def test_pycuda_serves_where_torch_has_no_cuda(driver: Driver) -> None:
    device = open_device(GpuUse())
    assert device.name == "pycuda"
    with device.active():
        assert device.memory() == (1, 2)
