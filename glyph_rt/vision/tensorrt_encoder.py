"""The vision tower run by TensorRT, from an engine of the store.

Not run on a GPU yet: no machine of ours had TensorRT and a GPU. Its logic is tested against a fake TensorRT that computes by the oracle
and has no name the real ones lack (tests/vision/test_tensorrt_encoder.py).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.memory.limits import MIB
from glyph_rt.vision.device import Buffer, Device, Event, GpuUse, Pinned, Stream, open_device
from glyph_rt.vision.geometry import PATCH
from glyph_rt.vision.gpu import Gpu, find_gpu
from glyph_rt.vision.graph import INPUTS, OUTPUT, stages
from glyph_rt.vision.manifest import Wanted
from glyph_rt.vision.onnx_encoder import fitted, position_table
from glyph_rt.vision.store import Engine, EngineStore
from glyph_rt.vision.torch_encoder import checked_finite, geometry_cache
from glyph_rt.vision.trt_api import Flavour, ICudaEngine, IExecutionContext, TensorRT, load

PATCHES = INPUTS[0]
PAGE_SHAPES = 4  # contexts kept, each with its CUDA graph; they share their scratch memory
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Range:
    """What one optimisation profile of the engine takes."""

    index: int
    pages: tuple[int, int]  # least and most in a call
    patches: tuple[int, int]  # of a page

    def holds(self, count: int) -> bool:
        """Whether pages of so many patches are in it."""
        return self.patches[0] <= count <= self.patches[1]


@dataclass
class _Shape:
    """An execution context bound to one number of pages of one size. Changing it would invalidate its CUDA graph, so it never is."""

    context: IExecutionContext
    runs: int = 0
    replay: Callable[[], None] | None = None


@dataclass(frozen=True)
class _Slot:
    """Pinned memory for one call's patches and tokens. There are two: one is filled while the GPU works on the other."""

    patches: Pinned
    tokens: Pinned
    done: Event


