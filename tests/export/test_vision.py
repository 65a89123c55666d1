"""What `glyph-rt export` writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import glyph_rt.export.vision as export
import numpy as np
import onnx
import pytest
import torch
from glyph_rt.export.golden import drawn_pages

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import OptionError, StoreError
from glyph_rt.vision.golden import Golden, check, golden_path
from glyph_rt.vision.graph import INPUTS, OUTPUT, GraphKind
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.torch_encoder import TorchEncoder
from tests.vision.parts import TINY, distance, random_tower

FLOAT, FLOAT16, BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("flavour", ["portable", "modern"])
def test_matrices_are_half_and_norms_rope_and_softmax_are_fp32(checkpoint: Checkpoint, store: Path, flavour: str, precision: str) -> None:
    model = onnx.load(export.export_vision(checkpoint, store, GraphKind(flavour, precision)))
    onnx.checker.check_model(model, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    half = FLOAT16 if precision == "fp16" else BFLOAT16
    inputs = {
        node.op_type: {types.get(name) for n in model.graph.node if n.op_type == node.op_type for name in n.input[:1]}
        for node in model.graph.node
    }
    depth = checkpoint.config.vision_config.depth
    if flavour == "modern":
        attention = [node for node in model.graph.node if node.op_type == "Attention"]
        assert len(attention) == depth
        assert all(types[name] == half for node in attention for name in node.input[:3])
        assert all({a.name: a.i for a in node.attribute}["softmax_precision"] == FLOAT for node in attention)
        assert inputs["RMSNormalization"] == {FLOAT}
    else:
        assert Counter(node.op_type for node in model.graph.node)["Softmax"] == depth
        assert inputs["Softmax"] == inputs["ReduceMean"] == {FLOAT}
    assert inputs["LayerNormalization"] == {FLOAT}
    first = next(node for node in model.graph.node if node.op_type == "MatMul")
    assert types[first.output[0]] == FLOAT, "the patch embedding"
    assert half in {t.data_type for t in model.graph.initializer if len(t.dims) == 2}
    assert model.graph.output[0].type.tensor_type.elem_type == half


def test_a_graph_says_what_it_is_and_computes_no_shapes(checkpoint: Checkpoint, store: Path) -> None:
    kind = GraphKind("modern", "fp32", colour=True)
    path = export.export_vision(checkpoint, store, kind)
    assert path.name == "vision-modern-fp32-colour.onnx" and path.parent.name == checkpoint.digest[:16]
    model = onnx.load(path)
    said = {entry.key.removeprefix("glyph_rt."): entry.value for entry in model.metadata_props}
    golden = Golden.load(golden_path(checkpoint, store, True), checkpoint.digest)
    assert said == {
        "model_digest": checkpoint.digest, "flavour": "modern", "precision": "fp32", "channels": "3", "patch_bytes": "588", "hidden": "64",
        "heads": "2", "head_dim": "32", "depth": "2", "out_hidden": "128", "golden_digest": golden.digest, "exporter": "3",
    }  # fmt: skip
    assert [i.name for i in model.graph.input] == list(INPUTS) and [o.name for o in model.graph.output] == [OUTPUT]
    assert not {"Shape", "Gather", "Range"} & {node.op_type for node in model.graph.node}
    assert OnnxEncoder(checkpoint, path).facts.kind == kind


def test_golden_pages_are_drawn_encoded_and_kept(checkpoint: Checkpoint, store: Path) -> None:
    export.export_vision(checkpoint, store, GraphKind())
    path = golden_path(checkpoint, store, False)
    before, golden = path.read_bytes(), Golden.load(path, checkpoint.digest)
    assert [page.name for page in golden.pages] == ["text", "dense", "blank"]
    ink = {page.name: float(page.patches.mean()) for page in golden.pages}
    assert ink["blank"] == 0 < ink["text"] < ink["dense"]
    parity = check(TorchEncoder(checkpoint), golden, "fp32")
    assert parity.error < 1e-6 and parity.cosine > 0.999999
    export.export_vision(checkpoint, store, GraphKind("modern"))
    assert path.read_bytes() == before, "a second graph is held to the same pages"
    colour = drawn_pages(checkpoint, True)["dense"]
    assert colour.patches.shape[1] == 588 and not np.array_equal(colour.patches[:, :196], colour.patches[:, 196:392])


def test_large_weights_lie_beside_the_graph(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_PROTO", 1000)
    path = export.export_vision(checkpoint, tmp_path)
    before = path.read_bytes()
    export.export_vision(checkpoint, tmp_path)
    assert path.read_bytes() == before, "the same checkpoint gives the same graph, also over one that is there"
    assert str(Path(export.__file__).parents[1]).encode() not in before, "no path of this machine"
    assert sorted(file.name for file in path.parent.iterdir()) == ["golden-grey.safetensors", path.name, path.name + ".data"]
    assert path.stat().st_size < 100_000 < Path(f"{path}.data").stat().st_size
    golden = Golden.load(golden_path(checkpoint, tmp_path, False), checkpoint.digest)
    check(OnnxEncoder(checkpoint, path), golden, "fp32")
    monkeypatch.undo()
    export.export_vision(checkpoint, tmp_path)
    assert not Path(f"{path}.data").exists()


def test_an_export_that_fails_leaves_what_was_there(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export.export_vision(checkpoint, tmp_path)
    before = path.read_bytes()
    (tmp_path / ".export-of-one-that-was-killed").mkdir()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(StoreError, match=r"cannot be written .*No space left on device.*; free some space, or choose another --out"):
        export.export_vision(checkpoint, tmp_path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["golden-grey.safetensors", path.name]
    assert list(tmp_path.glob(".export-*")) == []


def test_only_the_vision_towers_tensors_are_read(tmp_path: Path) -> None:
    """This checkpoint has no others, and no style: its pages are glyph-en-72's."""
    checkpoint, _ = random_tower(tmp_path / "model", TINY)
    path = export.export_vision(checkpoint, tmp_path / "store")
    golden = Golden.load(golden_path(checkpoint, tmp_path / "store", False), checkpoint.digest)
    assert {(page.width % 28, page.height % 28) for page in golden.pages} == {(0, 0)}
    assert max(len(page.patches) for page in golden.pages) > 2000 and all(len(page.rows) <= 64 for page in golden.pages)
    page = golden.pages[1]
    found = OnnxEncoder(checkpoint, path).encode(page.patches[None], page.width, page.height)[0, torch.from_numpy(page.rows)]
    assert distance(found, torch.from_numpy(page.tokens)) < 1e-4


@pytest.mark.parametrize(
    ("wrong", "said"), [({"flavour": "classic"}, "portable, modern"), ({"precision": "int4"}, "fp32, fp16, bf16, int8")]
)
def test_unknown_variants_are_named_with_those_there_are(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        GraphKind(**wrong)
