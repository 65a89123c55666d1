"""Building the vision tower's TensorRT engine: time, peak memory, size, and attentions fused. No GPU is needed.

    python bench/engine_build.py [--profile rtx-4090] [--depth 24] [--hidden 1536] [--json bench/results/engine_build.json]

The tower has GLM-4.1V's shape and random weights (the build does not depend on their values); it is exported as `glyph-rt export`
does, with its weights in a file beside the graph, and built by TensorRT for RTX in a process of its own, whose peak memory is the build's.
Exits with 1 unless every attention was fused.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEPTH, HIDDEN = 24, 1536  # GLM-4.1V-9B's vision tower


def export(folder: Path, flavour: str, precision: str, depth: int, hidden: int) -> None:
    """Write a random tower as `folder`/vision.onnx, the weights beside it."""
    import torch
    from glyph_rt.export.vision import trace
    from transformers.models.glm4v.configuration_glm4v import Glm4vVisionConfig

    from glyph_rt.vision.graph import GraphKind
    from glyph_rt.vision.torch_encoder import DTYPES
    from glyph_rt.vision.tower import VisionTower

    config = Glm4vVisionConfig(depth=depth, hidden_size=hidden, num_heads=hidden // 128, out_hidden_size=4096, intermediate_size=13696)
    torch.manual_seed(0)
    with torch.device("meta"):
        tower = VisionTower(config)
    weights = {name: (0.02 * torch.randn(p.shape)).to(DTYPES[precision]) for name, p in tower.state_dict().items()}
    tower.load_state_dict(weights, assign=True)
    start = time.perf_counter()
    program = trace(tower.eval().requires_grad_(False), torch.zeros(24 * 24, hidden), GraphKind(flavour, precision))
    program.save(folder / "vision.onnx", external_data=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    parameters = sum(p.numel() for p in weights.values())
    print(json.dumps({"parameters": parameters, "onnx_bytes": size, "export_s": round(time.perf_counter() - start, 1), **_peak()}))


def build(path: Path, profile_name: str, depth: int) -> None:
    from glyph_rt.export.build import build_engine
    from glyph_rt.export.graph_file import GraphFile
    from glyph_rt.export.profiles import load_profile

    from glyph_rt.vision.trt_api import load

    profile = load_profile(profile_name)
    trt = load(profile.tensorrt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    built = build_engine(trt, GraphFile.open(path), profile, depth)
    figures = {"tensorrt": f"{trt.flavour} {trt.version}", "build_s": round(built.seconds, 1), "plan_bytes": len(built.plan)}
    figures |= {"scratch_bytes": built.scratch, "fused": built.fusion.fused, "depth": depth, "imports_bytes": before}
    print(json.dumps(figures | _peak()))
    if not built.fusion.complete:
        sys.exit(f"only {built.fusion}")


def _peak() -> dict[str, int]:
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rtx-4090")
    parser.add_argument("--flavour", default="modern", choices=["modern", "portable"])
    parser.add_argument("--precision", default="fp16", choices=["fp16", "bf16"])
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # set: one of the two steps, in a process of its own
    parser.add_argument("--step", choices=["export", "build"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "export":
        return export(options.folder, options.flavour, options.precision, options.depth, options.hidden)
    if options.step == "build":
        return build(options.folder / "vision.onnx", options.profile, options.depth)
    figures = {"profile": options.profile, "flavour": options.flavour, "precision": options.precision, "hidden": options.hidden}
    with tempfile.TemporaryDirectory() as folder:
        for step in ("export", "build"):
            done = subprocess.run(
                [sys.executable, *sys.argv, "--folder", folder, "--step", step], stdout=subprocess.PIPE, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            figures |= {f"{step}_{name}" if name == "peak_bytes" else name: value for name, value in found.items()}
            for name, value in found.items():
                print(f"{name:14} {value:,}" if isinstance(value, int) else f"{name:14} {value}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
