"""Which encoder is used: only one that reproduces the golden pages, and of those the fastest measured."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from glyph_rt.export.vision import export_vision

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, EngineRefusedError, OptionError, ParityError
from glyph_rt.vision import open_encoder, select, tensorrt_encoder
from glyph_rt.vision.candidates import candidates
from glyph_rt.vision.golden import golden_path
from glyph_rt.vision.graph import GraphKind, graph_digest, graph_folder
from glyph_rt.vision.manifest import Manifest
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.store import EngineStore
from glyph_rt.vision.torch_encoder import TorchEncoder
from glyph_rt.vision.trt_api import TensorRT
from tests.vision.parts import GREY, RED, distance, pages_of, probe, stacked
from tests.vision.test_store import ADA, PLAN_BYTES, manifest

FP32, BF16 = GraphKind(), GraphKind("modern", "bf16")


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one fp32 graph."""
    path = tmp_path_factory.mktemp("store")
    export_vision(checkpoint, path, FP32)
    return path


@pytest.fixture
def store(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "store"))


def names(checkpoint: Checkpoint, store: Path) -> list[str]:
    return [candidate.name for candidate in candidates(checkpoint, store)]


def bend(path: Path) -> None:
    """Change one weight: the graph still opens, and only the golden pages can tell."""
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * 1.5).tobytes()
    onnx.save(model, path)


@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_without_an_export_the_oracle_is_used(checkpoint: Checkpoint, tmp_path: Path, choice: str) -> None:
    assert open_encoder(checkpoint, choice, probe(), tmp_path).name == "torch"
    assert open_encoder(checkpoint, choice, probe(), tmp_path / "none").name == "torch"


@pytest.mark.parametrize("choice", ["onnx", "onnx-portable", "onnx-portable-fp32-grey"])
def test_an_export_is_used_when_named(checkpoint: Checkpoint, store: Path, choice: str) -> None:
    encoder = open_encoder(checkpoint, choice, probe(), store)
    assert encoder.name == "onnx-portable-fp32-grey"
    pages = stacked(pages_of(280, 140, 2))
    assert distance(encoder.encode(pages, 280, 140), TorchEncoder(checkpoint).encode(pages, 280, 140)) < 1e-5


