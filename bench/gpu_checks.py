"""What only a GPU can tell: parity of the encoder and the decoder there with the CPU, and the speed of a full-size vision tower.

Run through bench/gpu.sh. `--device cpu` runs the same code without a GPU, to see that it runs; its times are no GPU figures and
say so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Glm4vVisionConfig

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.documents import Document
from glyph_rt.language import LanguageModel, PromptTemplate, Sampling
from glyph_rt.memory import Limits
from glyph_rt.runtime import Runtime, open_typesetter
from glyph_rt.vision.geometry import page_geometry
from glyph_rt.vision.torch_encoder import TorchEncoder
from glyph_rt.vision.tower import VisionTower

CONTRACT = Path(__file__).parents[1] / "examples" / "contract.txt"
PAGE = (588, 840)  # px: zai-org/Glyph's page
PAGE_TFLOP = 4.63  # of the GLM-4.1V vision tower for one such page (24 blocks, downsample, merger)
GLM_4_1V: dict[str, Any] = {"hidden_size": 1536, "depth": 24, "num_heads": 12, "out_hidden_size": 4096, "intermediate_size": 13696}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--depth", type=int, default=24, help="blocks of the timed tower")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    name = torch.cuda.get_device_name(0) if options.device == "cuda" else "no GPU: a dry run of the checks"
    checkpoint = Checkpoint.open()
    figures: dict[str, Any] = {"machine": name, "torch": torch.__version__, "transformers": transformers.__version__}
    figures["vision parity"] = vision_parity(checkpoint, options.device)
    figures["decoder parity"] = decoder_parity(checkpoint, options.device)
    figures["vision tower"] = tower_speed(options.device, options.depth)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def vision_parity(checkpoint: Checkpoint, device: str) -> dict[str, float]:
    """Largest difference from the CPU's fp32 output, relative to its largest value, per dtype."""
    pages = list(open_typesetter(checkpoint, None).pages(CONTRACT.read_text()))
    patches = np.stack([page.patches for page in pages])
    expected = TorchEncoder(checkpoint).encode(patches, pages[0].width, pages[0].height)
    out = {}
    for precision in ("fp32", "bf16", "fp16"):
        found = TorchEncoder(checkpoint, device, precision).encode(patches, pages[0].width, pages[0].height)
        out[precision] = float((found - expected).abs().max() / expected.abs().max())
    return out


def decoder_parity(checkpoint: Checkpoint, device: str) -> dict[str, Any]:
    """Greedy answers on the device beside the CPU's, from the same fp32 weights."""
    answers: dict[str, list[str]] = {}
    for place in ("cpu", device):
        parts = (open_typesetter(checkpoint, None), TorchEncoder(checkpoint), LanguageModel(checkpoint, place))
        with Runtime(checkpoint, *parts, PromptTemplate(checkpoint), Limits()) as runtime, runtime.read(CONTRACT.read_text()) as document:
            answers[place] = [ask(document, key) for key in ("Pump type", "Hourly rate", "Notice period")]
    return {"cpu": answers["cpu"], device: answers[device], "equal": answers["cpu"] == answers[device]}


def ask(document: Document, key: str) -> str:
    return document.ask(f"What is the value of {key}?", Sampling(max_new_tokens=32)).text


def tower_speed(device: str, depth: int) -> list[dict[str, float]]:
    """Milliseconds per page of a GLM-4.1V tower of random bf16 weights, by batch; median of 10 after 3 warm-ups."""
    config = Glm4vVisionConfig(**GLM_4_1V | {"depth": depth})
    with torch.device(device):
        tower = VisionTower(config).to(torch.bfloat16).eval().requires_grad_(False)
        for parameter in tower.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    geometry = page_geometry(*PAGE, torch.randn(24 * 24, config.hidden_size), config.hidden_size // config.num_heads, 10000.0)
    fixed = [t.to(device) for t in (geometry.positions, geometry.cos, geometry.sin)]
    rows = []
    for pages in (1, 4, 8) if device == "cuda" else (1,):
        patches = torch.randint(0, 256, (pages, len(geometry.positions), 196), dtype=torch.uint8, device=device)
        times = []
        with torch.inference_mode():
            for _ in range(13 if device == "cuda" else 2):
                start = time.perf_counter()
                tower(patches, *fixed)
                if device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
        seconds = statistics.median(times[3:] or times)
        tflops = pages * PAGE_TFLOP * depth / 24 / seconds
        rows.append({"pages": pages, "ms per page": round(1e3 * seconds / pages, 3), "TFLOP/s": round(tflops, 1)})
    return rows


if __name__ == "__main__":
    main()
