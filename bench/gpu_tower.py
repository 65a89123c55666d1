"""A vision tower of GLM-4.1V's size on a GPU, random weights: ms a page, TFLOP/s, share of the chip's peak, beside transformers' own tower.

Run through bench/gpu.sh. Three parts:

- towers: patches and tokens stay on the GPU; transformers' tower, ours, and ours as one CUDA graph, in alternating rounds.
- encoder: the TensorRT encoder with torch in place of the engine, from host memory to host memory: what uploads that overlap, CUDA graphs
  and downloads add to the tower alone.
- doctor: the checkpoint exported, and built where a TensorRT for this GPU is installed; then every way to run it here, held to the golden
  pages and timed, as `glyph-rt doctor` does. Needs onnxscript.

`--device cpu` runs the same code without a GPU, on a small tower, to see that it runs; its times are no GPU figures and say so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from towers import SIZES, drawn, flops_per_page, matrix_speed, random_model, synchronize
from transformers import Glm4vVisionConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vVisionModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.vision import ProbePage, default_store
from glyph_rt.vision.candidates import candidates
from glyph_rt.vision.gpu import Gpu, find_gpu
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.select import survey
from glyph_rt.vision.store import ENGINES, Engine
from glyph_rt.vision.tensorrt_encoder import TensorRTEncoder
from glyph_rt.vision.torch_encoder import DTYPES, VISION_PREFIX, TorchEncoder
from glyph_rt.vision.tower import MEAN, STD
from glyph_rt.vision.trt_api import TensorRT, available
from tests.vision.fake_tensorrt import FakeDevice, FakeTensorRT, StandInDevice
from tests.vision.test_store import manifest

ROUNDS = 15
# Dense half-precision TFLOP/s with fp32 sums, from NVIDIA's data sheets.
PEAK = {"NVIDIA H200": 989.0, "NVIDIA H100 80GB HBM3": 989.0, "NVIDIA L4": 121.0, "NVIDIA GeForce RTX 4090": 165.0}
Side = Callable[[], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = SIZES["full" if options.device == "cuda" else "reader"]
    machine = torch.cuda.get_device_name(0) if options.device == "cuda" else "no GPU: a dry run, whose times mean nothing"
    figures: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "transformers": transformers.__version__, "tower": size}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "XDG_CONFIG_HOME": f"{folder}/config"}  # no gigabytes in the user's
        checkpoint = Checkpoint.open(random_model(Path(folder) / "model", size))
        parts: dict[str, Callable[[], Any]] = {
            "towers": lambda: towers(checkpoint, size, options.device, PEAK.get(machine)),
            "encoder": lambda: encoder(checkpoint, options.device),
            "doctor": lambda: doctor(checkpoint, default_store()),
        }
        for name, part in parts.items():
            start = time.perf_counter()
            figures[name] = part()
            print(json.dumps({name: figures[name], "seconds": round(time.perf_counter() - start, 1)}, indent=1), flush=True)
            if options.json:  # after every part: what is known stays, whatever becomes of the next
                options.json.write_text(json.dumps(figures, indent=1) + "\n")


def towers(checkpoint: Checkpoint, size: dict[str, Any], device: str, peak: float | None) -> list[dict[str, Any]]:
    """Every tower, precision and number of pages."""
    rows = []
    for precision in ("fp16", "bf16"):
        speed = matrix_speed(DTYPES[precision], device, 8192 if device == "cuda" else 512) / 1e12
        ours = TorchEncoder(checkpoint, device, precision)
        theirs = reference(checkpoint, device, DTYPES[precision])
        for count in (1, 4, 8) if device == "cuda" else (1,):
            page = drawn("glyph-en-72", 1)[0]
            patches = np.repeat(page.patches[None], count, 0)
            inputs = ours._inputs(patches, page.width, page.height)
            pixels, grid = normalised(inputs[0], page.width, page.height)
            sides: dict[str, Side] = {
                "transformers": partial(theirs_on, theirs, pixels.to(DTYPES[precision]), grid),
                "glyph-rt": partial(ours_on, ours, inputs),
            }
            if device == "cuda":
                sides["glyph-rt, CUDA graph"] = captured(sides["glyph-rt"])
            flops = count * flops_per_page(size, patches.shape[1])
            rows += compare(sides, {"precision": precision, "pages": count}, flops, device, speed, peak)
        del ours, theirs
    return rows


def theirs_on(visual: Glm4vVisionModel, pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return visual(pixels, grid_thw=grid).pooler_output  # type: ignore[no-any-return]


def ours_on(runner: TorchEncoder, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return runner.tower(*inputs).flatten(0, 1)  # type: ignore[no-any-return]


@torch.inference_mode()
def compare(
    sides: dict[str, Side], case: dict[str, Any], flops: float, device: str, speed: float, peak: float | None
) -> list[dict[str, Any]]:
    """Alternating rounds. `speed`: TFLOP/s of a large square product here; `peak`: of the data sheet."""
    expected = sides["transformers"]().float()
    errors = {name: float((side().float() - expected).abs().max() / expected.abs().max()) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS if device == "cuda" else 2):
        order = list(sides.items())
        for name, side in order if number % 2 == 0 else reversed(order):
            synchronize(device)
            start = time.perf_counter()
            side()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    rows = []
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        ratios = sorted(theirs / ours for theirs, ours in zip(times["transformers"], seconds, strict=True))
        tflops = flops / middle / 1e12
        row = case | {"tower": name, "ms_per_page": round(1e3 * middle / case["pages"], 3), "tflops": round(tflops, 1)}
        row |= {"share_of_matrix_speed": round(tflops / speed, 3), "share_of_peak": peak and round(tflops / peak, 3)}
        row |= {"times_transformers": round(statistics.median(ratios), 3), "from": round(ratios[0], 3), "to": round(ratios[-1], 3)}
        rows.append(row | {"largest_difference": errors[name], "matrix_tflops": round(speed, 1)})
    return rows


def captured(side: Side) -> Side:
    """The side as one CUDA graph."""
    with torch.inference_mode():
        side()  # sets up what may not be set up while a graph is captured
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = side()

    def replay() -> torch.Tensor:
        graph.replay()
        return found

    return replay


def reference(checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> Glm4vVisionModel:
    """transformers' tower with the checkpoint's weights."""
    config = Glm4vVisionConfig(**checkpoint.config.vision_config.to_dict())
    with torch.device(device):
        visual = Glm4vVisionModel._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
    visual.load_state_dict(dict(checkpoint.tensors(VISION_PREFIX)))
    return visual.to(dtype)


def normalised(patches: torch.Tensor, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ink patches as transformers' tower takes pages: pixel_values fp32 [pages * patches, 1176] and image_grid_thw."""
    mean, std = (torch.tensor(values, device=patches.device) for values in (MEAN, STD))
    grey = (255 - patches.flatten(0, 1).float()) / 255  # [n, 196]
    channels = (grey[:, None] - mean[:, None]) / std[:, None]  # [n, 3, 196]
    pixels = channels[:, :, None].expand(-1, -1, 2, -1).reshape(len(grey), -1)  # each channel has two equal frames
    grid = torch.tensor([[1, height // 14, width // 14]] * len(patches), device=patches.device)
    return pixels, grid


def encoder(checkpoint: Checkpoint, device: str) -> dict[str, Any]:
    """The TensorRT encoder with torch as its engine: four calls of two pages, beside the same calls without leaving the GPU."""
    runner = TorchEncoder(checkpoint, device, "bf16")
    where = StandInDevice() if device == "cuda" else FakeDevice()
    fake = FakeTensorRT(where, runner.tower, [((1, 8), (2, 2520))], dtype=FakeTensorRT.DataType.BF16)
    stood_in = TensorRTEncoder(checkpoint, Engine(manifest(b"", precision="bf16"), memoryview(b"")), TensorRT(fake, "tensorrt"), where)
    page = drawn("glyph-en-72", 1)[0]
    patches = np.repeat(page.patches[None], 8 if device == "cuda" else 2, 0)
    inputs = runner._inputs(patches[:2], page.width, page.height)
    with torch.inference_mode():
        alone = captured(lambda: runner.tower(*inputs)) if device == "cuda" else lambda: runner.tower(*inputs)
    calls = len(patches) // 2

    def bare() -> None:
        for _ in range(calls):
            alone()
        synchronize(device)

    whole, on_gpu = [], []
    with torch.inference_mode():
        for _ in range(ROUNDS if device == "cuda" else 3):  # the first two set up and capture
            for seconds, side in ((whole, lambda: stood_in.encode(patches, page.width, page.height)), (on_gpu, bare)):
                start = time.perf_counter()
                side()
                seconds.append(time.perf_counter() - start)
    host, gpu = (1e3 * statistics.median(seconds[2:]) / len(patches) for seconds in (whole, on_gpu))
    found = {"pages": len(patches), "ms_per_page_host_to_host": round(host, 3), "ms_per_page_on_the_gpu": round(gpu, 3)}
    return found | {"added": round(host / gpu - 1, 4), "cuda_graphs": where.captured, "device_mib": round(stood_in.device_bytes / 2**20, 1)}


def doctor(checkpoint: Checkpoint, store: Path) -> Any:
    """Every candidate's trial."""
    if importlib.util.find_spec("onnxscript") is None:
        return "not run: onnxscript is not installed"
    from glyph_rt.export.vision import export_vision

    for precision in ("fp16", "bf16"):
        export_vision(checkpoint, store, GraphKind("modern", precision))
    gpu = find_gpu()
    built = [] if gpu is None else [build(checkpoint, store, trt, gpu) for trt in available()]
    page = drawn("glyph-en-72", 1)[0]
    probe = ProbePage(page.patches[None].copy(), page.width, page.height)
    found = [candidate for candidate in candidates(checkpoint, store) if candidate.on_gpu or gpu is None]
    return {"engines": built, "trials": [vars(trial) for trial in survey(checkpoint, found, probe, store)]}


def build(checkpoint: Checkpoint, store: Path, trt: TensorRT, gpu: Gpu) -> str:
    """What `glyph-rt build` did for this GPU, or why it could not."""
    from glyph_rt.export.profiles import load_profile, profile_names

    from glyph_rt.cli.build import BuildOptions, run

    profiles = map(load_profile, profile_names())
    name = next((p.name for p in profiles if (p.tensorrt, p.compute_capability) == (trt.flavour, gpu.compute_capability)), None)
    if name is None:
        return f"{trt.flavour}: no profile for compute capability {gpu.compute_capability}"
    graph = GraphKind("modern", "fp16").path(checkpoint, store)
    try:
        run(BuildOptions(checkpoint.path, name, onnx=graph, out=store / ENGINES))
    except EncoderError as error:
        return f"{name}: {error}"
    return f"{name}: built"


if __name__ == "__main__":
    main()
