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

from glyph_rt.memory.limits import GIB
from glyph_rt.runtime import Runtime, probe_page
from glyph_rt.vision import GpuUse, default_store, open_encoder
from glyph_rt.vision.candidates import ORACLE, candidates
from glyph_rt.vision.select import Trial, survey

_PACKAGES = ("glyph-rt", "torch", "transformers", "onnxruntime", "tokenizers", "freetype-py", "tensorrt", "tensorrt-rtx")


def run(model: Path | None, device: str, as_json: bool) -> None:
    use = GpuUse(device)
    with Runtime.open(model, encoder="torch") as runtime:
        checkpoint, probe, store = runtime.checkpoint, probe_page(runtime.typesetter), default_store()
        # Measured again: what start-up remembers may be of a busier hour, or from before a library was mended.
        trials = survey(checkpoint, candidates(checkpoint, store, use), probe, store, again=True)
        chosen = open_encoder(checkpoint, "auto", probe, store, use).name
        facts = _box() | _parts(runtime, chosen)
    rows = [_row(trial, trial.name == chosen) for trial in trials]
    if as_json:
        print(json.dumps(facts | {"vision encoders": rows}))
        return
    for name, value in facts.items():
        print(f"{name:22} {value}")
    print(f"\n{'vision encoders':30} {'ms/page':>9} {'lowest cosine':>12} {'largest error':>14}")
    for row in rows:
        print(_line(row))


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


def _parts(runtime: Runtime, encoder: str) -> dict[str, Any]:
    """What glyph-rt will use."""
    checkpoint, plan, style = runtime.checkpoint, runtime.plan(), runtime.style
    return {
        "model": f"{checkpoint.path} ({checkpoint.digest[:12]})",
        "style": f"{style.name}: {style.width} x {style.height} px, {style.visual_tokens} visual tokens a page",
        "fonts": ", ".join(font.name for font in style.font_files),
        "vision encoder": f"{encoder} (exported graphs: {default_store()})",
        "decoder": f"torch {runtime.model.dtype} on {runtime.model.device}, context {plan.context:,} tokens",
        "weights of the decoder": f"{plan.weights / GIB:.3f} GiB",
        "kv memory": f"{plan.kv_budget / GIB:.2f} GiB = {plan.kv_tokens:,} tokens of {plan.kv_per_token:,} bytes",
    }


def _row(trial: Trial, chosen: bool) -> dict[str, Any]:
    """One candidate, for people and programs."""
    row: dict[str, Any] = {"name": trial.name, "chosen": chosen, "usable": not trial.problem}
    if trial.problem:
        return row | {"problem": trial.problem, "report": trial.report.splitlines()}
    return row | {"ms_per_page": round(1e3 * trial.seconds, 3), "lowest_cosine": trial.cosine, "largest_error": trial.error}


def _line(row: dict[str, Any]) -> str:
    name = f"{'*' if row['chosen'] else ' '} {row['name']:28}"
    if not row["usable"]:
        return "\n".join([f"{name} not used: {row['problem']}", *(f"{'':30} {line}" for line in row["report"])])
    why = "  chosen: the fastest that reproduces the golden pages" if row["chosen"] else ""
    parity = "  the oracle" if row["name"] == ORACLE else f"{row['lowest_cosine']:12.6f} {row['largest_error']:14.1e}"
    return f"{name}{row['ms_per_page']:10.3f} {parity}{why}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
