"""Candidates: every way this box might run a checkpoint's vision tower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnxruntime as ort
import torch

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.identity import digest
from glyph_rt.vision.device import GpuUse
from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.golden import Golden, golden_path
from glyph_rt.vision.graph import ALL_KINDS, GraphKind, graph_digest
from glyph_rt.vision.manifest import Manifest
from glyph_rt.vision.onnx_cuda import OnnxCudaEncoder
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.store import ENGINES, EngineStore
from glyph_rt.vision.torch_encoder import DTYPES, TorchEncoder, torch_name
from glyph_rt.vision.trt_api import FLAVOURS, Flavour

ORACLE = "torch"


@dataclass(frozen=True)
class Candidate:
    """One way to run the tower. `open` raises EncoderError when it does not work here, or belongs to other golden pages."""

    name: str
    precision: str
    signature: str  # changes whenever what it runs does; remembered timings hang on it
    golden: Path  # the pages it has to reproduce
    open: Callable[[Golden], VisionEncoder]
    on_gpu: bool = False  # where kernels are chosen by the page's size

    def answers_to(self, choice: str) -> bool:
        """Whether `choice` names it: its name, or the beginning of it up to a dash. "torch" is the oracle alone."""
        return self.name == choice or (choice != ORACLE and self.name.startswith(choice + "-"))


def candidates(checkpoint: Checkpoint, store: Path, use: GpuUse | None = None) -> list[Candidate]:
    """The oracle first, then whatever was exported or built. Half precision is on the table where the user exported it."""
    use = use or GpuUse()
    found = [_torch(checkpoint, store, "cpu", "fp32", False)]
    graphs = [kind for kind in ALL_KINDS if kind.path(checkpoint, store).is_file()]
    for kind in graphs:
        found += _of_graph(checkpoint, store, kind, use)
    found += _of_engines(checkpoint, store, use)
    wanted = {kind.precision: kind.colour for kind in graphs if kind.precision in DTYPES}
    for precision, colour in wanted.items():
        if precision == "bf16":  # fast where a CPU has instructions for it, and what stands in for ONNX Runtime, which cannot run it there
            found.append(_torch(checkpoint, store, "cpu", precision, colour))
        if torch.cuda.is_available():
            found.append(_torch(checkpoint, store, "cuda", precision, colour))
    return found


def _torch(checkpoint: Checkpoint, store: Path, device: str, precision: str, colour: bool) -> Candidate:
    def open_torch(_: Golden) -> VisionEncoder:
        return TorchEncoder(checkpoint, device, precision)

    return Candidate(torch_name(device, precision), precision, "", golden_path(checkpoint, store, colour), open_torch, device != "cpu")


def _of_graph(checkpoint: Checkpoint, store: Path, kind: GraphKind, use: GpuUse) -> Iterator[Candidate]:
    path = kind.path(checkpoint, store)
    openers: list[tuple[str, Callable[[], OnnxEncoder]]] = [("onnx", lambda: OnnxEncoder(checkpoint, path))]
    if "CUDAExecutionProvider" in ort.get_available_providers() and torch.cuda.is_available():
        openers.append(("onnx-cuda", lambda: OnnxCudaEncoder(checkpoint, path, use)))
    for prefix, opener in openers:

        def open_graph(golden: Golden, opener: Callable[[], OnnxEncoder] = opener) -> VisionEncoder:
            encoder = opener()
            if encoder.facts.golden_digest != golden.digest:
                raise EncoderError(f"{path} was exported with other golden pages; run glyph-rt export --model {checkpoint.path} again")
            return encoder

        signature = digest("graph-file/2", kind.name, _stamp(path))
        golden, on_gpu = golden_path(checkpoint, store, kind.colour), prefix == "onnx-cuda"
        yield Candidate(f"{prefix}-{kind.name}", kind.precision, signature, golden, open_graph, on_gpu)


def _of_engines(checkpoint: Checkpoint, store: Path, use: GpuUse) -> Iterator[Candidate]:
    """TensorRT engines that `glyph-rt build` made of this checkpoint's graphs: one candidate for each TensorRT and kind of graph.

    Manifests are only listed here; which of them may be loaded on this box, and is to be trusted, the engine store decides when one is
    opened. It has to be built from the graph as it is now: an engine of a graph that was exported again is stale.
    """
    engines = EngineStore(store / ENGINES)
    made: dict[tuple[str, GraphKind], list[Manifest]] = {}
    for entry in engines.entries():  # the most recently used first
        manifest = entry.manifest
        if manifest is not None and manifest.model_digest == checkpoint.digest and manifest.tensorrt in FLAVOURS:
            made.setdefault((manifest.tensorrt, manifest.kind), []).append(manifest)
    for (flavour, kind), manifests in made.items():
        path = kind.path(checkpoint, store)

        def open_engine(_: Golden, flavour: str = flavour, path: Path = path, latest: str = manifests[0].onnx_digest) -> VisionEncoder:
            from glyph_rt.vision.tensorrt_encoder import TensorRTEncoder

            # A graph that was deleted after the build, to save space, makes no engine stale.
            wanted = graph_digest(path) if path.is_file() else latest
            return TensorRTEncoder.open(checkpoint, wanted, engines, cast(Flavour, flavour), use)

        plans = (field for manifest in manifests for field in (manifest.onnx_digest, manifest.plan_digest))
        signature = digest("engines/1", _stamp(path), use.library, use.workspace or 0, use.index, *plans)
        golden = golden_path(checkpoint, store, kind.colour)
        yield Candidate(f"{flavour}-{kind.name}", kind.precision, signature, golden, open_engine, on_gpu=True)


def _stamp(path: Path) -> str:
    """Changes when a graph is written again.

    Not its content: hashing gigabytes at every start would cost more than the timings it guards. What runs is checked by the gate at
    every load.
    """
    if not path.is_file():
        return "none"
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"
