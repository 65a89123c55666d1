"""What only a GPU can tell: parity of the encoder and the decoder there with the CPU. bench/gpu_tower.py and gpu_decode.py have the speed.

Run through bench/gpu.sh. `--device cpu` runs the same code without a GPU, to see that it runs; its times are no GPU figures and
say so.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.documents import Document
from glyph_rt.language import LanguageModel, PromptTemplate, Sampling
from glyph_rt.memory.limits import Limits
from glyph_rt.runtime import Runtime, open_typesetter
from glyph_rt.vision.torch_encoder import TorchEncoder

CONTRACT = Path(__file__).parents[1] / "examples" / "contract.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    name = torch.cuda.get_device_name(0) if options.device == "cuda" else "no GPU: a dry run of the checks"
    checkpoint = Checkpoint.open()
    figures: dict[str, Any] = {"machine": name, "torch": torch.__version__, "transformers": transformers.__version__}
    figures["vision parity"] = vision_parity(checkpoint, options.device)
    figures["decoder parity"] = decoder_parity(checkpoint, options.device)
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
            answers[place] = [ask(document, key) for key in ("Pump type", "Monthly fee", "Notice period")]
    return {"cpu": answers["cpu"], device: answers[device], "equal": answers["cpu"] == answers[device]}


def ask(document: Document, key: str) -> str:
    return document.ask(f"What is the value of {key}?", Sampling(max_new_tokens=32)).text


if __name__ == "__main__":
    main()