def test_naming_what_is_not_there_is_an_error(checkpoint: Checkpoint, store: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="choose one of: auto, torch, onnx"):
        open_encoder(checkpoint, "gpu", probe(), tmp_path)
    for empty in (tmp_path / "empty", tmp_path / "none"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(EncoderError, match="glyph-rt export"):
            open_encoder(checkpoint, "onnx", probe(), empty)
    with pytest.raises(EncoderError, match="answers to --encoder onnx-modern; make one with: glyph-rt export"):
        open_encoder(checkpoint, "onnx-modern", probe(), store)
    with pytest.raises(EncoderError, match=r"no engine .* answers to --encoder tensorrt; make one with: glyph-rt build --profile"):
        open_encoder(checkpoint, "tensorrt", probe(), store)


@pytest.mark.parametrize("fastest", ["torch", "onnx-portable-fp32-grey"])
def test_the_fastest_measured_is_chosen(checkpoint: Checkpoint, store: Path, monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
    monkeypatch.setattr(select, "seconds_per_page", lambda encoder, _: 1.0 if encoder.name == fastest else 2.0)
    assert open_encoder(checkpoint, "auto", probe(), store).name == fastest


def test_timings_are_remembered_until_something_changes(checkpoint: Checkpoint, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []
    monkeypatch.setattr(select, "seconds_per_page", lambda encoder, _: timed.append(encoder.name) or float(len(timed)))
    first = open_encoder(checkpoint, "auto", probe(), store).name
    assert timed == ["torch", "onnx-portable-fp32-grey"] == names(checkpoint, store)
    assert open_encoder(checkpoint, "auto", probe(), store).name == first and len(timed) == 2
    GraphKind().path(checkpoint, store).touch()  # as exporting again would
    open_encoder(checkpoint, "auto", probe(), store)
    assert len(timed) == 4
    open_encoder(checkpoint, "auto", select.ProbePage(stacked(pages_of(56, 56, 1)), 56, 56), store)
    assert len(timed) == 6
    surveys = graph_folder(checkpoint, store) / "surveys.json"
    assert len(json.loads(surveys.read_text())) == 3
    surveys.write_text('{"key": [{"no": "trial"}]}')  # broken: measured again
    open_encoder(checkpoint, "auto", probe(), store)
    assert len(timed) == 8


def test_a_graph_that_does_not_reproduce_the_golden_pages_is_refused(
    checkpoint: Checkpoint, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bend(FP32.path(checkpoint, store))
    figures = r"lowest cosine 0\.\d+, .*; the limits for fp32 are 0.999 and 1e-04"
    said = rf"differs from the torch oracle on golden page 'text': {figures}; the first to go off is \w+: "
    with pytest.raises(ParityError, match=said):
        open_encoder(checkpoint, "onnx", probe(), store)
    caplog.clear()
    assert open_encoder(checkpoint, "auto", probe(), store).name == "torch"
    assert "differs from the torch oracle" in caplog.text and "it is not used\ngolden page 'text', block by block" in caplog.text


def test_the_gate_holds_at_every_load_also_when_timings_are_remembered(
    checkpoint: Checkpoint, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(select, "seconds_per_page", lambda encoder, _: 2.0 if encoder.name == "torch" else 1.0)
    monkeypatch.setattr(select, "_survey_key", lambda *_: "the same")
    assert open_encoder(checkpoint, "auto", probe(), store).name.startswith("onnx")
    bend(FP32.path(checkpoint, store))
    with caplog.at_level(logging.WARNING):
        assert open_encoder(checkpoint, "auto", probe(), store).name == "torch"
    assert "differs from the torch oracle" in caplog.text


@pytest.mark.parametrize("spoil", ["missing", "truncated", "of other pages"])
def test_without_its_golden_pages_a_graph_is_not_used(checkpoint: Checkpoint, store: Path, spoil: str) -> None:
    path = golden_path(checkpoint, store, False)
    if spoil == "missing":
        path.unlink()
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    with pytest.raises(EncoderError, match="export"):
        open_encoder(checkpoint, "onnx", probe(), store)
    assert open_encoder(checkpoint, "auto", probe(), store).name == "torch"


def test_an_engine_without_a_gpu_is_passed_over(
    checkpoint: Checkpoint, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glyph_rt.vision.tensorrt_encoder.find_gpu", lambda _: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for model in (checkpoint.digest, "another model"):
        publish(store, manifest(PLAN_BYTES, model_digest=model, tensorrt="tensorrt-rtx", gpu="any", driver="any"))
    assert names(checkpoint, store)[2:] == ["tensorrt-rtx-modern-fp16-grey"]
    for choice in ("tensorrt", "tensorrt-rtx-modern-fp16-grey"):
        with pytest.raises(EncoderError, match="TensorRT needs an NVIDIA GPU"):
            open_encoder(checkpoint, choice, probe(), store)
    assert not open_encoder(checkpoint, "auto", probe(), store).name.startswith("tensorrt")


def test_an_engine_of_a_graph_that_was_exported_again_is_stale(
    checkpoint: Checkpoint, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    trt: Any = SimpleNamespace(__version__="10.16.1.11")
    monkeypatch.setattr(tensorrt_encoder, "find_gpu", lambda _: ADA)
    monkeypatch.setattr(tensorrt_encoder, "load", lambda _: TensorRT(trt, "tensorrt"))
    graph = FP32.path(checkpoint, store)
    of_graph = {"model_digest": checkpoint.digest, "flavour": "portable", "precision": "fp32"}

    def refusal() -> EncoderError:
        """Why the engine cannot serve; one that is as it should be fails later, since there is no GPU."""
        with pytest.raises(EncoderError) as caught:
            open_encoder(checkpoint, "tensorrt", probe(), store)
        return caught.value

    publish(store, manifest(PLAN_BYTES, onnx_digest=graph_digest(graph), **of_graph))
    assert "torch has no GPU here" in str(refusal())
    bend(graph)  # as exporting again with another version would
    stale = refusal()
    assert isinstance(stale, EngineRefusedError) and stale.reason == "stale"
    publish(store, manifest(PLAN_BYTES, onnx_digest=graph_digest(graph), **of_graph))
    assert names(checkpoint, store).count("tensorrt-portable-fp32-grey") == 1, "the stale one beside it is no candidate of its own"
    assert "torch has no GPU here" in str(refusal())
    graph.unlink()
    assert "torch has no GPU here" in str(refusal())


def publish(store: Path, made: Manifest) -> None:
    EngineStore(store / "tensorrt").publish(made, memoryview(PLAN_BYTES))


def test_foreign_old_and_broken_graphs_are_refused(checkpoint: Checkpoint, store: Path, tmp_path: Path) -> None:
    model = onnx.load(FP32.path(checkpoint, store))
    props = {entry.key: entry.value for entry in model.metadata_props}
    for change, message in (
        ({"glyph_rt.model_digest": "of another"}, "exported from another checkpoint"),
        ({"glyph_rt.exporter": "1"}, "not written by this version"),
    ):
        onnx.helper.set_model_props(model, props | change)
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(EncoderError, match=message):
            OnnxEncoder(checkpoint, tmp_path / "changed.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07not a graph")
    with pytest.raises(EncoderError, match="cannot open"):
        OnnxEncoder(checkpoint, tmp_path / "broken.onnx")


def test_a_style_with_colour_needs_a_graph_with_colour(checkpoint: Checkpoint, store: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="grey pages only"):
        OnnxEncoder(checkpoint, FP32.path(checkpoint, store)).encode(stacked(pages_of(280, 140, 1, RED)), 280, 140)
    assert open_encoder(checkpoint, "auto", probe(RED), store).name == "torch"


def test_a_graph_with_colour_also_takes_grey_pages(checkpoint: Checkpoint, tmp_path: Path) -> None:
    export_vision(checkpoint, tmp_path, GraphKind(colour=True))
    encoder = open_encoder(checkpoint, "onnx", probe(RED), tmp_path)
    for colour in (GREY, RED):
        pages = stacked(pages_of(280, 140, 2, colour))
        assert distance(encoder.encode(pages, 280, 140), TorchEncoder(checkpoint).encode(pages, 280, 140)) < 1e-5


def test_bf16_is_torchs_here_since_onnx_runtime_cannot_run_it(checkpoint: Checkpoint, store: Path) -> None:
    export_vision(checkpoint, store, BF16)
    assert names(checkpoint, store) == ["torch", "onnx-portable-fp32-grey", "onnx-modern-bf16-grey", "torch-bf16"]
    with pytest.raises(EncoderError, match="ONNX Runtime cannot open"):
        open_encoder(checkpoint, "onnx-modern-bf16", probe(), store)
    encoder = open_encoder(checkpoint, "torch-bf16", probe(), store)
    pages = stacked(pages_of(280, 140, 2))
    assert 1e-4 < distance(encoder.encode(pages, 280, 140), TorchEncoder(checkpoint).encode(pages, 280, 140)) < 0.1
