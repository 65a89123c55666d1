"""Weights that are wrong, or too large for FP16: found at export, at build and at load, and what serves in their place."""

from __future__ import annotations

from pathlib import Path

import glyph_rt.export.vision as export
import pytest
import torch
from glyph_rt.export.golden import ensure_golden
from safetensors.torch import save_file

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.cli import export as command
from glyph_rt.errors import NonFiniteError, ParityError
from glyph_rt.vision import open_encoder
from glyph_rt.vision.golden import check
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.torch_encoder import TorchEncoder
from tests.vision.parts import probe, random_tower

SIZE = {"hidden_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 96, "intermediate_size": 64}
WEIGHTS, ACTIVATIONS = 2.0**24, 2.0**15  # factors at which weights are beyond FP16, or only what is computed with them


def overflowing(tmp_path: Path, factor: float, block: int = 1) -> Checkpoint:
    """A tower that is the same function for every factor: what one matrix of a block is multiplied by, the next is divided by."""
    checkpoint, _ = random_tower(tmp_path / "model", SIZE)
    tensors = dict(checkpoint.tensors(""))
    tensors[f"model.visual.blocks.{block}.mlp.up_proj.weight"] *= factor
    tensors[f"model.visual.blocks.{block}.mlp.down_proj.weight"] /= factor
    return rewritten(tensors, checkpoint)


def rewritten(tensors: dict[str, torch.Tensor], checkpoint: Checkpoint) -> Checkpoint:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, checkpoint.path / "model.safetensors")
    return Checkpoint.open(checkpoint.path)


def graphs(store: Path) -> list[str]:
    return sorted(path.name for path in store.rglob("*.onnx"))


@pytest.mark.parametrize("factor", [WEIGHTS, ACTIVATIONS])
def test_what_overflows_fp16_is_not_exported_and_the_block_is_named(tmp_path: Path, factor: float) -> None:
    checkpoint, store = overflowing(tmp_path, factor), tmp_path / "store"
    said = r"the torch-fp16 encoder produces NaN or infinity on golden page 'text'; the first to go off is block_1: "
    with pytest.raises(ParityError, match=said) as caught:
        export.export_vision(checkpoint, store, GraphKind("modern", "fp16"))
    marked = [line.split(":")[0] for line in caught.value.report.splitlines()[1:]]
    assert marked == ["    embedding", "    block_0", "  ! block_1", "  ! visual_tokens"]
    assert graphs(store) == []
    check(TorchEncoder(checkpoint, precision="bf16"), ensure_golden(checkpoint, store, False), "bf16")


def test_the_command_exports_bf16_in_its_place_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, store = overflowing(tmp_path, ACTIVATIONS), tmp_path / "store"
    command.run(checkpoint.path, store, GraphKind("modern", "fp16"))
    assert graphs(store) == ["vision-modern-bf16-grey.onnx"]
    out, err = capsys.readouterr()
    assert "vision-modern-bf16-grey.onnx" in out
    assert "block by block" in err and err.rstrip().endswith("exporting in bf16 instead")


@pytest.mark.parametrize("flavour", ["portable", "modern"])
def test_a_graph_that_overflows_at_load_is_refused_and_the_next_serves(
    tmp_path: Path, flavour: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that passed where it was exported, and meets other kernels here."""
    checkpoint, store = overflowing(tmp_path, WEIGHTS), tmp_path / "store"
    monkeypatch.setattr(export, "check", lambda *_, **__: None)
    export.export_vision(checkpoint, store, GraphKind(flavour, "fp16"))
    said = f"onnx-{flavour}-fp16-grey encoder produces NaN or infinity on golden page 'text'; the first to go off is block_1"
    with pytest.raises(ParityError, match=said):
        open_encoder(checkpoint, "onnx", probe(), store)
    caplog.clear()
    assert open_encoder(checkpoint, "auto", probe(), store).name == "torch"
    assert f"onnx-{flavour}-fp16-grey" in caplog.text and "it is not used\ngolden page 'text', block by block" in caplog.text


def test_weights_with_nan_are_not_exported(tmp_path: Path) -> None:
    checkpoint, _ = random_tower(tmp_path / "model", SIZE)
    tensors = dict(checkpoint.tensors(""))
    tensors["model.visual.blocks.0.attn.qkv.weight"][0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        export.export_vision(rewritten(tensors, checkpoint), tmp_path / "store")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
