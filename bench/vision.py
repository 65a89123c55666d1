"""The vision tower beside transformers' own with the same weights, on a CPU: from drawn pages to visual tokens.

The peer gets the pages as PIL images and runs Glm4vImageProcessorPil and Glm4vVisionModel; glyph-rt gets the patches its typesetter
wrote. Rounds alternate, so the ratios hold on a noisy machine; outputs are compared before anything is timed. Weights are random.

    python bench/vision.py [--size middle] [--pages 2] [--rounds 7] [--json bench/results/vision-middle.json]
    python bench/vision.py --export [--size full] [--json bench/results/vision-export.json]

The second measures export, engine build (where TensorRT for RTX is installed) and the gate at load: seconds and peak memory, each in a
process of its own. At full size it needs 12 GB of memory, 8 GB of disk, and about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from glyph_rt.export.vision import export_vision
from PIL import Image
from safetensors.torch import load_file
from towers import SIZES, STYLES, drawn, flops_per_page, matrix_speed, random_model
from transformers import Glm4vImageProcessorPil, Glm4vVisionConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vVisionModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.memory.limits import GIB, peak_rss_bytes
from glyph_rt.typeset import Page
from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.golden import Golden, check, golden_path
from glyph_rt.vision.graph import FLAVOURS, GraphKind
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.torch_encoder import VISION_PREFIX, TorchEncoder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STEPS = [
    ("golden", ""),
    *(("export", kind) for kind in ("portable fp16", "modern fp16", "portable fp32", "modern int8")),
    ("load", "portable fp32"),
    ("load", "torch bf16"),
    ("build", "modern fp16"),
    ("build", "modern int8"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--pages", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--export", action="store_true", help="measure export, build and the gate instead")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)  # model, what, which: one step, in a process of its own
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(Path(options.step[0]), *options.step[1:])))
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    figures: dict[str, Any] = {"size": options.size, **versions, "onnxruntime": onnxruntime.__version__}
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "model", SIZES[options.size])
        if options.export:
            figures["steps"] = list(steps(model))
        else:
            figures |= compare(model, options.size, options.pages, options.rounds, Path(folder) / "store")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def compare(model: Path, size: str, count: int, rounds: int, store: Path) -> dict[str, Any]:
    """Every encoder beside transformers in the same precision."""
    checkpoint = Checkpoint.open(model)
    pages = drawn(STYLES[size], count)
    width, height = pages[0].width, pages[0].height
    peers = {precision: Peer(model, pages, dtype) for precision, dtype in DTYPES.items()}
    sides: dict[str, Callable[[], torch.Tensor]] = {f"transformers {precision}": peer for precision, peer in peers.items()}
    graphs = {flavour: export_vision(checkpoint, store, GraphKind(flavour)) for flavour in FLAVOURS}
    encoders: dict[str, VisionEncoder] = {f"onnx {flavour} fp32": OnnxEncoder(checkpoint, path) for flavour, path in graphs.items()}
    encoders |= {f"torch {precision}": TorchEncoder(checkpoint, precision=precision) for precision in DTYPES}
    for name, encoder in encoders.items():
        sides[name] = lambda e=encoder: e.encode(np.stack([page.patches for page in pages]), width, height)  # type: ignore[misc]
    expected = peers["fp32"]()
    for name, side in sides.items():  # also warms up
        error = float((side().flatten(0, -2) - expected).abs().max() / expected.abs().max())
        assert error < (1e-4 if "fp32" in name else 1e-1), f"{name} is off by {error:.1e}"
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides.items())
        for name, side in order if number % 2 == 0 else reversed(order):
            start = time.perf_counter()
            side()
            times[name].append((time.perf_counter() - start) / count)
    flops = flops_per_page(SIZES[size], width * height // 196)
    floors = {precision: flops / matrix_speed(dtype) for precision, dtype in DTYPES.items()}
    page, threads = f"{width} x {height} px, {flops / 1e9:.1f} GFLOP each", torch.get_num_threads()
    print(f"{size}, {count} pages of {page}, {rounds} rounds, {threads} threads")
    rows = [row(name, seconds, times[f"transformers {name[-4:]}"], floors[name[-4:]]) for name, seconds in times.items()]
    for each in rows:
        print(
            f"{each['name']:20} {each['ms_per_page']:9.1f} ms a page ({each['quartiles_ms'][0]:.1f} to {each['quartiles_ms'][1]:.1f}), "
            f"{each['ratio']:.2f} ({each['ratio_range'][0]:.2f} to {each['ratio_range'][1]:.2f}) times transformers, "
            f"{each['floor_ms']:.1f} ms were its products alone"
        )
    return {"pages": count, "page": page, "rounds": rounds, "threads": threads, "encoders": rows}


def row(name: str, seconds: list[float], peer: list[float], floor: float) -> dict[str, Any]:
    """Median and quartiles of a side, its speed beside transformers' in the same rounds, and what its products alone would take."""
    ratios = [b / a for a, b in zip(seconds, peer, strict=True)]
    low, middle, high = quartiles(seconds)
    return {
        "name": name,
        "ms_per_page": round(1e3 * middle, 2),
        "quartiles_ms": [round(1e3 * low, 2), round(1e3 * high, 2)],
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "floor_ms": round(1e3 * floor, 2),
    }


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, middle, high


