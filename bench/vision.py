"""The vision tower beside transformers' own with the same weights, on a CPU: from drawn pages to visual tokens.

The peer gets the pages as PIL images and runs Glm4vImageProcessorPil and Glm4vVisionModel; glyph-rt gets the patches its typesetter
wrote. Rounds alternate, so the ratios hold on a noisy machine; outputs are compared before anything is timed. Weights are random.

    python bench/vision.py [--size middle] [--pages 2] [--rounds 7]
    python bench/vision.py --full        # export of a tower of GLM-4.1V's size: seconds and peak memory, in a process of its own
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from glyph_rt.export.vision import export_vision
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Glm4vImageProcessorPil, Glm4vVisionConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vVisionModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.memory import peak_rss_bytes
from glyph_rt.typeset import PRESETS, Page, Typesetter
from glyph_rt.vision.graph import GraphKind
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.torch_encoder import VISION_PREFIX, TorchEncoder

SIZES: dict[str, dict[str, Any]] = {
    "reader": {"hidden_size": 128, "depth": 2, "num_heads": 4, "out_hidden_size": 192, "intermediate_size": 384},
    "middle": {"hidden_size": 384, "depth": 8, "num_heads": 6, "out_hidden_size": 1024, "intermediate_size": 3424},
    "full": {"hidden_size": 1536, "depth": 24, "num_heads": 12, "out_hidden_size": 4096, "intermediate_size": 13696},
}
STYLES = {"reader": "reader", "middle": "glyph-en-72", "full": "glyph-en-72"}
TEXT = "The carrier shall deliver the goods to the agreed place within four days of the order, and the buyer shall inspect them. " * 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("reader", "middle"), default="middle")
    parser.add_argument("--pages", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true", help="export a tower of 24 blocks of 1,536")
    parser.add_argument(
        "--export", nargs=3, metavar=("MODEL", "FLAVOUR", "PRECISION"), help="export only, and print seconds and peak bytes"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.export:
            export_once(Path(options.export[0]), GraphKind(*options.export[1:]))
        elif options.full:
            full(Path(folder))
        else:
            compare(random_model(Path(folder) / "model", options.size), options.size, options.pages, options.rounds, Path(folder) / "store")


def compare(model: Path, size: str, count: int, rounds: int, store: Path) -> None:
    checkpoint = Checkpoint.open(model)
    pages = drawn(STYLES[size], count)
    width, height = pages[0].width, pages[0].height
    graph = OnnxEncoder(checkpoint, export_vision(checkpoint, store))
    peers = {precision: Peer(model, pages, dtype) for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    encoders = {"onnx fp32": graph, "torch fp32": TorchEncoder(checkpoint), "torch bf16": TorchEncoder(checkpoint, precision="bf16")}
    sides: dict[str, Callable[[], torch.Tensor]] = {f"transformers {precision}": peer for precision, peer in peers.items()}
    for name, encoder in encoders.items():
        sides[name] = lambda e=encoder: e.encode(np.stack([page.patches for page in pages]), width, height)  # type: ignore[misc]
    expected = peers["fp32"]()
    for name, side in sides.items():  # also warms up
        error = float((side().flatten(0, -2) - expected).abs().max() / expected.abs().max())
        assert error < (1e-4 if "fp32" in name else 1e-1), f"{name} is off by {error:.1e}"
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append((time.perf_counter() - start) / count)
    flops = flops_per_page(SIZES[size], width * height // 196)
    print(
        f"{size}, {count} pages of {width} x {height} px, {flops / 1e9:.1f} GFLOP each, {rounds} rounds, {torch.get_num_threads()} threads"
    )
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        print(f"floor in {precision} (FLOPs at this box's matrix speed): {1e3 * flops / matrix_speed(dtype):.1f} ms a page")
    for name, seconds in times.items():
        ratios = sorted(b / a for a, b in zip(seconds, times[f"transformers {name[-4:]}"], strict=True))
        beside = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times transformers' speed in {name[-4:]}"
        print(f"{name:18} {1e3 * statistics.median(seconds):9.1f} ms a page" + ("" if name.startswith("transformers") else f", {beside}"))


class Peer:
    """transformers' processor and tower, on pages already drawn. Returns [visual tokens, out_hidden] fp32."""

    def __init__(self, model: Path, pages: list[Page], dtype: torch.dtype) -> None:
        config = Glm4vVisionConfig(**json.loads((model / "config.json").read_text())["vision_config"])
        self.visual = Glm4vVisionModel._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
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


def full(folder: Path) -> None:
    """Export time and peak memory of the full-size tower, each graph in a process of its own."""
    model = random_model(folder / "model", "full")
    print(f"checkpoint: {(model / 'model.safetensors').stat().st_size / 2**30:.2f} GiB of vision weights in bf16")
    for flavour, precision in (("portable", "fp16"), ("modern", "fp16"), ("portable", "fp32")):
        command = [sys.executable, __file__, "--export", str(model), flavour, precision]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def export_once(model: Path, kind: GraphKind) -> None:
    """The store lies beside the model, so golden pages are made by the first export and found by the others."""
    start = time.perf_counter()
    path = export_vision(Checkpoint.open(model), model.parent / "store", kind)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
    print(f"{path.name}: {seconds:.1f} s, {size / 2**30:.2f} GiB written, peak memory {peak_rss_bytes() / 2**30:.2f} GiB")
    for file in path.parent.glob(path.name + "*"):
        file.unlink()


def random_model(path: Path, size: str) -> Path:
    """A checkpoint of the vision tower alone, random, in bf16."""
    path.mkdir(parents=True)
    config = Glm4vVisionConfig(**SIZES[size])
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Glm4vVisionModel(config).state_dict().items()}
    torch.manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if "norm" in name:
            state[VISION_PREFIX + name] = torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
        else:
            fan_in = shape[1:].numel() if len(shape) > 1 else 100
            state[VISION_PREFIX + name] = torch.empty(shape, dtype=torch.bfloat16).normal_(std=fan_in**-0.5)
    save_file(state, path / "model.safetensors")
    vision = config.to_dict()
    (path / "config.json").write_text(
        json.dumps({"architectures": ["Glm4vForConditionalGeneration"], "model_type": "glm4v", "vision_config": vision})
    )
    return path


def drawn(style: str, count: int) -> list[Page]:
    """Full pages of text of one size."""
    pages = []
    for page in Typesetter(PRESETS[style]).pages(TEXT * count):
        pages.append(page)
        if len(pages) == count:
            return pages
    raise AssertionError("the text is too short")


def flops_per_page(size: dict[str, Any], patches: int) -> float:
    """Of matrix products, attention included."""
    hidden, out, wide = size["hidden_size"], size["out_hidden_size"], size["intermediate_size"]
    block = patches * (4 * hidden**2 + 3 * hidden * out) + 2 * patches**2 * hidden
    merger = patches / 4 * (4 * hidden * out + out**2 + 3 * out * wide)
    return 2.0 * (patches * 196 * hidden + size["depth"] * block + merger)


def matrix_speed(dtype: torch.dtype) -> float:
    """FLOP/s of a square product here and now, best of ten."""
    a, b = torch.randn(1536, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 1536**3 / best


if __name__ == "__main__":
    main()