class TensorRTEncoder:
    """VisionEncoder on TensorRT. All device memory is allocated here, at once: what the engine's largest shape needs.

    Raises EncoderError when the engine cannot be loaded, is not this checkpoint's tower, or needs more than `budget` bytes. Must be held
    to the golden pages before it is used (golden.check), as every encoder.
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine, trt: TensorRT, device: Device, budget: int | None = None) -> None:
        vision = checkpoint.config.vision_config
        made = engine.manifest
        self.name = f"{trt.flavour}-{made.kind.name}"
        self.out_hidden = int(vision.out_hidden_size)
        self._stages = stages(vision.depth)
        self.geometry = geometry_cache(checkpoint, position_table(checkpoint))
        self._trt, self._device = trt, device
        head_dim = vision.hidden_size // vision.num_heads
        self._widths = dict(zip(INPUTS, (made.kind.patch_bytes, vision.hidden_size, head_dim, head_dim), strict=True))
        self._lock = threading.Lock()  # one stream, one scratch memory
        self._shapes: OrderedDict[tuple[int, int], _Shape] = OrderedDict()
        self._page_size: tuple[int, int] | None = None  # whose geometry is on the device
        with _typed(self.name), device.active():
            self._runtime = trt.runtime(trt.logger())
            self._engine = self._deserialize(engine)
            self._type = trt.output_type(self._engine, OUTPUT)
            shown = (name for name in self._stages if name in _names(self._engine))
            self._stream_types = {name: trt.output_type(self._engine, name) for name in shown}  # none in an engine that serves
            self.ranges = tuple(_ranges(self._engine))
            self._allocate(budget)

    @classmethod
    def open(
        cls, checkpoint: Checkpoint, onnx_digest: str, store: EngineStore, flavour: Flavour, use: GpuUse | None = None
    ) -> TensorRTEncoder:
        """The encoder of this box's engine for a graph. Raises EncoderError, or EngineRefusedError with why no engine may be loaded."""
        use = use or GpuUse()
        gpu: Gpu | None = find_gpu(use.index)
        if gpu is None:  # before TensorRT is asked for anything: without a driver, some of its versions crash
            raise EncoderError("TensorRT needs an NVIDIA GPU with a working driver; choose another --encoder")
        trt = load(flavour)
        engine = store.find(Wanted(checkpoint.digest, onnx_digest, trt.flavour, trt.version, gpu))
        return cls(checkpoint, engine, trt, open_device(use), use.workspace)

    def encode(self, patches: NDArray[np.uint8], width: int, height: int) -> Tensor:
        return checked_finite(self._encode(patches, width, height), self.name)

    def _encode(self, patches: NDArray[np.uint8], width: int, height: int) -> Tensor:
        patches = fitted(patches, self._widths[PATCHES], self.name)
        pages, count, _ = patches.shape
        chosen = self._range(count, width, height)
        most = chosen.pages[1]
        waiting: deque[tuple[_Slot, int]] = deque()
        tokens: list[Tensor] = []
        with self._lock, _typed(self.name), self._device.active():
            try:
                self._upload_geometry(width, height)
                for number, start in enumerate(range(0, pages, most)):
                    if len(waiting) == len(self._slots):
                        tokens.append(self._collect(*waiting.popleft(), count))
                    slot, batch = self._slots[number % len(self._slots)], patches[start : start + most]
                    self._enqueue(slot, batch, chosen)
                    waiting.append((slot, len(batch)))
                tokens += [self._collect(*pending, count) for pending in waiting]
            finally:
                self._stream.synchronize()  # after an error too: nothing may still be reading what the caller owns
        return torch.cat(tokens)

    def takes(self, width: int, height: int) -> bool:
        return any(each.holds(width // PATCH * (height // PATCH)) for each in self.ranges)

    def _range(self, count: int, width: int, height: int) -> Range:
        for each in self.ranges:
            if each.holds(count):
                return each
        sizes = " and ".join(f"{r.patches[0]} to {r.patches[1]}" for r in self.ranges)
        raise EncoderError(
            f"pages of {width} x {height} px have {count} patches; this engine takes {sizes}. Choose another profile or --encoder"
        )

    def _enqueue(self, slot: _Slot, batch: NDArray[np.uint8], chosen: Range) -> None:
        """Put one call on the stream: patches up, the tower, tokens down."""
        pages, count, _ = batch.shape
        slot.patches.array[: batch.size] = batch.reshape(-1)
        self._device.upload(slot.patches, self._buffers[PATCHES], batch.size, self._stream)
        # A range may ask for more pages than there are: the rest of the buffer holds what it held, and its tokens are not read.
        self._run(self._shape(max(pages, chosen.pages[0]), count, chosen))
        self._device.download(self._buffers[OUTPUT], slot.tokens, self._token_bytes(pages, count), self._stream)
        slot.done.record(self._stream)

    def _run(self, shape: _Shape) -> None:
        """First as it is, since TensorRT may still set itself up; then captured; from then on as one CUDA graph."""
        if shape.replay is not None:
            return shape.replay()
        if shape.runs == 1:
            shape.replay = self._device.capture(self._stream, lambda: self._execute(shape.context))
        shape.runs += 1
        return shape.replay() if shape.replay is not None else self._execute(shape.context)

    def _execute(self, context: IExecutionContext) -> None:
        if not context.execute_async_v3(self._stream.handle):
            raise EncoderError(f"the {self.name} encoder could not start; TensorRT's log says why")

    def _collect(self, slot: _Slot, pages: int, count: int) -> Tensor:
        """Wait for a call and take its tokens, fp32 [pages, count / 4, out_hidden], out of the slot."""
        slot.done.synchronize()
        raw = torch.from_numpy(slot.tokens.array[: self._token_bytes(pages, count)])
        # A copy in any case: the slot is used again.
        return raw.view(getattr(torch, self._type)).to(torch.float32, copy=True).view(pages, count // 4, self.out_hidden)

    def _shape(self, pages: int, count: int, chosen: Range) -> _Shape:
        key = (pages, count)
        if key in self._shapes:
            self._shapes.move_to_end(key)
            return self._shapes[key]
        if len(self._shapes) == PAGE_SHAPES:
            self._stream.synchronize()  # its graph may be running
            self._shapes.popitem(last=False)
        context = self._trt.context(self._engine)
        done = [context.set_optimization_profile_async(chosen.index, self._stream.handle)]
        done += [context.set_input_shape(name, self._input_shape(name, pages, count)) for name in INPUTS]
        unset = list(context.infer_shapes())
        expected = (pages, count // 4, self.out_hidden)
        if not all(done) or unset or tuple(context.get_tensor_shape(OUTPUT)) != expected:
            raise EncoderError(f"the engine of {self.name} refuses {pages} pages of {count} patches (unset: {unset or 'none'})")
        if context.update_device_memory_size_for_shapes() > self._scratch.size:
            raise EncoderError(f"the engine of {self.name} needs more scratch memory for {pages} pages of {count} patches than it said")
        context.set_device_memory(self._scratch.address, self._scratch.size)
        bound = [context.set_tensor_address(name, buffer.address) for name, buffer in self._buffers.items()]
        if not all(bound):
            raise EncoderError(f"the engine of {self.name} refuses its buffers")
        self._stream.synchronize()  # the profile is chosen
        self._shapes[key] = _Shape(context)
        return self._shapes[key]

    def _input_shape(self, name: str, pages: int, count: int) -> tuple[int, ...]:
        return (pages, count, self._widths[name]) if name == PATCHES else (count, self._widths[name])

    def _token_bytes(self, pages: int, count: int) -> int:
        return pages * (count // 4) * self.out_hidden * _BYTES[self._type]

    def _deserialize(self, engine: Engine) -> ICudaEngine:
        loaded = self._runtime.deserialize_cuda_engine(engine.plan)
        if loaded is None:
            raise EncoderError(
                f"TensorRT refuses engine {engine.manifest.name}; its log says why. Build it again, or choose another --encoder"
            )
        names = _names(loaded)
        if names - {*self._stages} != {*INPUTS, OUTPUT}:
            raise EncoderError(f"engine {engine.manifest.name} is no vision tower of ours: it has {', '.join(sorted(names))}")
        found = loaded.get_tensor_profile_shape(PATCHES, 0)[0][-1]
        if found != self._widths[PATCHES]:
            raise EncoderError(f"engine {engine.manifest.name} takes patches of {found} bytes; its manifest says {self._widths[PATCHES]}")
        return loaded

    def _allocate(self, budget: int | None) -> None:
        """Everything on the device and all pinned memory, for the largest call of any range."""
        rows = max(r.patches[1] for r in self.ranges)  # of positions and rope
        calls = [(r.pages[1], r.patches[1]) for r in self.ranges]
        most = max(pages * count for pages, count in calls)  # patches
        sizes = {name: 4 * rows * self._widths[name] for name in INPUTS[1:]}
        sizes[PATCHES] = most * self._widths[PATCHES]
        sizes[OUTPUT] = max(self._token_bytes(*call) for call in calls)
        sizes |= {name: most * self._widths[INPUTS[1]] * _BYTES[kind] for name, kind in self._stream_types.items()}
        scratch = max(self._engine.get_device_memory_size_for_profile_v2(r.index) for r in self.ranges)
        self.device_bytes = sum(sizes.values()) + scratch
        if budget is not None and self.device_bytes > budget:
            need, have = self.device_bytes / MIB, budget / MIB
            raise EncoderError(f"the engine of {self.name} needs {need:,.0f} MiB beside its weights; {have:,.0f} MiB are planned for it")
        device = self._device
        self._stream: Stream = device.stream()
        self._scratch: Buffer = device.allocate(scratch)
        self._buffers: dict[str, Buffer] = {name: device.allocate(size) for name, size in sizes.items()}
        self._geometry_staging: Pinned = device.pinned(max(sizes[name] for name in INPUTS[1:]))
        self._slots = tuple(_Slot(device.pinned(sizes[PATCHES]), device.pinned(sizes[OUTPUT]), device.event()) for _ in range(2))

    def _upload_geometry(self, width: int, height: int) -> None:
        """Once for each change of page size, in fp32."""
        if self._page_size == (width, height):
            return
        self._page_size = None
        geometry = self.geometry(width, height)
        for name, values in zip(INPUTS[1:], (geometry.positions, geometry.cos, geometry.sin), strict=True):
            data = values.contiguous().numpy().reshape(-1).view(np.uint8)
            self._geometry_staging.array[: data.size] = data
            self._device.upload(self._geometry_staging, self._buffers[name], data.size, self._stream)
            self._stream.synchronize()  # the staging memory is used again
        self._page_size = (width, height)


class ObservedTensorRTEncoder(TensorRTEncoder):
    """Of a build that shows its residual stream: export/build.py makes one to find where an engine goes wrong. Takes one call's pages."""

    def observe(self, patches: NDArray[np.uint8], width: int, height: int) -> dict[str, Tensor]:
        pages, count, _ = patches.shape
        found = {OUTPUT: self._encode(patches, width, height)}
        with self._lock, _typed(self.name), self._device.active():
            for name, kind in self._stream_types.items():
                size = pages * count * self._widths[INPUTS[1]] * _BYTES[kind]
                staging = self._device.pinned(size)
                self._device.download(self._buffers[name], staging, size, self._stream)
                self._stream.synchronize()
                values = torch.from_numpy(staging.array).view(getattr(torch, kind))
                found[name] = values.to(torch.float32, copy=True).view(pages, count, -1)
        return found


@contextmanager
def _typed(name: str) -> Iterator[None]:
    """What CUDA, torch and TensorRT's bindings raise, as EncoderError: the next encoder can serve."""
    try:
        yield
    except (RuntimeError, MemoryError, TypeError) as error:
        raise EncoderError(f"the {name} encoder failed ({' '.join(str(error).split())[:300]})") from error


def _names(engine: ICudaEngine) -> set[str]:
    return {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}


def _ranges(engine: ICudaEngine) -> Iterator[Range]:
    """What each optimisation profile takes, from the shapes [pages, patches, bytes] it was built for."""
    for index in range(engine.num_optimization_profiles):
        least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape(PATCHES, index))
        yield Range(index, (least[0], most[0]), (least[1], most[1]))
