"""The vision tower as an ONNX graph for any number of pages of any size, with golden pages beside it."""

from __future__ import annotations

import errno
import fcntl
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
import torch
from glyph_rt.export.golden import ensure_golden
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import StoreError
from glyph_rt.vision.geometry import page_geometry
from glyph_rt.vision.golden import Golden, check
from glyph_rt.vision.graph import INPUTS, OUTPUT, GraphFacts, GraphKind, stages
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.torch_encoder import TorchEncoder
from glyph_rt.vision.tower import VisionTower

SAMPLE = (112, 84)  # px: the page the tower is traced with; pages and patches are dynamic in the graph
MAX_PROTO = 3 * 2**29  # bytes of weights inside the graph's file: protobuf stops at 2 GB, and torch itself draws the line here


def export_vision(checkpoint: Checkpoint, store: Path, kind: GraphKind | None = None) -> Path:
    """Write one graph of this checkpoint's tower into `store` (default: portable, fp32, grey) and return its path.

    The file appears whole or not at all. Above MAX_PROTO its weights are in a second file beside it. Only the vision tower's
    tensors are read; memory holds the fp32 tower while golden pages are made, and afterwards one tower in the graph's precision.
    Raises ModelError for a checkpoint without a usable tower, NonFiniteError when its golden pages are not finite, and ParityError when
    the tower does not reproduce them in the graph's precision: torch rounds every result to it, so what overflows shows here, before a
    graph is written, though not what another runtime's kernels make of it. An INT8 graph is held to them itself, by ONNX Runtime.
    StoreError when `store` cannot be written.
    """
    kind = kind or GraphKind()
    path = kind.path(checkpoint, store)
    try:
        golden = ensure_golden(checkpoint, store, kind.colour)
        encoder = TorchEncoder(checkpoint, precision=kind.float_precision)
        spell_out_attention(encoder.tower, kind)
        check(encoder, golden, kind.float_precision, large=False)
        if kind.precision == "int8":
            _prepare(encoder, checkpoint, kind.colour)
        program = trace(encoder.tower, encoder.table, kind)
        program.model.metadata_props.update(GraphFacts.of(kind, checkpoint, golden.digest).metadata())
        large = _weight_bytes(program) > MAX_PROTO
        with _workshop(store) as folder:
            part = folder / path.name
            program.save(part, external_data=large)
            if kind.precision == "int8":
                part = _quantized(part, checkpoint, encoder, golden, kind.colour, large)
            _publish(part, path)
    except OSError as error:
        hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see its permissions"
        raise StoreError(f"the graph cannot be written to {store} ({error.strerror}); {hint}, or choose another --out") from None
    return path


@contextmanager
def _workshop(store: Path) -> Iterator[Path]:
    """A folder to write in, gone afterwards. One export at a time has one, so that it can sweep what an export that was killed left."""
    with (store / ".export.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in store.glob(".export-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".export-") as folder:
            yield Path(folder)


def _publish(part: Path, path: Path) -> None:
    """Move a graph, and the weights beside it, where they are looked for."""
    data = Path(f"{path}.data")
    # The graph goes first and comes last: at no time does one stand beside the weights of another.
    path.unlink(missing_ok=True)
    data.unlink(missing_ok=True)
    if (part.parent / data.name).exists():
        (part.parent / data.name).replace(data)
    part.replace(path)


def _prepare(encoder: TorchEncoder, checkpoint: Checkpoint, colour: bool) -> None:
    """Have the tower's blocks lose less in INT8."""
    from glyph_rt.export.quantize import CalibrationPages
    from glyph_rt.export.smooth import smooth

    smooth(encoder.tower, (tuple(map(torch.from_numpy, feed.values())) for feed in CalibrationPages(checkpoint, encoder, colour)))


def _quantized(source: Path, checkpoint: Checkpoint, encoder: TorchEncoder, golden: Golden, colour: bool, large: bool) -> Path:
    """The graph at `source` in INT8, in a folder of its own; ParityError when that is too far from the oracle."""
    from glyph_rt.export.quantize import CalibrationPages, quantize

    depth = checkpoint.config.vision_config.depth
    folder = source.parent / "int8"
    folder.mkdir()
    quantize(source, folder / source.name, CalibrationPages(checkpoint, encoder, colour), depth, large)
    check(OnnxEncoder(checkpoint, folder / source.name), golden, "int8", large=False)
    return folder / source.name


def trace(tower: VisionTower, table: torch.Tensor, kind: GraphKind) -> torch.onnx.ONNXProgram:
    """The tower as an ONNX program, in memory. `table` is its position table, as load_tower gives it."""
    vision = tower.config
    geometry = page_geometry(*SAMPLE, table, vision.hidden_size // vision.num_heads, vision.rope_parameters["rope_theta"])
    spell_out_attention(tower, kind)
    patches = torch.zeros(2, len(geometry.positions), kind.patch_bytes, dtype=torch.uint8)
    pages = torch.export.Dim("pages", min=1, max=64)
    tokens = torch.export.Dim("visual_tokens", min=2, max=16384)
    per_patch = {0: 4 * tokens}  # a page has four patches for each visual token
    # torch warns of torchvision's operators, which nothing here needs, of its own deprecations, and that equal dimensions share a name.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            _Observed(tower),
            (patches, geometry.positions, geometry.cos, geometry.sin),
            dynamo=True,
            opset_version=kind.opset,
            input_names=list(INPUTS),
            output_names=[OUTPUT, *stages(vision.depth)],
            dynamic_shapes=({0: pages, 1: 4 * tokens}, per_patch, per_patch, per_patch),
            verbose=False,
        )
    assert program is not None  # only without dynamo
    del program.model.graph.outputs[1:]  # they keep their names, by which an encoder that is wrong is looked into
    _tidy(program.model)
    for node in program.model.graph:
        if node.op_type == "Attention":
            node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", ir.DataType.FLOAT.value)
    return program


def spell_out_attention(tower: VisionTower, kind: GraphKind) -> None:
    """As the graph will have it: in operators of its flavour."""
    for block in tower.blocks:
        block.attn.in_steps = kind.flavour == "portable"


class _Observed(torch.nn.Module):
    """The tower, whose residual stream is output too."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, patches: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
        stream = list(self.tower.stream(patches, positions, cos, sin))
        return self.tower.merge(stream[-1]), *stream


def _tidy(model: ir.Model) -> None:
    """Make the target of every Reshape a constant, 0 copying a dynamic dimension and -1 inferring one, and drop what is then unused.

    The exporter computes targets from the input's shape instead, in nodes that ONNX Runtime places on the CPU: with them, a session that
    forbids the CPU (onnx_cuda.py) could not open the graph.
    """
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None and source.shape is not None and result.shape is not None
        if len(result.shape) < 2:
            continue  # part of such a computation: unused in a moment
        target = [d if isinstance(d, int) else 0 if d == source.shape[i] else -1 for i, d in enumerate(result.shape)]
        assert target.count(-1) <= 1
        shape = ir.Value(name=f"{result.name}_shape", const_value=ir.tensor(target, ir.DataType.INT64))
        model.graph.register_initializer(shape)
        node.replace_input_with(1, shape)
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    RemoveUnusedNodesPass()(model)
    ClearMetadataAndDocStringPass()(model)  # each node's Python stack, with the paths of this machine


def _weight_bytes(program: torch.onnx.ONNXProgram) -> int:
    return sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value is not None)
