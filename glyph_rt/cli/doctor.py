"""`glyph-rt doctor`: what this box has, and what will be used of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from glyph_rt.memory import GIB
from glyph_rt.runtime import Runtime
from glyph_rt.vision import default_store

_PACKAGES = ("glyph-rt", "torch", "transformers", "onnxruntime", "tokenizers", "freetype-py", "tensorrt", "tensorrt-rtx")


def run(model: Path | None, as_json: bool) -> None:
    facts = _box() | _parts(model)
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name:22} {value}")


def _box() -> dict[str, Any]:
    """What the box has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none that torch can use"
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cpu": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} torch threads",
        "memory": f"{memory / GIB:.1f} GiB",
        "gpu": gpu,
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "onnxruntime providers": ", ".join(onnxruntime.get_available_providers()),
        "onnx export": "possible" if importlib.util.find_spec("onnxscript") else "not installed (pip install 'glyph-rt[export]')",
    }


def _parts(model: Path | None) -> dict[str, Any]:
    """What glyph-rt will use, by opening it."""
    with Runtime.open(model) as runtime:
        checkpoint, plan, style = runtime.checkpoint, runtime.plan(), runtime.style
        return {
            "model": f"{checkpoint.path} ({checkpoint.digest[:12]})",
            "style": f"{style.name}: {style.width} x {style.height} px, {style.visual_tokens} visual tokens a page",
            "fonts": ", ".join(font.name for font in style.font_files),
            "vision encoder": f"{runtime.encoder.name} (exported graphs: {default_store()})",
            "decoder": f"torch {runtime.model.dtype} on {runtime.model.device}, context {plan.context:,} tokens",
            "weights of the decoder": f"{plan.weights / GIB:.3f} GiB",
            "kv memory": f"{plan.kv_budget / GIB:.2f} GiB = {plan.kv_tokens:,} tokens of {plan.kv_per_token:,} bytes",
        }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
