"""The TensorRT encoder's logic, against a TensorRT that computes by the oracle and waits until it is waited for."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glyph_rt import Runtime, Sampling
from glyph_rt import runtime as runtime_module
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.cli import build
from glyph_rt.errors import EncoderError, EngineRefusedError, NonFiniteError, OptionError, ParityError
from glyph_rt.memory.dry_run import HostMeter
from glyph_rt.memory.estimate import Target, estimated_plan
from glyph_rt.memory.limits import GIB, MIB
from glyph_rt.memory.plan import Budget
from glyph_rt.vision import tensorrt_encoder
from glyph_rt.vision.device import Device, GpuUse, open_device
from glyph_rt.vision.golden import Golden, check, look_into
from glyph_rt.vision.store import Engine, EngineStore
from glyph_rt.vision.tensorrt_encoder import PAGE_SHAPES, ObservedTensorRTEncoder, TensorRTEncoder
from glyph_rt.vision.torch_encoder import TorchEncoder
from glyph_rt.vision.trt_api import TensorRT
from tests.conftest import TEXT
from tests.vision import fake_tensorrt
from tests.vision.fake_tensorrt import FakeDevice, FakeTensorRT
from tests.vision.parts import GREY, RED, distance, golden_page, pages_of, stacked
from tests.vision.test_store import ADA, manifest
from tests.vision.test_trt_api import recorded

RANGES = [((1, 8), (3, 200)), ((1, 8), (1, 2520))]  # least and most (pages, patches) of two optimisation profiles
PLAN = b"a plan"


class Box:
    """A box with the fake in it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        graphs: bool = True,
        ranges: Any = None,
        budget: int | None = None,
        colour: bool = False,
        **faults: Any,
    ) -> None:
        self.oracle = TorchEncoder(checkpoint)
        self.device = FakeDevice(graphs)
        self.trt = FakeTensorRT(self.device, self.oracle.tower, ranges or RANGES, **{"patch_bytes": 588 if colour else 196} | faults)
        made = manifest(PLAN, colour=colour)
        encoder_class = ObservedTensorRTEncoder if faults.get("shows_stream") else TensorRTEncoder
        self.encoder = encoder_class(checkpoint, Engine(made, memoryview(PLAN)), TensorRT(self.trt, "tensorrt"), self.device, budget)

    def check(self, count: int, width: int, height: int, tolerance: float = 2e-3) -> None:
        patches = pages(count, width, height)
        found, expected = self.encoder.encode(patches, width, height), self.oracle.encode(patches, width, height)
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def pages(count: int, width: int, height: int) -> np.ndarray:
    return stacked(pages_of(width, height, count))


def test_it_computes_what_the_oracle_does(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint)
    assert box.trt.deserialized == [PLAN]
    assert box.encoder.name == "tensorrt-modern-fp16-grey"
    box.check(1, 280, 140)
    box.check(8, 280, 140)  # three calls of at most three pages, through two slots
    box.check(2, 588, 840)  # the second range: one page a call
    box.check(3, 140, 280)  # as many patches as before, other geometry
    assert box.device.depth == 0


def test_an_engine_with_colour_takes_grey_pages_too(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint, colour=True)
    assert box.encoder.name == "tensorrt-modern-fp16-colour"
    for colour in (RED, GREY):
        patches = stacked(pages_of(280, 140, 4, colour))
        found, expected = box.encoder.encode(patches, 280, 140), box.oracle.encode(patches, 280, 140)
        assert distance(found, expected) < 2e-3


def test_a_page_shape_is_captured_once_and_replayed(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint)
    for _ in range(4):
        box.check(3, 280, 140)
    assert (len(box.trt.contexts), box.device.captured, box.device.replayed) == (1, 1, 3)


def test_it_works_without_cuda_graphs(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint, graphs=False)
    for _ in range(3):
        box.check(4, 280, 140)
    assert box.device.replayed == 0


