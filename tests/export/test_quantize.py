"""Graphs in INT8: what is quantised and how, and that they are held to the golden pages as any other."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import glyph_rt.export.vision as export
import numpy as np
import onnx
import pytest
from glyph_rt.export import quantize
from glyph_rt.export.build import build_engine
from glyph_rt.export.graph_file import GraphFile
from glyph_rt.export.profiles import load_profile
from glyph_rt.export.vision import export_vision
from onnx import numpy_helper

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ParityError
from glyph_rt.vision.candidates import candidates
from glyph_rt.vision.golden import Golden, check, golden_path, look_into
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.parity import MAX_ERROR, MIN_COSINE
from glyph_rt.vision.select import trial
from glyph_rt.vision.trt_api import load
from tests.vision.parts import RED, probe

SLOW = [("portable", False), ("portable", True), ("modern", True)]
KINDS = [("modern", False), *(pytest.param(*kind, marks=pytest.mark.slow) for kind in SLOW)]
PRODUCTS = 4 * 2  # with weights: four in each of the reader's blocks


@pytest.mark.parametrize(("flavour", "colour"), KINDS)
def test_the_readers_blocks_are_quantised_and_pass_the_gate(tmp_path: Path, flavour: str, colour: bool) -> None:
    checkpoint, kind = Checkpoint.open(None), GraphKind(flavour, "int8", colour)
    path = export_vision(checkpoint, tmp_path, kind)
    model = onnx.load(path)
    assert {entry.domain for entry in model.opset_import} == {""}, "operators of ONNX's own, which TensorRT reads"
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    products = [
        node for node in model.graph.node if node.op_type == "MatMul" and made_by.get(node.input[1], node).op_type == "DequantizeLinear"
    ]
    assert len(products) == PRODUCTS
    for product in products:
        restored, weight = made_by[product.input[0]], made_by[product.input[1]]
        _, scale, zero = (constants.get(name) for name in restored.input)
        assert scale is not None and (scale.dtype, scale.size) == (np.float16, 1) and zero is not None and not zero.any()
        values, scales, zeros = (constants[name] for name in weight.input)
        assert values.dtype == np.int8 and scales.shape == zeros.shape == (values.shape[1],) and not zeros.any()
        assert np.abs(values.astype(int)).max() <= 127
    (candidate,) = [c for c in candidates(checkpoint, tmp_path) if c.precision == "int8"]
    found = trial(candidate, checkpoint, probe(RED if colour else "#000000"))
    print(f"{candidate.name}: lowest cosine {found.cosine:.6f}, largest error {found.error:.1e}")  # shown with -s: what the documents say
    assert not found.problem and found.cosine >= MIN_COSINE and 1e-3 < found.error <= MAX_ERROR["int8"]
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        profile = load_profile("rtx-4090").model_copy(update={"precision": "int8"})
        assert build_engine(load("tensorrt-rtx"), GraphFile.open(path), profile, 2).fusion.complete


def test_a_calibration_that_saw_too_little_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of blank pages alone: what text activates is beyond the range, and cut off."""
    feeds = quantize._feeds

    def blank(*arguments: Any) -> Iterator[dict[str, Any]]:
        for feed in feeds(*arguments):
            yield feed | {"patches": np.zeros_like(feed["patches"])}

    monkeypatch.setattr(quantize, "_feeds", blank)
    with pytest.raises(
        ParityError, match=r"onnx-modern-int8-grey encoder differs .* limits for int8 are 0.999 and 1e-01; the first to go off is"
    ):
        export_vision(Checkpoint.open(None), tmp_path, GraphKind("modern", "int8"))
    assert list(tmp_path.rglob("*.onnx")) == []


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_PROTO", 1000)
    checkpoint = Checkpoint.open(None)
    path = export_vision(checkpoint, tmp_path, GraphKind("modern", "int8"))
    assert path.stat().st_size < 100_000 < Path(f"{path}.data").stat().st_size
    golden = Golden.load(golden_path(checkpoint, tmp_path, False), checkpoint.digest)
    encoder = OnnxEncoder(checkpoint, path)
    check(encoder, golden, "int8")
    end = look_into(encoder, golden.pages[0], "int8").stages[-1]
    assert end.name == "visual_tokens" and end.sound("int8"), "its weights are found there too"
