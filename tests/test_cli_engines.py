"""`glyph-rt build` and `glyph-rt engines`, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.cli import build
from glyph_rt.errors import ParityError
from glyph_rt.vision.gpu import Gpu
from glyph_rt.vision.parity import Parity
from glyph_rt.vision.store import Engine, EngineStore
from glyph_rt.vision.torch_encoder import TorchEncoder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's empty cache and configuration."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def glyph_rt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from glyph_rt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_engine_is_built_listed_verified_refused_and_pruned(home: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed: pip install 'glyph-rt[rtx]'")
    done = glyph_rt("build", "--profile", "rtx-4090d")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 attentions fused" in done.stdout and "not run: this box lacks the GPU" in done.stderr
    entry = Path(done.stdout.split()[0])
    assert entry.parent == home / "cache/glyph-rt/engines/tensorrt"
    assert (home / "config/glyph-rt/engine.key").stat().st_mode & 0o777 == 0o600

    listed = glyph_rt("engines", "list").stdout
    assert entry.name in listed and "8.9 (any such GPU), modern-fp16-grey" in listed and "1 engines" in listed
    assert f"{entry.name}  sound" in glyph_rt("engines", "verify").stdout
    (entry / "engine.plan").write_bytes(b"tampered")
    verified = glyph_rt("engines", "verify")
    assert verified.returncode == 1
    assert "truncated" in verified.stdout and "1 engines would be refused" in verified.stderr
    assert f"removed {entry.name}" in glyph_rt("engines", "prune").stdout
    assert not entry.exists()


@pytest.mark.slow
def test_an_engine_that_overflows_in_fp16_is_built_in_bf16_and_it_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a box that has the GPU, whose engine fails the golden pages in fp16."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed: pip install 'glyph-rt[rtx]'")

    shown: list[Engine] = []

    def prove(_: object, engine: Engine, *__: object) -> Parity:
        if engine.manifest.precision == "fp16":
            raise ParityError("the encoder produces NaN or infinity on golden page 'text'", "text")
        return Parity(0.9995, 1e-2)

    def looked_into(checkpoint: Checkpoint, engine: Engine, *_: object) -> TorchEncoder:
        shown.append(engine)
        encoder = TorchEncoder(checkpoint, precision="fp16")
        encoder.tower.blocks[1].norm1.weight.data = encoder.tower.blocks[1].norm1.weight * float("inf")
        return encoder

    monkeypatch.setattr(build, "find_gpu", lambda: Gpu("NVIDIA GeForce RTX 4090", "8.9", "580.65.06"))
    monkeypatch.setattr(build, "prove", prove)
    monkeypatch.setattr(build, "open_device", lambda _: None)
    monkeypatch.setattr(build, "ObservedTensorRTEncoder", looked_into)
    build.run(build.BuildOptions(None, "rtx-4090"))
    said = capsys.readouterr().err
    assert len(shown) == 1, "it was built a second time, to be looked into"
    assert "NaN or infinity on golden page 'text'; the first to go off is block_1: " in said and "  ! block_1: " in said
    assert said.count("building in bf16 instead") == 1
    (entry,) = EngineStore(home / "cache/glyph-rt/engines/tensorrt").entries()
    assert entry.manifest is not None
    assert (entry.manifest.precision, entry.manifest.fused, entry.manifest.parity) == ("bf16", 2, {"cosine": 0.9995, "error": 1e-2})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "--profile", "gtx-1080"], 2, "no engine profile 'gtx-1080'"),
        (["build"], 2, "--profile"),
        (["build", "--profile", "rtx-4090", "--device", "jax"], 2, "choose one of: auto, torch, pycuda"),
        (["build", "--profile", "rtx-4090", "--limit", "much"], 2, "is not a size"),
        (["engines", "prune", "--limit", "much"], 2, "is not a size"),
    ],
)
def test_a_wrong_request_is_one_line(home: Path, arguments: list[str], code: int, message: str) -> None:
    done = glyph_rt(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_an_empty_store_is_listed_and_verified(home: Path) -> None:
    assert "0 engines" in glyph_rt("engines", "list").stdout
    assert glyph_rt("engines", "verify").returncode == 0
