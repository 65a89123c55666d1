"""What only a GPU can show. Skipped where there is none, which so far is everywhere it was run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from glyph_rt.export.golden import ensure_golden
from glyph_rt.export.vision import export_vision

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import BuildError
from glyph_rt.vision.device import GpuUse, open_device
from glyph_rt.vision.golden import check, look_into
from glyph_rt.vision.gpu import find_gpu
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.onnx_cuda import OnnxCudaEncoder
from glyph_rt.vision.parity import Parity
from glyph_rt.vision.store import Engine
from glyph_rt.vision.tensorrt_encoder import TensorRTEncoder
from glyph_rt.vision.torch_encoder import TorchEncoder
from glyph_rt.vision.trt_api import TensorRT, available
from tests.vision.fake_tensorrt import FakeTensorRT, StandInDevice
from tests.vision.parts import golden_page, pages_of, stacked
from tests.vision.test_store import manifest

GPU = find_gpu()
pytestmark = pytest.mark.skipif(GPU is None or not torch.cuda.is_available(), reason="this box has no working GPU")


@pytest.mark.parametrize("library", ["torch", "pycuda"])
def test_a_device_keeps_its_contract(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    device = open_device(GpuUse(library))
    with device.active():
        free, total = device.memory()
        assert 0 < free <= total
        source, target, buffer = device.pinned(1000), device.pinned(1000), device.allocate(1000)
        assert buffer.address % 256 == 0 and buffer.size == 1000
        stream, done = device.stream(), device.event()
        done.synchronize()  # never recorded: at once
        source.array[:] = np.arange(1000, dtype=np.uint16).astype(np.uint8)
        device.upload(source, buffer, 1000, stream)
        device.download(buffer, target, 1000, stream)
        done.record(stream)
        done.synchronize()
        assert (target.array == source.array).all()
        stream.synchronize()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_encoder_runs_with_torch_in_place_of_the_engine(precision: str) -> None:
    """Streams, events, CUDA graphs, pinned memory filled while the GPU works: everything of the TensorRT encoder but TensorRT."""
    checkpoint = Checkpoint.open(None)
    oracle, device = TorchEncoder(checkpoint), StandInDevice()
    tower = TorchEncoder(checkpoint, "cuda", precision).tower
    dtype = {"fp16": FakeTensorRT.DataType.HALF, "bf16": FakeTensorRT.DataType.BF16}[precision]
    trt = TensorRT(FakeTensorRT(device, tower, [((1, 8), (3, 2520))], dtype=dtype), "tensorrt")
    encoder = TensorRTEncoder(checkpoint, Engine(manifest(b"", precision=precision), memoryview(b"")), trt, device)
    for width, height, count in [(280, 140, 8), (280, 140, 7), (588, 840, 4), (140, 280, 3), (280, 140, 8)]:
        patches = stacked(pages_of(width, height, count))
        for _ in range(3):  # as it is, captured, replayed
            parity = Parity.of(encoder.encode(patches, width, height).flatten(0, 1), oracle.encode(patches, width, height).flatten(0, 1))
            assert parity.within(precision), f"{count} pages of {width} x {height} px: {parity}"
    assert device.captured >= 4
    page = golden_page("text", stacked(pages_of(280, 140, 1))[0], 280, 140, oracle)
    assert look_into(TorchEncoder(checkpoint, "cuda", precision), page, precision).first_off is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("flavour", ["modern", "portable"])
def test_onnx_runtime_on_cuda_reproduces_the_golden_pages(flavour: str, precision: str, tmp_path: Path) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    checkpoint = Checkpoint.open(None)
    path = export_vision(checkpoint, tmp_path, GraphKind(flavour, precision))
    encoder = OnnxCudaEncoder(checkpoint, path, GpuUse(workspace=1 << 30))
    golden = ensure_golden(checkpoint, tmp_path, colour=False)
    check(encoder, golden, precision)
    assert look_into(encoder, golden.pages[0], precision).first_off is None


@pytest.mark.parametrize("flavour", ["modern", "portable"])
def test_the_readers_engine_reproduces_the_golden_pages(flavour: str, tmp_path: Path) -> None:
    """Imports what builds here, so that a machine without it still runs the tests above."""
    pytest.importorskip("pydantic")
    from glyph_rt.export.build import build_engine
    from glyph_rt.export.graph_file import GraphFile
    from glyph_rt.export.profiles import load_profile

    from glyph_rt.cli.build import prove

    assert GPU is not None
    checkpoint = Checkpoint.open(None)
    graph = GraphFile.open(export_vision(checkpoint, tmp_path, GraphKind(flavour, "fp16")))
    profile = load_profile("rtx-4090").model_copy(update={"compute_capability": GPU.compute_capability})
    for trt in available():
        try:
            built = build_engine(trt, graph, profile, checkpoint.config.vision_config.depth)
        except BuildError as error:
            assert "no target for compute capability" in str(error)  # TensorRT for RTX on a data-centre card
            continue
        assert built.fusion.complete
        made = manifest(bytes(built.plan), flavour=flavour, tensorrt=trt.flavour, version=trt.version)
        parity = prove(checkpoint, Engine(made, built.plan), trt, ensure_golden(checkpoint, tmp_path, colour=False))
        assert parity.cosine > 0.999
        return
    pytest.skip("no TensorRT here builds for this GPU")
