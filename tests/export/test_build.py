"""Building engines, for real: TensorRT for RTX builds without a GPU. Skipped where it is not installed."""

from __future__ import annotations

import dataclasses
import logging
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from glyph_rt.export.build import BuiltEngine, Fusion, build_engine, check_target
from glyph_rt.export.graph_file import GraphFile
from glyph_rt.export.profiles import Profile, load_profile, of_page
from glyph_rt.export.vision import trace

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import BuildError
from glyph_rt.vision.gpu import Gpu
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.torch_encoder import DTYPES, VISION_PREFIX
from glyph_rt.vision.tower import load_tower
from glyph_rt.vision.trt_api import TensorRT, load

pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed: pip install 'glyph-rt[rtx]'")
DEPTH = 2  # of the embedded reader's tower


@pytest.fixture(scope="module")
def trt() -> TensorRT:
    return load("tensorrt-rtx")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("rtx-4090")


def graph(folder: Path, flavour: str, precision: str, colour: bool = False) -> GraphFile:
    """The embedded reader's tower as it is exported, without golden pages."""
    checkpoint = Checkpoint.open(None)
    tower, table = load_tower(checkpoint.config.vision_config, checkpoint.tensors(VISION_PREFIX), DTYPES[precision])
    path = folder / f"{flavour}-{precision}.onnx"
    trace(tower, table, GraphKind(flavour, precision, colour)).save(path)
    return GraphFile.open(path)


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    return graph(tmp_path_factory.mktemp("onnx"), "modern", "fp16")


@pytest.fixture(scope="module")
def engine(trt: TensorRT, profile: Profile, modern: GraphFile) -> BuiltEngine:
    return build_engine(trt, modern, profile, DEPTH)


def test_the_readers_tower_builds_with_every_attention_fused(engine: BuiltEngine) -> None:
    assert engine.fusion.complete and str(engine.fusion) == "2 of 2 attentions fused"
    assert len(engine.plan) > 1_000_000  # in bytes: TensorRT's own buffer says that it holds floats
    assert 0 < engine.scratch < 300 * 2**20  # two pages of 20,976 patches, whose scores alone would be 1.7 GB a head
    assert engine.timing_cache is None  # TensorRT for RTX keeps none


def test_fusion_is_counted_beside_another_builder_that_lives(trt: TensorRT, profile: Profile, modern: GraphFile) -> None:
    """TensorRT takes no second logger while anything made with the first one lives: a loaded encoder, or a build that failed."""
    living = trt.builder(trt.logger())
    assert build_engine(trt, modern, of_page(profile, 280, 140), DEPTH).fusion.complete
    assert living is not None