class Peer:
    """transformers' processor and tower, on pages already drawn. Returns [visual tokens, out_hidden] fp32."""

    def __init__(self, model: Path, pages: list[Page], dtype: torch.dtype) -> None:
        config = json.loads((model / "config.json").read_text())["vision_config"]
        self.visual = Glm4vVisionModel._from_config(Glm4vVisionConfig(**config), attn_implementation="sdpa").eval()
        state = load_file(model / "model.safetensors")
        self.visual.load_state_dict({name.removeprefix(VISION_PREFIX): tensor for name, tensor in state.items()})
        self.visual.to(dtype)
        self.processor = Glm4vImageProcessorPil(do_resize=False)
        self.images = [Image.fromarray(page.pixels()).convert("RGB") for page in pages]

    @torch.inference_mode()
    def __call__(self) -> torch.Tensor:
        batch = self.processor(images=self.images, return_tensors="pt")
        pixels = batch["pixel_values"].to(self.visual.dtype)
        return self.visual(pixels, grid_thw=batch["image_grid_thw"]).pooler_output.float()  # type: ignore[no-any-return]


def steps(model: Path) -> list[dict[str, Any]]:
    """Each step in a process of its own, so that its peak memory is its own. The store lies beside the model."""
    done = []
    for what, which in STEPS:
        if what == "build" and importlib.util.find_spec("tensorrt_rtx_bindings") is None:
            continue
        command = [sys.executable, __file__, "--step", str(model), what, which]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        done.append({"step": f"{what} {which}".strip(), **json.loads(said)})
        print(done[-1], flush=True)
    return done


def step(model: Path, what: str, which: str) -> dict[str, Any]:
    """One step: seconds, and the most memory this process held."""
    checkpoint, store = Checkpoint.open(model), model.parent / "store"
    more: dict[str, Any] = {}
    if what in ("export", "build"):
        kind = GraphKind(*which.split())
        path = kind.path(checkpoint, store)  # hashes the weights, once and before the clock starts
    start = time.perf_counter()
    if what == "golden":
        from glyph_rt.export.golden import ensure_golden

        ensure_golden(checkpoint, store, False)
    elif what == "export":
        path = export_vision(checkpoint, store, kind)
        more["bytes"] = sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
    elif what == "load":
        golden = Golden.load(golden_path(checkpoint, store, False), checkpoint.digest)
        start = time.perf_counter()
        runner, precision = which.split()
        if runner == "torch":
            encoder: VisionEncoder = TorchEncoder(checkpoint, precision=precision)
        else:
            encoder = OnnxEncoder(checkpoint, GraphKind(runner, precision).path(checkpoint, store))
        more["open_s"] = round(time.perf_counter() - start, 2)
        before = time.perf_counter()
        more["parity"] = str(check(encoder, golden, precision, large=False))
        more["gate_s"] = round(time.perf_counter() - before, 2)
    else:
        from glyph_rt.export.build import build_engine
        from glyph_rt.export.graph_file import GraphFile
        from glyph_rt.export.profiles import load_profile

        from glyph_rt.vision.trt_api import load

        built = build_engine(load("tensorrt-rtx"), GraphFile.open(path), load_profile("rtx-4090"), checkpoint.config.vision_config.depth)
        assert built.fusion.complete, str(built.fusion)
        more |= {"bytes": built.plan.nbytes, "scratch_bytes": built.scratch, "fusion": str(built.fusion)}
    return {"seconds": round(time.perf_counter() - start, 1), "peak_gib": round(peak_rss_bytes() / GIB, 2), **more}


if __name__ == "__main__":
    main()
