"""ONNX to a TensorRT plan, with everything a build should tell: progress, errors, fusion, memory."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, cast

from glyph_rt.export.graph_file import GraphFile
from glyph_rt.export.profiles import PageShapes, Profile

from glyph_rt.errors import BuildError
from glyph_rt.vision.gpu import Gpu
from glyph_rt.vision.graph import INPUTS, stages
from glyph_rt.vision.trt_api import Builder, IBuilderConfig, INetworkDefinition, IOptimizationProfile, OnnxParser, Progress, TensorRT

_ATTENTION = re.compile(r"\bName: (\w*mha\w*)", re.IGNORECASE)  # in the layer listing: `Name: _gemm_mha_v2_myl0_7, LayerType: kgen`
_SCRATCH = re.compile(r"Total Activation Memory: (\d+) bytes")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fusion:
    """How many of the tower's attentions became one fused kernel, in the worst of the engine's optimisation profiles.

    One that did not writes its [heads, patches, patches] scores to memory: several times the time, and gigabytes.
    """

    fused: int
    depth: int
    kernels: tuple[str, ...]

    @classmethod
    def of(cls, listing: str, depth: int, profiles: int) -> Fusion:
        """Counted from the builder's listing of layers, since an engine inspector needs the GPU.

        Each optimisation profile has kernels of its own, listed more than once.
        """
        names = tuple(sorted(set(_ATTENTION.findall(listing))))
        return cls(len(names) // profiles, depth, names)

    @property
    def complete(self) -> bool:
        return self.fused >= self.depth

    def __str__(self) -> str:
        return f"{self.fused} of {self.depth} attentions fused"


@dataclass(frozen=True)
class BuiltEngine:
    plan: memoryview  # of TensorRT's own memory: a full-size plan is 1.4 GB, and is not copied
    fusion: Fusion
    scratch: int  # bytes of activations for the largest shape, as the builder reports them; 0 when it does not
    seconds: float
    timing_cache: bytes | None  # what the builder learned about kernels; None where it keeps none


class NoProgress:
    """A Progress that shows nothing."""

    def begin(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> bool:
        return True

    def end(self, phase: str) -> None: ...


def check_target(trt: TensorRT, profile: Profile, gpu: Gpu | None) -> None:
    """Raise BuildError when this TensorRT, on this box, cannot build this profile. Before any work."""
    if profile.flavour == "modern" and not trt.reads_modern:
        raise BuildError(f"{trt.flavour} {trt.version} does not read modern graphs (opset 23); set flavour: portable in {profile.name}")
    if trt.flavour == "tensorrt-rtx":  # builds ahead of time, for GPUs that need not be here
        return
    wanted = f"{profile.name} is for compute capability {profile.compute_capability}, and tensorrt builds only on the GPU it builds for"
    if gpu is None:
        raise BuildError(f"{wanted}; this box has no working GPU")
    if gpu.compute_capability != profile.compute_capability:
        raise BuildError(f"{wanted}; this box has {gpu.name} ({gpu.compute_capability})")


def build_engine(
    trt: TensorRT,
    graph: GraphFile,
    profile: Profile,
    depth: int,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
    observed: bool = False,
) -> BuiltEngine:
    """Build a graph of `depth` attentions for `profile`; `observed`: one that shows its residual stream, to be looked into.

    Raises BuildError with what TensorRT said. Ctrl-C is heeded within one step of the builder. Warns when attentions are left unfused.
    """
    watch = _Watch(progress or NoProgress())
    with ThreadPoolExecutor(1, "tensorrt-build") as pool:  # the main thread stays free to hear Ctrl-C
        build = pool.submit(_build, trt, graph, profile, depth, timing_cache, watch, observed)
        try:
            while not build.done():
                wait([build], timeout=0.2)
        except KeyboardInterrupt:
            watch.cancelled.set()
            raise  # leaving the pool waits for the builder, which stops at its next step
        return build.result()


class _Watch:
    """Passes progress on. Never lets an exception into TensorRT, whose C++ would end the process: it cancels, and is raised later."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.cancelled = threading.Event()
        self.error: Exception | None = None

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        self._tell("begin", phase, parent, steps)

    def step(self, phase: str, step: int) -> bool:
        if self._tell("step", phase, step) is False:
            self.cancelled.set()
        return not self.cancelled.is_set()

    def end(self, phase: str) -> None:
        self._tell("end", phase)

    def _tell(self, what: str, *arguments: object) -> object:
        try:
            return getattr(self.inner, what)(*arguments)
        except Exception as error:
            self.error = error
            self.cancelled.set()
            return False


