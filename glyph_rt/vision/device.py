"""The narrow part of CUDA an encoder needs: memory, streams, events, copies. By torch, or by pycuda where torch must not own the GPU.

Neither is imported before `open_device`. Both use the device's primary context, so that they may live beside each other and beside
TensorRT; pycuda has to be told so on every thread, which is what `active` is for. Neither has run on a GPU yet: no machine of ours had one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glyph_rt.errors import EncoderError, OptionError

LIBRARIES = ("auto", "torch", "pycuda")


@dataclass(frozen=True)
class GpuUse:
    """How a vision encoder may use the GPU. Raises OptionError for a library there is not."""

    library: str = "auto"  # torch or pycuda; auto: torch where it has CUDA, pycuda where it has not (a CPU build of torch suffices then)
    workspace: int | None = None  # bytes of device memory beside the weights, from the memory plan; None: what the largest call needs
    index: int = 0  # which GPU

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise OptionError(f"no device library {self.library!r}; choose one of: {', '.join(LIBRARIES)}")


@dataclass(frozen=True)
class Buffer:
    """`size` bytes of device memory at `address`, 256-byte aligned; given back when `owner` is."""

    address: int
    size: int
    owner: Any


@dataclass(frozen=True)
class Pinned:
    """Host memory the GPU copies from and to by itself: uint8 [size]."""

    array: NDArray[np.uint8]
    owner: Any


class Stream(Protocol):
    handle: int  # as TensorRT takes it

    def synchronize(self) -> None: ...


class Event(Protocol):
    def record(self, stream: Stream) -> None: ...

    def synchronize(self) -> None:
        """Wait until what its stream held when it was recorded is done; at once when it never was."""
        ...


class Device(Protocol):
    """One GPU. Copies are asynchronous and in the stream's order; every failure is an EncoderError or the library's own error."""

    name: str

    def active(self) -> AbstractContextManager[None]:
        """Everything below is called inside this, on whatever thread."""
        ...

    def allocate(self, size: int) -> Buffer: ...
    def pinned(self, size: int) -> Pinned: ...
    def stream(self) -> Stream: ...
    def event(self) -> Event: ...
    def upload(self, source: Pinned, target: Buffer, size: int, stream: Stream) -> None: ...
    def download(self, source: Buffer, target: Pinned, size: int, stream: Stream) -> None: ...

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all."""
        ...

    def capture(self, stream: Stream, work: Callable[[], None]) -> Callable[[], None] | None:
        """A CUDA graph of what `work` puts on `stream`, as a function that puts it there again; None where there are none. Runs nothing."""
        ...


def open_device(use: GpuUse) -> Device:
    """The GPU. Raises EncoderError when it cannot be had; ask gpu.find_gpu first."""
    problems = []
    for name in LIBRARIES[1:] if use.library == "auto" else (use.library,):
        try:
            return TorchDevice(use.index) if name == "torch" else PycudaDevice(use.index)
        except (ImportError, OSError, RuntimeError) as error:
            hint = "" if name == "torch" else "; to get it: pip install 'glyph-rt[gpu]'"
            problems.append(f"{name} has no GPU here ({' '.join(str(error).split())[:200]}){hint}")
    raise EncoderError("; ".join(problems))


class _TorchStream:
    def __init__(self, stream: Any) -> None:
        self.stream, self.handle = stream, int(stream.cuda_stream)

    def synchronize(self) -> None:
        self.stream.synchronize()


class _TorchEvent:
    def __init__(self, event: Any) -> None:
        self.event = event

    def record(self, stream: Stream) -> None:
        self.event.record(stream.stream)  # type: ignore[attr-defined]  # our own

    def synchronize(self) -> None:
        self.event.synchronize()


class TorchDevice:
    """Device by torch: its allocator, so that the language model's memory and ours are one account."""

    name = "torch"

    def __init__(self, index: int) -> None:
        import torch

        self._torch: Any = torch
        self._device = torch.device("cuda", index)
        if not torch.cuda.is_available():
            raise RuntimeError("torch.cuda.is_available() is false")

    def active(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = self._torch.cuda.device(self._device)
        return context

    def allocate(self, size: int) -> Buffer:
        memory = self._torch.empty(max(size, 1), dtype=self._torch.uint8, device=self._device)
        return Buffer(memory.data_ptr(), size, memory)  # torch aligns to 512 bytes

    def pinned(self, size: int) -> Pinned:
        memory = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)
        return Pinned(memory.numpy(), memory)

    def stream(self) -> Stream:
        return _TorchStream(self._torch.cuda.Stream(self._device))

    def event(self) -> Event:
        return _TorchEvent(self._torch.cuda.Event())

    def upload(self, source: Pinned, target: Buffer, size: int, stream: Stream) -> None:
        self._copy(target.owner, source.owner, size, stream)

    def download(self, source: Buffer, target: Pinned, size: int, stream: Stream) -> None:
        self._copy(target.owner, source.owner, size, stream)

    def _copy(self, target: Any, source: Any, size: int, stream: Any) -> None:
        with self._torch.cuda.stream(stream.stream):
            target[:size].copy_(source[:size], non_blocking=True)

    def memory(self) -> tuple[int, int]:
        free, total = self._torch.cuda.mem_get_info(self._device)
        return int(free), int(total)

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None] | None:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=stream.stream):
            work()

        def replay() -> None:
            with self._torch.cuda.stream(stream.stream):
                graph.replay()

        return replay


class _PycudaStream:
    def __init__(self, stream: Any) -> None:
        self.stream, self.handle = stream, int(stream.handle)

    def synchronize(self) -> None:
        self.stream.synchronize()


class _PycudaEvent:
    def __init__(self, event: Any) -> None:
        self.event, self.recorded = event, False

    def record(self, stream: Stream) -> None:
        self.event.record(stream.stream)  # type: ignore[attr-defined]  # our own
        self.recorded = True

    def synchronize(self) -> None:
        if self.recorded:
            self.event.synchronize()


class PycudaDevice:
    """Device by pycuda, for processes that only encode pages. It has no CUDA graphs."""

    name = "pycuda"

    def __init__(self, index: int) -> None:
        import pycuda.driver as cuda  # needs the driver's library even to be imported

        cuda.init()
        self._cuda: Any = cuda
        # The primary context, never pycuda.autoinit's own: memory of another context is not TensorRT's to use.
        self._context = cuda.Device(index).retain_primary_context()

    @contextmanager
    def _pushed(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def active(self) -> AbstractContextManager[None]:
        return self._pushed()

    def allocate(self, size: int) -> Buffer:
        memory = self._cuda.mem_alloc(max(size, 1))
        return Buffer(int(memory), size, memory)  # CUDA aligns to 256 bytes

    def pinned(self, size: int) -> Pinned:
        array = self._cuda.pagelocked_empty(size, np.uint8)
        return Pinned(array, array)

    def stream(self) -> Stream:
        return _PycudaStream(self._cuda.Stream())

    def event(self) -> Event:
        return _PycudaEvent(self._cuda.Event())

    def upload(self, source: Pinned, target: Buffer, size: int, stream: Any) -> None:
        self._cuda.memcpy_htod_async(target.owner, source.array[:size], stream.stream)

    def download(self, source: Buffer, target: Pinned, size: int, stream: Any) -> None:
        self._cuda.memcpy_dtoh_async(target.array[:size], source.owner, stream.stream)

    def memory(self) -> tuple[int, int]:
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def capture(self, stream: Stream, work: Callable[[], None]) -> Callable[[], None] | None:
        return None
