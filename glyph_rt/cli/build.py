"""`glyph-rt build`: a TensorRT engine for one box, into the engine store."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import BuildError, EncoderError, ParityError
from glyph_rt.memory.limits import MIB
from glyph_rt.vision import GpuUse, default_store
from glyph_rt.vision.device import open_device
from glyph_rt.vision.golden import Golden, check, explained, golden_path
from glyph_rt.vision.gpu import Gpu, find_gpu
from glyph_rt.vision.graph import GraphFacts, GraphKind
from glyph_rt.vision.manifest import AHEAD, Manifest
from glyph_rt.vision.parity import Parity
from glyph_rt.vision.store import DEFAULT_LIMIT, Engine, EngineStore, default_engines
from glyph_rt.vision.tensorrt_encoder import ObservedTensorRTEncoder, TensorRTEncoder
from glyph_rt.vision.trt_api import Progress, TensorRT, load

if TYPE_CHECKING:
    from glyph_rt.export.build import BuiltEngine
    from glyph_rt.export.graph_file import GraphFile
    from glyph_rt.export.profiles import Profile


@dataclass(frozen=True)
class BuildOptions:
    model: Path | None
    profile: str
    colour: bool = False
    onnx: Path | None = None
    out: Path | None = None
    limit: int = DEFAULT_LIMIT  # bytes
    use: GpuUse = field(default_factory=GpuUse)  # by the proof


def run(options: BuildOptions) -> None:
    """Everything that can be wrong with the request is found before the first second of building."""
    if importlib.util.find_spec("onnxscript") is None:
        raise BuildError("building needs onnx and onnxscript; install them with: pip install 'glyph-rt[export]'")
    from glyph_rt.export.build import check_target
    from glyph_rt.export.profiles import load_profile

    profile = load_profile(options.profile)
    trt, gpu = load(profile.tensorrt), find_gpu()
    check_target(trt, profile, gpu)
    job = _Job(options, trt, gpu, Checkpoint.open(options.model))
    try:
        job.build(profile)
    except ParityError as error:  # this model family can overflow in fp16; bf16 has fp32's range
        if profile.precision != "fp16" or options.onnx is not None:
            raise
        print(f"{error.report}\nglyph-rt: {error}; building in bf16 instead".lstrip(), file=sys.stderr)
        job.build(profile.model_copy(update={"precision": "bf16"}))


@dataclass(frozen=True)
class _Job:
    """One `glyph-rt build`: what stays the same whatever precision it ends up with."""

    options: BuildOptions
    trt: TensorRT
    gpu: Gpu | None
    checkpoint: Checkpoint

    def build(self, profile: Profile) -> None:
        """Export as needed, build, prove where the GPU is here, and publish. Raises ParityError, keeping nothing, when it is wrong."""
        from glyph_rt.export.build import build_engine
        from glyph_rt.export.graph_file import GraphFile

        trt, checkpoint = self.trt, self.checkpoint
        kind = GraphKind(profile.flavour, profile.precision, self.options.colour)
        graph = GraphFile.open(self.options.onnx or _exported(checkpoint, kind))
        facts = GraphFacts.read(graph.metadata, graph.path, checkpoint)
        if facts.kind != kind:
            raise BuildError(f"{graph.path} is {facts.kind.name}; profile {profile.name} wants {kind.name}")
        store = EngineStore(self.options.out or default_engines(), limit=self.options.limit)
        timings = store.root / f".timings-{trt.version}"  # TensorRT checks for itself whose they are
        with _bar(f"{profile.name}, {trt.flavour} {trt.version}") as progress:
            known = timings.read_bytes() if timings.is_file() else b""
            built = build_engine(trt, graph, profile, int(facts.depth), known, progress)
        manifest = self._manifest(profile, facts, graph.digest, built)
        if self.gpu is not None and self.gpu.compute_capability == profile.compute_capability:
            golden = Golden.load(golden_path(checkpoint, default_store(), kind.colour), checkpoint.digest)
            try:
                parity = prove(checkpoint, Engine(manifest, built.plan), trt, golden, self.options.use)
            except ParityError as error:
                raise self._explained(error, graph, profile, manifest, golden) from None
            manifest = dataclasses.replace(manifest, parity={"cosine": parity.cosine, "error": parity.error})
        path = store.publish(manifest, built.plan)
        if built.timing_cache is not None:
            _replace(timings, built.timing_cache)
        print(f"{path} ({built.plan.nbytes / MIB:.1f} MiB, {built.seconds:.1f} s, scratch {built.scratch / MIB:.0f} MiB, {built.fusion})")
        if not built.fusion.complete:
            print(f"glyph-rt: WARNING: only {built.fusion}; this engine will be slow and want gigabytes more", file=sys.stderr)
        if not manifest.parity:
            print("not run: this box lacks the GPU; it must reproduce the golden pages wherever it is loaded", file=sys.stderr)

    def _explained(self, error: ParityError, graph: GraphFile, profile: Profile, manifest: Manifest, golden: Golden) -> ParityError:
        """`error` with a report per block: of a second build that shows its residual stream, made for the golden page that failed alone."""
        from glyph_rt.export.build import build_engine
        from glyph_rt.export.profiles import of_page

        page = next(page for page in golden.pages if page.name == error.page)
        print(f"glyph-rt: {error}; building again to see at which block", file=sys.stderr)
        try:
            shown = build_engine(self.trt, graph, of_page(profile, page.width, page.height), manifest.depth, observed=True)
            encoder = ObservedTensorRTEncoder(self.checkpoint, Engine(manifest, shown.plan), self.trt, open_device(self.options.use))
        except EncoderError as problem:  # which is no reason to lose what is already known
            return ParityError(f"{error}; it could not be built again to be looked into ({problem})", error.page)
        return explained(error, encoder, page, profile.precision)

    def _manifest(self, profile: Profile, facts: GraphFacts, onnx_digest: str, built: BuiltEngine) -> Manifest:
        ahead = self.gpu is None or self.trt.flavour == "tensorrt-rtx"  # whose plans are finished on the GPU that loads them
        return Manifest(
            model_digest=self.checkpoint.digest,
            onnx_digest=onnx_digest,
            tensorrt=self.trt.flavour,
            version=self.trt.version,
            gpu=AHEAD if ahead or self.gpu is None else self.gpu.name,
            compute_capability=profile.compute_capability,
            driver=AHEAD if ahead or self.gpu is None else self.gpu.driver,
            profile=profile.name,
            profile_digest=profile.digest,
            flavour=facts.flavour,
            precision=facts.precision,
            colour=facts.kind.colour,
            plan_digest=sha256(built.plan).hexdigest(),
            plan_bytes=built.plan.nbytes,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fused=built.fusion.fused,
            depth=built.fusion.depth,
            build_seconds=round(built.seconds, 3),
            scratch_bytes=built.scratch,
        )


def prove(checkpoint: Checkpoint, engine: Engine, trt: TensorRT, golden: Golden, use: GpuUse | None = None) -> Parity:
    """Run a new engine on the golden pages. Raises ParityError, with the figures, when it does not reproduce them."""
    return check(TensorRTEncoder(checkpoint, engine, trt, open_device(use or GpuUse())), golden, engine.manifest.precision)


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
