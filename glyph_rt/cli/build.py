"""`glyph-rt build`: a TensorRT engine for one box, into the engine store."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import BuildError
from glyph_rt.memory import MIB
from glyph_rt.vision import default_store
from glyph_rt.vision.gpu import find_gpu
from glyph_rt.vision.graph import GraphFacts, GraphKind
from glyph_rt.vision.manifest import AHEAD, Manifest
from glyph_rt.vision.store import EngineStore, default_engines
from glyph_rt.vision.trt_api import Progress, load


@dataclass(frozen=True)
class BuildOptions:
    model: Path | None
    profile: str
    onnx: Path | None = None
    out: Path | None = None
    limit: int | None = None  # bytes


def run(options: BuildOptions) -> None:
    """Everything that can be wrong with the request is found before the first second of building."""
    if importlib.util.find_spec("onnxscript") is None:
        raise BuildError("building needs onnx and onnxscript; install them with: pip install 'glyph-rt[export]'")
    from glyph_rt.export.build import build_engine, check_target
    from glyph_rt.export.graph_file import GraphFile
    from glyph_rt.export.profiles import load_profile

    profile = load_profile(options.profile)
    trt, gpu = load(profile.tensorrt), find_gpu()
    check_target(trt, profile, gpu)
    checkpoint = Checkpoint.open(options.model)
    graph = GraphFile.open(options.onnx or _exported(checkpoint, GraphKind(profile.flavour, profile.precision)))
    facts = GraphFacts.read(graph.metadata, graph.path, checkpoint)
    if (facts.flavour, facts.precision) != (profile.flavour, profile.precision):
        raise BuildError(f"{graph.path} is {facts.kind.name}; profile {profile.name} wants {profile.flavour}-{profile.precision}")
    store = EngineStore(options.out or default_engines())
    store.limit = options.limit or store.limit
    timings = store.root / f".timings-{trt.version}"  # TensorRT checks for itself whose they are
    with _bar(f"{profile.name}, {trt.flavour} {trt.version}") as progress:
        known = timings.read_bytes() if timings.is_file() else b""
        built = build_engine(trt, graph, profile, int(facts.depth), known, progress)
    ahead = trt.flavour == "tensorrt-rtx"  # its plans are finished on the GPU that loads them
    manifest = Manifest(
        model_digest=checkpoint.digest,
        onnx_digest=graph.digest,
        tensorrt=trt.flavour,
        version=trt.version,
        gpu=AHEAD if ahead or gpu is None else gpu.name,
        compute_capability=profile.compute_capability,
        driver=AHEAD if ahead or gpu is None else gpu.driver,
        profile=profile.name,
        profile_digest=profile.digest,
        flavour=facts.flavour,
        precision=facts.precision,
        plan_digest=sha256(built.plan).hexdigest(),
        plan_bytes=built.plan.nbytes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fused=built.fusion.fused,
        depth=built.fusion.depth,
        build_seconds=round(built.seconds, 3),
        scratch_bytes=built.scratch,
    )
    path = store.publish(manifest, built.plan)
    if built.timing_cache is not None:
        _replace(timings, built.timing_cache)
    print(f"{path} ({built.plan.nbytes / MIB:.1f} MiB, {built.seconds:.1f} s, scratch {built.scratch / MIB:.0f} MiB, {built.fusion})")
    if not built.fusion.complete:
        print(f"glyph-rt: WARNING: only {built.fusion}; this engine will be slow and want gigabytes more", file=sys.stderr)
    print("not run yet: it must reproduce the golden pages where it is first loaded", file=sys.stderr)


def _exported(checkpoint: Checkpoint, kind: GraphKind) -> Path:
    """The graph of this kind, exported first when it is not there."""
    path = kind.path(checkpoint, default_store())
    if path.is_file():
        return path
    from glyph_rt.export.vision import export_vision

    print(f"exporting {kind.name} to {path}", file=sys.stderr)
    exported: Path = export_vision(checkpoint, default_store(), kind)
    return exported


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all: another build may be reading it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".timings-part-", delete=False) as part:
        part.write(data)
    Path(part.name).replace(path)


class _Bars:
    """TensorRT's outermost phase as a bar, with the phase it is in beside it."""

    def __init__(self, bar: Any, title: str) -> None:
        self.bar, self.title = bar, title
        self.task: Any = None
        self.outermost = ""

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        if parent is None:
            self.outermost = phase
            self.task = self.bar.add_task(self.title, total=steps)
        elif self.task is not None:
            self.bar.update(self.task, description=f"{self.title}: {phase}")

    def step(self, phase: str, step: int) -> bool:
        if phase == self.outermost:
            self.bar.update(self.task, completed=step + 1)
        return True

    def end(self, phase: str) -> None: ...


@contextmanager
def _bar(title: str) -> Iterator[Progress | None]:
    """A bar on standard error that disappears when it is done; nothing when that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        yield _Bars(bar, title)