def test_fp32_is_built_unfused_and_loudly(trt: TensorRT, profile: Profile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Portable, since fp32 `Attention` has no kernel at all; with room for the scores that are written to memory."""
    small = profile.model_copy(update={"shapes": load_profile("orin-agx").shapes, "workspace": 8 * 2**30})
    with caplog.at_level(logging.WARNING):
        built = build_engine(trt, graph(tmp_path, "portable", "fp32"), small, DEPTH)
    assert built.fusion.fused == 0
    assert "only 0 of 2 attentions fused" in caplog.text


def test_too_small_a_workspace_is_an_error_in_tensorrts_words(trt: TensorRT, profile: Profile, modern: GraphFile) -> None:
    with pytest.raises(BuildError, match=r"cannot build modern-fp16\.onnx for rtx-4090: .{20}"):
        build_engine(trt, modern, profile.model_copy(update={"workspace": 2**20}), DEPTH)


def test_what_is_no_graph_of_ours_is_refused(trt: TensorRT, profile: Profile, modern: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="glyph-rt export"):
        GraphFile.open(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07not a graph")
    with pytest.raises(BuildError, match="cannot be read as an ONNX graph"):
        GraphFile.open(tmp_path / "broken.onnx")
    with pytest.raises(BuildError, match=r"cannot read .*modern-fp16\.onnx"):
        build_engine(trt, dataclasses.replace(modern, model=modern.model[:1000]), profile, DEPTH)
    model = onnx.load_from_string(modern.model)
    model.graph.input[1].name = "places"
    for node in model.graph.node:
        node.input[:] = ["places" if name == "positions" else name for name in node.input]
    with pytest.raises(BuildError, match="has the inputs patches, places"):
        build_engine(trt, dataclasses.replace(modern, model=model.SerializeToString()), profile, DEPTH)


def test_every_range_of_shapes_is_counted(trt: TensorRT, profile: Profile, modern: GraphFile, engine: BuiltEngine) -> None:
    built = build_engine(trt, modern, profile.model_copy(update={"shapes": load_profile("h200").shapes}), DEPTH)
    assert built.fusion.complete and len(built.fusion.kernels) == 2 * DEPTH


@pytest.mark.slow
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("flavour", ["modern", "portable"])
def test_every_kind_of_graph_fuses(trt: TensorRT, profile: Profile, tmp_path: Path, flavour: str, precision: str, colour: bool) -> None:
    assert build_engine(trt, graph(tmp_path, flavour, precision, colour), profile, DEPTH).fusion.complete


def test_a_build_to_be_looked_into_shows_its_stream(
    trt: TensorRT, profile: Profile, modern: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    module = trt.module
    mark = module.INetworkDefinition.mark_output

    def recorded(network: Any, tensor: Any) -> None:
        shown.append(tensor.name)
        mark(network, tensor)

    monkeypatch.setattr(module.INetworkDefinition, "mark_output", recorded)
    built = build_engine(trt, modern, of_page(profile, 280, 140), DEPTH, observed=True)
    assert shown == ["embedding", "block_0", "block_1"] and len(built.plan) > 1_000_000
    shown.clear()
    build_engine(trt, modern, of_page(profile, 280, 140), DEPTH)
    assert shown == []


def test_a_graphs_identity_covers_the_weights_beside_it(modern: GraphFile, tmp_path: Path) -> None:
    path = tmp_path / "vision.onnx"
    path.write_bytes(modern.path.read_bytes())
    alone = GraphFile.open(path).digest
    assert alone == modern.digest
    Path(f"{path}.data").write_bytes(b"weights")
    assert GraphFile.open(path).digest != alone


class Counting:
    """A Progress that counts, and stops or fails at a step."""

    def __init__(self, stop_at: int = -1, fail_at: int = -1) -> None:
        self.phases: list[tuple[str, str | None, int]] = []
        self.steps = 0
        self.ended = 0
        self.stop_at, self.fail_at = stop_at, fail_at

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        self.phases.append((phase, parent, steps))

    def step(self, phase: str, step: int) -> bool:
        self.steps += 1
        if self.steps == self.fail_at:
            raise RuntimeError("the bar broke")
        return self.steps != self.stop_at

    def end(self, phase: str) -> None:
        self.ended += 1


def test_progress_is_told_of_every_phase(trt: TensorRT, profile: Profile, modern: GraphFile) -> None:
    progress = Counting()
    build_engine(trt, modern, profile, DEPTH, progress=progress)
    assert progress.phases[0] == ("Building engine", None, 6)
    assert progress.steps > 100 and progress.ended == len(progress.phases)


def test_a_build_can_be_cancelled_and_a_broken_bar_is_no_crash(trt: TensorRT, profile: Profile, modern: GraphFile) -> None:
    with pytest.raises(BuildError, match="cancelled"):
        build_engine(trt, modern, profile, DEPTH, progress=Counting(stop_at=5))
    with pytest.raises(RuntimeError, match="the bar broke"):
        build_engine(trt, modern, profile, DEPTH, progress=Counting(fail_at=5))


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from glyph_rt.export.build import NoProgress, build_engine
from glyph_rt.export.graph_file import GraphFile
from glyph_rt.export.profiles import load_profile
from glyph_rt.vision.trt_api import load

class Slow(NoProgress):
    steps = 0
    def step(self, phase, step):
        self.steps += 1
        if self.steps == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)  # for the main thread to hear of it
        return True

slow = Slow()
try:
    build_engine(load("tensorrt-rtx"), GraphFile.open(Path(sys.argv[1])), load_profile("rtx-4090"), 2, progress=slow)
except KeyboardInterrupt:
    print(slow.steps)
"""


def test_ctrl_c_stops_a_build(modern: GraphFile) -> None:
    """The first of some 700 steps sends the signal; without cancelling, all others come behind it."""
    run = [sys.executable, "-c", INTERRUPTED, str(modern.path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600, check=False, preexec_fn=restore_interrupt)
    assert 0 < int(done.stdout or 0) < 350, done.stderr


def restore_interrupt() -> None:
    """A job in the background of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_fusion_is_the_worst_of_the_optimisation_profiles() -> None:
    one = "Name: _gemm_mha_v2_myl0_7, LayerType: kgen\nName: _gemm_mha_v2_myl0_17, LayerType: kgen\n"
    other = "Name: _gemm_mha_v2_myl1_6, LayerType: kgen\n"
    assert Fusion.of(one + one, 2, 1).complete
    assert not Fusion.of(one + other, 2, 2).complete
    assert Fusion.of(one + other, 2, 2).fused == 1
    assert Fusion.of("Name: softmax_3, LayerType: kgen", 2, 1).fused == 0


def test_a_target_that_cannot_be_built_is_refused_before_any_work(trt: TensorRT) -> None:
    h200, ada = Gpu("NVIDIA H200", "9.0", "580.65.06"), Gpu("NVIDIA L4", "8.9", "580.65.06")
    check_target(trt, load_profile("rtx-4090"), None)  # ahead of time
    full: Any = TensorRT(SimpleNamespace(__version__="11.4.0.106"), "tensorrt")
    check_target(full, load_profile("h200"), h200)
    with pytest.raises(BuildError, match="this box has no working GPU"):
        check_target(full, load_profile("h200"), None)
    with pytest.raises(BuildError, match=r"compute capability 9\.0.* has NVIDIA L4 \(8\.9\)"):
        check_target(full, load_profile("h200"), ada)
    jetpack6 = TensorRT(SimpleNamespace(__version__="10.3.0"), "tensorrt")
    with pytest.raises(BuildError, match="flavour: portable"):
        check_target(jetpack6, load_profile("thor"), None)


def test_a_target_tensorrt_for_rtx_lacks_is_refused(trt: TensorRT, modern: GraphFile) -> None:
    hopper = load_profile("rtx-4090").model_copy(update={"compute_capability": "9.0"})
    with pytest.raises(BuildError, match=r"no target for compute capability 9\.0"):
        build_engine(trt, modern, hopper, DEPTH)
