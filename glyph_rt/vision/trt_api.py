"""TensorRT as this project uses it: the one module that knows its Python names.

Two packages serve it, under one set of names: `tensorrt` 10.3 to 11.x, and TensorRT for RTX (`tensorrt_rtx_bindings`), whose builder
needs no GPU. Neither is imported before `load`, and what differs between versions is probed by name: enum values moved
between 10 and 11, and flags came and went.

The protocols below are TensorRT's classes, cut down to what we call. mypy holds our sources to them, and
tests/vision/test_trt_api.py holds them to the bindings of 10.3, 10.16, 11.4 and TensorRT for RTX, names and keywords. So every
TensorRT name in this project exists in every version it claims to support.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

from glyph_rt.errors import BuildError, EncoderError

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
INSTALL: dict[Flavour, str] = {
    "tensorrt": "pip install tensorrt --extra-index-url https://pypi.nvidia.com, or the one JetPack brings",
    "tensorrt-rtx": "pip install 'glyph-rt[rtx]'",
}
FLOOR = (10, 3)  # JetPack 6.2; before it a context's memory cannot be ours (no set_device_memory)
MODERN_FLOOR = (10, 15)  # the first parser of opset 23's Attention and RMSNormalization
Shape = tuple[int, ...]
_log = logging.getLogger("glyph_rt.tensorrt")
_LOGGERS: list[tuple[Any, object]] = []  # one for each TensorRT that was imported: see TensorRT.logger
_LOGGERS_LOCK = threading.Lock()


class ITensor(Protocol):
    name: str

    @property
    def shape(self) -> Sequence[int]: ...


class ILayer(Protocol):
    @property
    def num_outputs(self) -> int: ...
    def get_output(self, index: int) -> ITensor: ...


class INetworkDefinition(Protocol):
    @property
    def num_layers(self) -> int: ...
    def get_layer(self, index: int) -> ILayer: ...
    def mark_output(self, tensor: ITensor) -> None: ...
    @property
    def num_inputs(self) -> int: ...
    def get_input(self, index: int) -> ITensor: ...


class ParserError(Protocol):
    def desc(self) -> str: ...


class OnnxParser(Protocol):
    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes, path: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class IHostMemory(Protocol):
    """Also a buffer."""

    @property
    def nbytes(self) -> int: ...


class ITimingCache(Protocol):
    def serialize(self) -> IHostMemory: ...


class IOptimizationProfile(Protocol):
    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None: ...


class IBuilderConfig(Protocol):
    builder_optimization_level: int
    profiling_verbosity: Any
    progress_monitor: Any

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...


class RtxBuilderConfig(Protocol):
    """What TensorRT for RTX's IBuilderConfig has beside: the GPUs to build for, none of which need be there."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool: ...


class Builder(Protocol):
    error_recorder: Any

    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class IExecutionContext(Protocol):
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: Shape) -> bool: ...
    def infer_shapes(self) -> Sequence[str]: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def update_device_memory_size_for_shapes(self) -> int: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    @property
    def num_optimization_profiles(self) -> int: ...
    @property
    def num_io_tensors(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]: ...
    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int: ...
    def create_execution_context(self, strategy: Any) -> IExecutionContext | None: ...


class Runtime(Protocol):
    def deserialize_cuda_engine(self, serialized_engine: memoryview) -> ICudaEngine | None: ...


class Progress(Protocol):
    """Told of a build's phases as they go; False from `step` cancels the build. Called from TensorRT's threads."""

    def begin(self, phase: str, parent: str | None, steps: int) -> None: ...
    def step(self, phase: str, step: int) -> bool: ...
    def end(self, phase: str) -> None: ...


