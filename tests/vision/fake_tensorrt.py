"""A TensorRT and a GPU that are none: they compute by the torch oracle, and hold their user to the rules of the real ones.

Work on a stream happens when somebody waits for it, never before: reading a result, or changing what a copy reads, too early shows. The
fake's classes have TensorRT's names; a test checks that they have none that TensorRT lacks. On a GPU, StandInDevice runs the same on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glyph_rt.vision.device import Buffer, Pinned, TorchDevice
from glyph_rt.vision.graph import INPUTS, OUTPUT, stages

Shape = tuple[int, ...]


class FakeStream:
    handle = 7

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        while self.work:
            self.work.pop(0)()


class FakeEvent:
    def __init__(self) -> None:
        self.stream: FakeStream | None = None
        self.pending = False

    def record(self, stream: Any) -> None:
        self.stream, self.pending = stream, True
        stream.work.append(self.reached)

    def reached(self) -> None:
        self.pending = False

    def synchronize(self) -> None:
        while self.pending:
            assert self.stream is not None
            self.stream.work.pop(0)()


class FakeDevice:
    name = "fake"

    def __init__(self, graphs: bool = True) -> None:
        self.graphs = graphs
        self.at: dict[int, NDArray[np.uint8]] = {}  # device memory by address
        self.next = 4096
        self.depth = 0  # of `active`
        self.captured = 0
        self.replayed = 0
        self.streams: list[FakeStream] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def allocate(self, size: int) -> Buffer:
        assert self.depth
        address, self.next = self.next, self.next + (size // 256 + 1) * 256
        self.at[address] = np.full(size, 0xAA, np.uint8)
        return Buffer(address, size, None)

    def pinned(self, size: int) -> Pinned:
        return Pinned(np.full(size, 0xBB, np.uint8), None)

    def stream(self) -> FakeStream:
        self.streams.append(FakeStream())
        return self.streams[-1]

    def event(self) -> FakeEvent:
        return FakeEvent()

    def upload(self, source: Pinned, target: Buffer, size: int, stream: Any) -> None:
        assert self.depth and size <= target.size

        def copy() -> None:
            self.at[target.address][:size] = source.array[:size]

        stream.work.append(copy)

    def download(self, source: Buffer, target: Pinned, size: int, stream: Any) -> None:
        assert self.depth and size <= source.size

        def copy() -> None:
            target.array[:size] = self.at[source.address][:size]

        stream.work.append(copy)

    def memory(self) -> tuple[int, int]:
        return 1 << 34, 1 << 34

    def bytes_at(self, address: int) -> torch.Tensor:
        return torch.from_numpy(self.at[address])

    def launch(self, handle: int, work: Callable[[], None]) -> None:
        assert handle == FakeStream.handle and self.depth
        self.streams[-1].work.append(work)

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None] | None:
        if not self.graphs:
            return None
        before, stream.work = stream.work, []
        work()
        graph, stream.work = stream.work, before
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            stream.work += graph

        return replay


class StandInDevice(TorchDevice):
    """A real GPU, on which torch stands in for TensorRT: all of an encoder runs there but NVIDIA's engine."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self.owners: dict[int, torch.Tensor] = {}
        self.captured = 0

    def allocate(self, size: int) -> Buffer:
        buffer = super().allocate(size)
        self.owners[buffer.address] = buffer.owner
        return buffer

    def bytes_at(self, address: int) -> torch.Tensor:
        return self.owners[address]

    def launch(self, handle: int, work: Callable[[], None]) -> None:
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.ExternalStream(handle)):  # type: ignore[no-untyped-call]
            work()

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None] | None:
        self.captured += 1
        return super().capture(stream, work)


