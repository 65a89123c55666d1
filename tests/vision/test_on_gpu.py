"""What only a GPU can show. Skipped where there is none, which so far is everywhere it was run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from glyph_rt.export.build import build_engine
from glyph_rt.export.golden import ensure_golden
from glyph_rt.export.graph_file import GraphFile
from glyph_rt.export.profiles import load_profile
from glyph_rt.export.vision import export_vision

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.cli.build import prove
from glyph_rt.errors import BuildError
from glyph_rt.vision.device import open_device
from glyph_rt.vision.gpu import find_gpu
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.store import Engine
from glyph_rt.vision.trt_api import available
from tests.vision.test_store import manifest

GPU = find_gpu()
pytestmark = pytest.mark.skipif(GPU is None or not torch.cuda.is_available(), reason="this box has no working GPU")


@pytest.mark.parametrize("library", ["torch", "pycuda"])
def test_a_device_keeps_its_contract(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    device = open_device(library)
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


@pytest.mark.parametrize("flavour", ["modern", "portable"])
def test_the_readers_engine_reproduces_the_golden_pages(flavour: str, tmp_path: Path) -> None:
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