@dataclass(frozen=True)
class TensorRT:
    """A loaded TensorRT. Its enums are reached through here alone, by name."""

    module: Any
    flavour: Flavour

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def release(self) -> tuple[int, int]:
        """(major, minor) of the version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def reads_modern(self) -> bool:
        """Whether its parser takes the `modern` graphs (opset 23)."""
        return self.flavour == "tensorrt-rtx" or self.release >= MODERN_FLOOR

    def builder(self, logger: object) -> Builder:
        """Raises EncoderError when TensorRT cannot make one (a missing library)."""
        try:
            return cast(Builder, self.module.Builder(logger))
        except TypeError as error:  # pybind's answer to a factory that returned null
            raise EncoderError(f"{self.flavour} {self.version} has no working builder ({error})") from None

    def network(self, builder: Builder) -> INetworkDefinition:
        """An empty, strongly typed network: a flag in 10.x, the only kind there is in 11."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return builder.create_network(0 if flag is None else 1 << int(flag))

    def parser(self, network: INetworkDefinition, logger: object) -> OnnxParser:
        return cast(OnnxParser, self.module.OnnxParser(network, logger))

    def runtime(self, logger: object) -> Runtime:
        """Only after CUDA was found to work (device.find_gpu): without a driver, some versions give a runtime that crashes."""
        runtime = self.module.Runtime(logger)
        if runtime is None:
            raise EncoderError(f"{self.flavour} {self.version} cannot start on this GPU and driver")
        return cast(Runtime, runtime)

    def limit_workspace(self, config: IBuilderConfig, size: int) -> None:
        config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, size)

    def describe_layers(self, config: IBuilderConfig) -> None:
        """Keep layer names in the plan, for the fusion report and for profilers. Costs nothing at run time."""
        config.profiling_verbosity = self.module.ProfilingVerbosity.DETAILED

    def target(self, config: IBuilderConfig, compute_capability: str) -> None:
        """Build for a GPU that need not be here. Raises BuildError where this TensorRT has no such target."""
        names = getattr(self.module, "ComputeCapability", None)
        name = "SM" + compute_capability.replace(".", "")
        if names is None or not hasattr(names, name):
            raise BuildError(f"{self.flavour} {self.version} has no target for compute capability {compute_capability}")
        rtx = cast(RtxBuilderConfig, config)
        rtx.num_compute_capabilities = 1
        if not rtx.set_compute_capability(getattr(names, name), 0):
            raise BuildError(f"{self.flavour} {self.version} refused compute capability {compute_capability}")

    def context(self, engine: ICudaEngine) -> IExecutionContext:
        """An execution context whose scratch memory is the caller's. Raises EncoderError when there is none."""
        context = engine.create_execution_context(self.module.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EncoderError(f"{self.flavour} {self.version} made no execution context; is GPU memory left?")
        return context

    def output_type(self, engine: ICudaEngine, name: str) -> str:
        """float32, float16 or bfloat16. Raises EncoderError for any other."""
        types = self.module.DataType
        found = engine.get_tensor_dtype(name)
        for kind, ours in ((types.FLOAT, "float32"), (types.HALF, "float16"), (types.BF16, "bfloat16")):
            if found == kind:
                return ours
        raise EncoderError(f"the engine's {name} is {found}; expected float32, float16 or bfloat16")

    def logger(self) -> object:
        """The process's logger: warnings and errors go to `logging`, everything to whoever is `listening`.

        TensorRT keeps the first logger it is given as long as anything made with it lives, and silently ignores every other.
        """
        with _LOGGERS_LOCK:
            known = next((logger for module, logger in _LOGGERS if module is self.module), None)
            if known is None:
                known = self._new_logger()
                _LOGGERS.append((self.module, known))
            return known

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Everything TensorRT says in this process, as it says it."""
        messages: list[str] = []
        listeners = cast(Any, self.logger()).listeners
        listeners.append(messages)
        try:
            yield messages
        finally:
            listeners[:] = [other for other in listeners if other is not messages]

    def _new_logger(self) -> object:
        severities = self.module.ILogger.Severity
        levels = {severities.INTERNAL_ERROR: logging.ERROR, severities.ERROR: logging.ERROR, severities.WARNING: logging.WARNING}

        class Logger(self.module.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.listeners: list[list[str]] = []

            def log(self, severity: Any, message: str) -> None:
                for messages in self.listeners:
                    messages.append(message)
                _log.log(levels.get(severity, logging.DEBUG), "%s", message)

        return cast(object, Logger())

    def monitor(self, progress: Progress) -> object:
        class Monitor(self.module.IProgressMonitor):  # type: ignore[name-defined, misc]
            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                progress.begin(name, parent, steps)

            def step_complete(self, name: str, step: int) -> bool:
                return progress.step(name, step)

            def phase_finish(self, name: str) -> None:
                progress.end(name)

        return cast(object, Monitor())

    def recorder(self) -> Recorder:
        return _recorder(self.module)


class Recorder(Protocol):
    """An IErrorRecorder: the errors TensorRT reported, in order, bounded."""

    errors: list[str]


def _recorder(module: Any) -> Recorder:
    limit = 64
    lock = threading.Lock()

    class ErrorRecorder(module.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.codes: list[Any] = []

        def num_errors(self) -> int:
            return len(self.errors)

        def get_error_code(self, index: int) -> Any:
            return self.codes[index]

        def get_error_desc(self, index: int) -> str:
            return self.errors[index]

        def has_overflowed(self) -> bool:
            return len(self.errors) >= limit

        def clear(self) -> None:
            with lock:
                self.errors.clear()
                self.codes.clear()

        def report_error(self, code: Any, description: str) -> bool:
            with lock:
                if len(self.errors) < limit:
                    self.errors.append(" ".join(description.split()))
                    self.codes.append(code)
            return False  # not fatal by itself: the failing call says so too

    return cast(Recorder, ErrorRecorder())


def load(flavour: Flavour, importer: Callable[[str], Any] = importlib.import_module) -> TensorRT:
    """Import a TensorRT. Raises EncoderError when it is missing, broken, or older than the floor; says how to get it."""
    try:
        loaded = TensorRT(importer(MODULES[flavour]), flavour)
    except (ImportError, OSError) as error:  # OSError: a library it needs is missing
        raise EncoderError(f"{flavour} cannot be imported ({error}); to get it: {INSTALL[flavour]}") from None
    if flavour == "tensorrt" and loaded.release < FLOOR:
        floor = ".".join(map(str, FLOOR))
        raise EncoderError(f"tensorrt {loaded.version} is too old; {floor} is the oldest supported (on Jetson: JetPack 6.2)")
    return loaded


def available(importer: Callable[[str], Any] = importlib.import_module) -> list[TensorRT]:
    """Every TensorRT this box can import, the full one first."""
    found = []
    for flavour in FLAVOURS:
        try:
            found.append(load(flavour, importer))
        except EncoderError as error:
            _log.debug("%s", error)
    return found