def test_page_shapes_come_and_go_within_memory_fixed_at_the_start(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint)
    allocated = len(box.device.at)
    sizes = [(280, 140), (56, 56), (84, 56), (112, 56), (140, 56), (168, 56)]
    for width, height in [*sizes, *sizes]:
        box.check(1, width, height)
    assert len(box.device.at) == allocated == 6  # four inputs, the tokens, the scratch
    assert sum(memory.size for memory in box.device.at.values()) == box.encoder.device_bytes
    assert len(box.encoder._shapes) == PAGE_SHAPES
    assert len(box.trt.contexts) == 12  # each came again after it had gone


@pytest.mark.parametrize("dtype", [FakeTensorRT.DataType.FLOAT, FakeTensorRT.DataType.HALF, FakeTensorRT.DataType.BF16])
def test_the_output_may_have_any_float_type(checkpoint: Checkpoint, dtype: int) -> None:
    Box(checkpoint, dtype=dtype).check(2, 280, 140, tolerance=(1e-6, 2e-3, 2e-2)[dtype])


def test_a_range_that_wants_more_pages_than_there_are_is_filled_up(checkpoint: Checkpoint) -> None:
    Box(checkpoint, ranges=[((2, 8), (4, 200))]).check(1, 280, 140)


def test_pages_it_cannot_take_are_refused_with_what_it_can(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint, ranges=RANGES[:1])
    with pytest.raises(EncoderError, match="588 x 840 px have 2520 patches; this engine takes 8 to 200"):
        box.encoder.encode(pages(1, 588, 840), 588, 840)
    with pytest.raises(EncoderError, match="grey pages only"):
        box.encoder.encode(np.zeros((1, 200, 588), np.uint8), 280, 140)


def test_memory_is_refused_before_it_is_taken(checkpoint: Checkpoint) -> None:
    need = Box(checkpoint).encoder.device_bytes
    Box(checkpoint, budget=need)
    with pytest.raises(EncoderError, match="MiB are planned"):
        Box(checkpoint, budget=need - 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"refuses_plan": True}, "TensorRT refuses engine"),
        ({"other_names": True}, "no vision tower of ours: it has input, output"),
        ({"dtype": 99}, "expected float32"),
        ({"patch_bytes": 588}, "takes patches of 588 bytes; its manifest says 196"),
    ],
)
def test_an_engine_that_is_not_ours_is_refused_at_the_start(checkpoint: Checkpoint, fault: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        Box(checkpoint, **fault)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"no_context": True}, "made no execution context"),
        ({"more_scratch": 1 << 30}, "more scratch memory"),
        ({"hidden": 3}, "refuses 1 pages of 200 patches"),
        ({"fails": True}, "could not start"),
    ],
)
def test_what_fails_at_run_time_is_an_error_and_leaves_nothing_running(checkpoint: Checkpoint, fault: dict[str, Any], message: str) -> None:
    box = Box(checkpoint, **fault)
    with pytest.raises(EncoderError, match=message):
        box.encoder.encode(pages(1, 280, 140), 280, 140)
    assert box.device.streams[0].work == [] and box.device.depth == 0
    box.trt.faults.clear()
    box.check(2, 280, 140)  # and it goes on


def test_nan_is_an_error_and_not_an_answer(checkpoint: Checkpoint) -> None:
    box = Box(checkpoint)
    box.oracle.tower.patch.bias.data = box.oracle.tower.patch.bias + float("nan")
    with pytest.raises(NonFiniteError, match="tensorrt"):
        box.encoder.encode(pages(1, 280, 140), 280, 140)


