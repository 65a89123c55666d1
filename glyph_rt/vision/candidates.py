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
from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.golden import Golden, golden_path
from glyph_rt.vision.graph import ALL_KINDS, GraphKind
from glyph_rt.vision.manifest import Manifest
from glyph_rt.vision.onnx_cuda import OnnxCudaEncoder
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.store import ENGINES, EngineStore
from glyph_rt.vision.torch_encoder import TorchEncoder, torch_name
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

    def answers_to(self, choice: str) -> bool:
        """Whether `choice` names it: its name, or the beginning of it up to a dash. "torch" is the oracle alone."""
        return self.name == choice or (choice != ORACLE and self.name.startswith(choice + "-"))


def candidates(checkpoint: Checkpoint, store: Path) -> list[Candidate]:
    """The oracle first, then whatever was exported. Half precision is on the table where the user exported it."""
    found = [_torch(checkpoint, store, "cpu", "fp32", False)]
    graphs = [kind for kind in ALL_KINDS if kind.path(checkpoint, store).is_file()]
    for kind in graphs:
        found += _of_graph(checkpoint, store, kind)
    found += _of_engines(checkpoint, store)
    wanted = {kind.precision: kind.colour for kind in graphs}
    for precision, colour in wanted.items():
        if precision == "bf16":  # fast where a CPU has instructions for it, and what stands in for ONNX Runtime, which cannot run it there
            found.append(_torch(checkpoint, store, "cpu", precision, colour))
        if torch.cuda.is_available():
            found.append(_torch(checkpoint, store, "cuda", precision, colour))
    return found


def _torch(checkpoint: Checkpoint, store: Path, device: str, precision: str, colour: bool) -> Candidate:
    def open_torch(_: Golden) -> VisionEncoder:
        return TorchEncoder(checkpoint, device, precision)

    return Candidate(torch_name(device, precision), precision, "", golden_path(checkpoint, store, colour), open_torch)


def _of_graph(checkpoint: Checkpoint, store: Path, kind: GraphKind) -> Iterator[Candidate]:
    path = kind.path(checkpoint, store)
    encoders: list[tuple[str, type[OnnxEncoder]]] = [("onnx", OnnxEncoder)]
    if "CUDAExecutionProvider" in ort.get_available_providers() and torch.cuda.is_available():
        encoders.append(("onnx-cuda", OnnxCudaEncoder))
    # Not the file's content: hashing gigabytes at every start would cost more than the timings it guards. What the file computes is
    # checked by the gate at every load.
    stat = path.stat()
    signature = digest("graph-file/1", kind.name, stat.st_size, stat.st_mtime_ns)
    for prefix, encoder_class in encoders:

        def open_graph(golden: Golden, encoder_class: type[OnnxEncoder] = encoder_class) -> VisionEncoder:
            encoder = encoder_class(checkpoint, path)
            if encoder.facts.golden_digest != golden.digest:
                raise EncoderError(f"{path} was exported with other golden pages; run glyph-rt export --model {checkpoint.path} again")
            return encoder

        yield Candidate(f"{prefix}-{kind.name}", kind.precision, signature, golden_path(checkpoint, store, kind.colour), open_graph)


def _of_engines(checkpoint: Checkpoint, store: Path) -> Iterator[Candidate]:
    """TensorRT engines that `glyph-rt build` made of this checkpoint's graphs.

    Manifests are only listed here; whether one may be loaded on this box, and is to be trusted, the engine store decides when it is opened.
    """
    engines = EngineStore(store / ENGINES)
    manifests = (entry.manifest for entry in reversed(engines.entries()) if entry.manifest is not None)
    usable = (made for made in manifests if made.model_digest == checkpoint.digest and made.tensorrt in FLAVOURS)
    # One for each graph and TensorRT: the most recently used, as the engine store finds it.
    for manifest in {(made.onnx_digest, made.tensorrt): made for made in usable}.values():

        def open_engine(_: Golden, manifest: Manifest = manifest) -> VisionEncoder:
            from glyph_rt.vision.tensorrt_encoder import TensorRTEncoder

            return TensorRTEncoder.open(checkpoint, manifest.onnx_digest, engines, cast(Flavour, manifest.tensorrt))

        name = f"{manifest.tensorrt}-{manifest.flavour}-{manifest.precision}-grey"
        yield Candidate(name, manifest.precision, manifest.plan_digest, golden_path(checkpoint, store, False), open_engine)