class FakeTensorRT:
    """The module. `tower` is what its engine computes, from the four inputs to the tokens; `ranges` are its optimisation profiles."""

    __version__ = "10.16.1.11"

    def __init__(
        self, device: FakeDevice | StandInDevice, tower: Callable[..., torch.Tensor], ranges: list[tuple[Shape, Shape]], **faults: Any
    ) -> None:
        self.device, self.tower, self.ranges, self.faults = device, tower, ranges, faults
        self.stages = stages(len(tower.blocks)) if faults.get("shows_stream") else ()  # type: ignore[attr-defined]
        self.contexts: list[IExecutionContext] = []
        self.deserialized: list[bytes] = []

    class ILogger:
        class Severity:
            INTERNAL_ERROR, ERROR, WARNING = range(3)

    class ExecutionContextAllocationStrategy:
        USER_MANAGED = "user managed"

    class DataType:
        FLOAT, HALF, BF16 = range(3)

    def Runtime(self, logger: object) -> Runtime:
        return Runtime(self)


class Runtime:
    def __init__(self, fake: FakeTensorRT) -> None:
        self._fake = fake

    def deserialize_cuda_engine(self, serialized_engine: memoryview) -> ICudaEngine | None:
        self._fake.deserialized.append(bytes(serialized_engine))
        return None if self._fake.faults.get("refuses_plan") else ICudaEngine(self._fake)


class ICudaEngine:
    def __init__(self, fake: FakeTensorRT) -> None:
        self._fake = fake
        self._names = [*INPUTS, OUTPUT, *fake.stages] if not fake.faults.get("other_names") else ["input", "output"]
        self.num_io_tensors = len(self._names)
        self.num_optimization_profiles = len(fake.ranges)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._fake.faults.get("dtype", FakeTensorRT.DataType.HALF)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        least, most = self._fake.ranges[profile_index]
        width = self._fake.faults.get("patch_bytes", 196)
        return [(*least, width), (*most, width), (*most, width)]

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        pages, patches = self._fake.ranges[profile_index][1]
        return 16 * pages * patches

    def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
        assert strategy == FakeTensorRT.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._fake.faults.get("no_context"):
            return None
        self._fake.contexts.append(IExecutionContext(self._fake))
        return self._fake.contexts[-1]


class IExecutionContext:
    def __init__(self, fake: FakeTensorRT) -> None:
        self._fake = fake
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._used = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle and not self._used
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        assert not self._used, "a context that has a CUDA graph must not change"
        assert self._profile is not None
        least, most = self._fake.ranges[self._profile]
        if name == INPUTS[0] and not all(a <= n <= b for a, n, b in zip(least, shape, most, strict=False)):
            return False
        self._shapes[name] = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in INPUTS if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        pages, patches, _ = self._shapes[INPUTS[0]]
        return pages, patches // 4, self._fake.faults.get("hidden", 0) or self._out_hidden()

    def update_device_memory_size_for_shapes(self) -> int:
        pages, patches, _ = self._shapes[INPUTS[0]]
        return 16 * pages * patches + int(self._fake.faults.get("more_scratch", 0))

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0 and size <= len(self._fake.device.bytes_at(memory))
        self._scratch = size

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.infer_shapes() == [] and self._addresses.keys() == {*INPUTS, OUTPUT, *self._fake.stages}
        assert self._scratch >= self.update_device_memory_size_for_shapes()
        if self._fake.faults.get("fails"):
            return False
        self._used = True
        self._fake.device.launch(stream_handle, self._compute)
        return True

    def _compute(self) -> None:
        inputs = [self._input(name) for name in INPUTS]
        self._write(OUTPUT, self._fake.tower(*inputs))
        for name, values in zip(self._fake.stages, self._fake.tower.stream(*inputs), strict=False):  # type: ignore[attr-defined]
            self._write(name, values)

    def _write(self, name: str, values: torch.Tensor) -> None:
        kind = (torch.float32, torch.float16, torch.bfloat16)[self._fake.faults.get("dtype", FakeTensorRT.DataType.HALF)]
        data = values.to(kind).contiguous().view(torch.uint8).flatten()
        self._fake.device.bytes_at(self._addresses[name])[: len(data)] = data

    def _input(self, name: str) -> torch.Tensor:
        shape, memory = self._shapes[name], self._fake.device.bytes_at(self._addresses[name])
        kind = torch.uint8 if name == INPUTS[0] else torch.float32
        return memory[: math.prod(shape) * kind.itemsize].view(kind).view(shape)

    def _out_hidden(self) -> int:
        return int(self._fake.tower.config.out_hidden_size)  # type: ignore[attr-defined]