def _build(
    trt: TensorRT, graph: GraphFile, profile: Profile, depth: int, timing_cache: bytes, watch: _Watch, observed: bool
) -> BuiltEngine:
    start = time.perf_counter()
    logger = trt.logger()
    builder = trt.builder(logger)
    network = trt.network(builder)
    parser = trt.parser(network, logger)
    _parse(parser, network, graph)
    if observed:
        _show(network, set(stages(depth)))
    config = builder.create_builder_config()
    config.builder_optimization_level = profile.optimisation_level
    trt.limit_workspace(config, profile.workspace)
    trt.describe_layers(config)
    if trt.flavour == "tensorrt-rtx":
        trt.target(config, profile.compute_capability)
    for shapes in profile.shapes:
        config.add_optimization_profile(_optimization_profile(builder, network, shapes))
    keeps_timings = trt.flavour == "tensorrt"  # TensorRT for RTX times kernels where they run
    if keeps_timings:
        _use_timing_cache(config, timing_cache)
    monitor = trt.monitor(watch)  # a local, so that it outlives the build
    config.progress_monitor = monitor
    # Last: a network made by a builder that already had a recorder crashes the process when it is freed (TensorRT for RTX 1.7.1).
    recorder = trt.recorder()
    builder.error_recorder = recorder
    with trt.listening() as messages:
        plan = builder.build_serialized_network(network, config)
    if watch.error is not None:
        raise watch.error
    if plan is None:
        if watch.cancelled.is_set():
            raise BuildError("the build was cancelled")
        said = "; ".join(recorder.errors) or "no reason given"
        raise BuildError(f"{trt.flavour} {trt.version} cannot build {graph.path.name} for {profile.name}: {said[:600]}")
    listing = "\n".join(messages)
    fusion = Fusion.of(listing, depth, len(profile.shapes))
    if not fusion.complete:
        _log.warning("only %s: this engine will be several times slower than it should be, and need gigabytes more", fusion)
    scratch = max((int(size) for size in _SCRATCH.findall(listing)), default=0)
    learned = config.get_timing_cache() if keeps_timings else None
    kept = None if learned is None else bytes(cast(Any, learned.serialize()))
    return BuiltEngine(memoryview(cast(Any, plan)).cast("B"), fusion, scratch, time.perf_counter() - start, kept)


def _parse(parser: OnnxParser, network: INetworkDefinition, graph: GraphFile) -> None:
    if not parser.parse(graph.model, path=str(graph.path)):  # the path, so that weights beside the file are found
        said = "; ".join(" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors))
        raise BuildError(f"TensorRT cannot read {graph.path}: {said[:600] or 'no reason given'}")
    found = tuple(network.get_input(i).name for i in range(network.num_inputs))
    if found != INPUTS:
        raise BuildError(f"{graph.path} has the inputs {', '.join(found)}; a vision tower of glyph-rt has {', '.join(INPUTS)}")


def _show(network: INetworkDefinition, names: set[str]) -> None:
    """Make these of the graph's values outputs of the engine."""
    for layer in map(network.get_layer, range(network.num_layers)):
        for tensor in map(layer.get_output, range(layer.num_outputs)):
            if tensor.name in names:
                network.mark_output(tensor)


def _optimization_profile(builder: Builder, network: INetworkDefinition, shapes: PageShapes) -> IOptimizationProfile:
    """The range of shapes of every input: patches [pages, patches, bytes], the others [patches, width]."""
    profile = builder.create_optimization_profile()
    pages, patches = (shapes.pages.min, shapes.pages.opt, shapes.pages.max), shapes.page_size.patches
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        width = tensor.shape[-1]
        batched = tensor.name == INPUTS[0]
        least, usual, most = ((p, n, width) if batched else (n, width) for p, n in zip(pages, patches, strict=True))
        profile.set_shape(tensor.name, min=least, opt=usual, max=most)
    return profile


def _use_timing_cache(config: IBuilderConfig, kept: bytes) -> None:
    """Start from what earlier builds learned; from nothing when it is of another GPU or version."""
    if not kept or not config.set_timing_cache(config.create_timing_cache(kept), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