def test_a_new_engine_is_proven_on_the_golden_pages(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(checkpoint)
    golden = Golden(
        "m" * 64, tuple(golden_page(name, page, 280, 140, box.oracle) for name, page in zip("ab", pages(2, 280, 140), strict=True))
    )
    monkeypatch.setattr(build, "open_device", lambda _: box.device)
    engine, trt = Engine(manifest(PLAN), memoryview(PLAN)), TensorRT(box.trt, "tensorrt")
    parity = build.prove(checkpoint, engine, trt, golden)
    assert 0.99999 < parity.cosine <= 1.000001 and 0 < parity.error < 2e-3
    box.oracle.tower.downsample.weight.data = box.oracle.tower.downsample.weight * 1.5  # a kernel that is wrong
    with pytest.raises(ParityError, match="tensorrt-modern-fp16-grey encoder differs"):
        build.prove(checkpoint, engine, trt, golden)


def test_an_engine_for_some_sizes_is_held_to_the_golden_pages_it_takes(checkpoint: Checkpoint) -> None:
    oracle = TorchEncoder(checkpoint)
    sizes = {"text": (280, 140), "full": (588, 840)}
    golden = Golden("m" * 64, tuple(golden_page(name, pages(1, *size)[0], *size, oracle) for name, size in sizes.items()))
    whole_pages_only = Box(checkpoint, ranges=[((1, 2520), (1, 2520))])
    assert check(whole_pages_only.encoder, golden, "fp16", large=False).cosine > 0.999
    whole_pages_only.oracle.tower.downsample.weight.data = whole_pages_only.oracle.tower.downsample.weight * 1.5
    with pytest.raises(ParityError, match="golden page 'full'"):
        check(whole_pages_only.encoder, golden, "fp16", large=False)
    with pytest.raises(EncoderError, match=r"takes none of the golden pages \(280 x 140 px, 588 x 840 px\)"):
        check(Box(checkpoint, ranges=[((1, 8), (1, 100))]).encoder, golden, "fp16")


def test_a_build_that_shows_its_stream_tells_the_block_that_is_off(checkpoint: Checkpoint) -> None:
    page = golden_page("text", pages(1, 280, 140)[0], 280, 140, TorchEncoder(checkpoint))
    box = Box(checkpoint, shows_stream=True)
    box.check(3, 280, 140)
    assert isinstance(box.encoder, ObservedTensorRTEncoder)
    assert look_into(box.encoder, page, "fp16").first_off is None
    box.oracle.tower.blocks[1].mlp.down_proj.weight.data = box.oracle.tower.blocks[1].mlp.down_proj.weight * float("inf")
    report = look_into(box.encoder, page, "fp16")
    assert report.first_off is not None and report.first_off.name == "block_1" and report.first_off.lost > 0
    assert [stage.sound("fp16") for stage in report.stages] == [True, True, False, False]


def test_an_engine_of_the_store_is_opened_on_its_box_only(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    box, store = Box(checkpoint), EngineStore(tmp_path / "engines", tmp_path / "key")
    store.publish(manifest(PLAN, model_digest=checkpoint.digest), memoryview(PLAN))
    monkeypatch.setattr(tensorrt_encoder, "find_gpu", lambda _: ADA)
    monkeypatch.setattr(tensorrt_encoder, "load", lambda _: TensorRT(box.trt, "tensorrt"))
    monkeypatch.setattr(tensorrt_encoder, "open_device", lambda *_: box.device)
    box.encoder = TensorRTEncoder.open(checkpoint, "o" * 64, store, "tensorrt")
    box.check(2, 280, 140)
    with pytest.raises(EncoderError, match="MiB are planned"):
        TensorRTEncoder.open(checkpoint, "o" * 64, store, "tensorrt", GpuUse(workspace=1000))
    loaded = len(box.trt.deserialized)
    monkeypatch.setattr(tensorrt_encoder, "find_gpu", lambda _: dataclasses.replace(ADA, driver="575.51.03"))
    with pytest.raises(EngineRefusedError, match=r"built for driver 580\.65\.06; this is 575\.51\.03"):
        TensorRTEncoder.open(checkpoint, "o" * 64, store, "tensorrt")
    assert len(box.trt.deserialized) == loaded  # refused before TensorRT saw a byte


def test_a_runtime_with_a_budget_holds_it_to_the_memory_plan(
    checkpoint: Checkpoint, random_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    box, store = Box(checkpoint), EngineStore(tmp_path / "engines", tmp_path / "key")
    store.publish(manifest(PLAN, model_digest=checkpoint.digest), memoryview(PLAN))
    monkeypatch.setattr(tensorrt_encoder, "find_gpu", lambda _: ADA)
    monkeypatch.setattr(tensorrt_encoder, "load", lambda _: TensorRT(box.trt, "tensorrt"))
    monkeypatch.setattr(tensorrt_encoder, "open_device", lambda *_: box.device)
    uses: list[GpuUse | None] = []

    def opened(model: Checkpoint, choice: str, probe: Any, folder: Path, use: GpuUse | None) -> TensorRTEncoder:
        uses.append(use)
        return TensorRTEncoder.open(model, "o" * 64, store, "tensorrt", use)

    monkeypatch.setattr(runtime_module, "open_encoder", opened)
    budget = Budget(HostMeter().now() + GIB, 64 * MIB)
    with Runtime.open(random_model, budget=budget) as runtime, runtime.read(TEXT) as document:
        assert document.ask("Weight?", Sampling(max_new_tokens=2)).text is not None
        planned = estimated_plan(checkpoint.config, runtime.style, runtime.limits, budget, Target())
    (workspace,) = (share.size for share in planned.shares if share.name.startswith("vision workspace"))
    assert uses == [GpuUse(workspace=workspace)]
    monkeypatch.setattr(runtime_module, "vision_workspace", lambda *_: 1000)
    with pytest.raises(EncoderError, match="MiB are planned"):
        Runtime.open(random_model, budget=budget)
    Runtime.open(random_model).close()
    assert uses[-1] is None


def test_an_error_of_cuda_is_one_the_next_encoder_can_stand_in_for(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    box = Box(checkpoint)
    monkeypatch.setattr(box.device, "upload", out_of_memory)
    with pytest.raises(EncoderError, match=r"encoder failed \(CUDA out of memory\. Tried to allocate 2 GiB\)"):
        box.encoder.encode(pages(1, 280, 140), 280, 140)
    monkeypatch.setattr(FakeDevice, "allocate", out_of_memory)
    with pytest.raises(EncoderError, match="CUDA out of memory"):
        Box(checkpoint)


def test_without_a_gpu_tensorrt_is_never_touched(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(tensorrt_encoder, "find_gpu", lambda _: None)
    monkeypatch.setattr(tensorrt_encoder, "load", lambda _: pytest.fail("TensorRT was loaded"))
    with pytest.raises(EncoderError, match="needs an NVIDIA GPU"):
        TensorRTEncoder.open(checkpoint, "o" * 64, EngineStore(tmp_path), "tensorrt")


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_the_fake_has_no_name_that_tensorrt_lacks(version: str) -> None:
    real = recorded()[version]
    faked = [fake_tensorrt.Runtime, fake_tensorrt.ICudaEngine, fake_tensorrt.IExecutionContext]
    used = {f"{c.__name__}.{name}" for c in faked for name in vars(c) if not name.startswith("_")}
    used |= {f"DataType.{name}" for name in ("FLOAT", "HALF", "BF16")} | {"ExecutionContextAllocationStrategy.USER_MANAGED"}
    assert used <= real.keys()
    for name in used:
        method = getattr(getattr(fake_tensorrt, name.split(".")[0], None), name.split(".")[1], None)
        if inspect.isfunction(method):
            assert list(inspect.signature(method).parameters)[1:] in [o[: len(o)] for o in real[name] or []], name


def test_the_fake_device_is_a_device() -> None:
    device: Device = FakeDevice()
    assert device.memory()[0] > 0


def test_a_device_without_a_gpu_is_a_typed_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this box has a GPU")
    with pytest.raises(EncoderError, match="torch has no GPU here"):
        open_device(GpuUse("torch"))
    with pytest.raises(EncoderError, match="pycuda has no GPU here"):
        open_device(GpuUse("pycuda"))
    with pytest.raises(EncoderError, match=r"torch has no GPU here .*; pycuda has no GPU here"):
        open_device(GpuUse())
    with pytest.raises(OptionError, match="choose one of: auto, torch, pycuda"):
        GpuUse("jax")
