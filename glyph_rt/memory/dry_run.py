"""Dry run: what reading and answering take beside weights and KV, measured on the opened model before it serves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from glyph_rt.language import Sampling
from glyph_rt.memory.estimate import attention, captured_steps, vision_parameters
from glyph_rt.memory.limits import KIB, peak_rss_bytes
from glyph_rt.memory.plan import Budget, MemoryPlan, Share
from glyph_rt.vision import MAX_BATCH

if TYPE_CHECKING:
    from glyph_rt.runtime import Runtime

_SENTENCE = "The quick brown fox jumps over 13 lazy dogs.\n"
_ANSWER_TOKENS = 8


class Meter(Protocol):
    """Counts the bytes in use where a decoder runs, everything included."""

    def now(self) -> int: ...

    def peak_of(self, work: Callable[[], None]) -> int:
        """Run `work`: by how much memory in use grew at its highest."""
        ...


class HostMeter:
    """Resident memory of this process."""

    def now(self) -> int:
        return _status("VmRSS")

    def peak_of(self, work: Callable[[], None]) -> int:
        with suppress(OSError):  # Linux forgets the peak so far when told "5" (proc(5)); elsewhere it stands, and growth may be missed
            Path("/proc/self/clear_refs").write_text("5")
        before = self.now()
        work()
        return max(0, _status("VmHWM") - before)


class CudaMeter:
    """Memory of one GPU, whoever uses it: libraries beside torch allocate too. Not checked on a GPU yet."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def now(self) -> int:
        free, total = torch.cuda.mem_get_info(self._device)
        return total - free

    def peak_of(self, work: Callable[[], None]) -> int:
        torch.cuda.empty_cache()
        before, allocated = self.now(), torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        by_torch = torch.cuda.max_memory_allocated(self._device) - allocated
        return max(0, by_torch, self.now() - before)


def guard(device: str, budget: Budget) -> None:
    """Let torch refuse what would go beyond the budget on a GPU: the last guard, where a plan was wrong."""
    if device != "cpu":
        _, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget.size / total), device)


def dry_run_plan(opened: Runtime, budget: Budget) -> MemoryPlan:
    """The plan for `budget`, from a dry run on the parts of `opened`. It may turn out not to hold.

    Encodes the largest batch of full pages, then reads it as a document and answers a question about it: workspaces are what this
    takes beyond what was in use, less the KV memory, which the plan counts by itself.
    """
    tokens = min(opened.model.context, (MAX_BATCH + 1) * (opened.style.visual_tokens + 2) + 512)
    with opened.with_kv(tokens * max(opened.kv_shape.bytes_per_token, opened.model.kv_shape.bytes_per_token)) as runtime:
        return _measured(runtime, _probe_text(runtime), budget)


def _measured(runtime: Runtime, text: str, budget: Budget) -> MemoryPlan:
    model, limits = runtime.model, runtime.limits
    meter: Meter = HostMeter() if model.device == "cpu" else CudaMeter(model.device)
    idle = meter.now()
    page = next(runtime.typesetter.pages(text))
    patches = np.stack([page.patches] * MAX_BATCH)
    kv = 0

    def encode() -> None:
        runtime.encoder.encode(patches, page.width, page.height)

    def read() -> None:
        nonlocal kv
        with runtime.read(text) as document, document.ask("?", Sampling(max_new_tokens=_ANSWER_TOKENS)) as answer:
            kv = document.kv_bytes + answer.kv_bytes
            assert answer.text is not None

    vision = meter.peak_of(encode)
    reading = max(0, meter.peak_of(read) - kv)
    decoder, tower = model.weight_bytes, _vision_weights(runtime)
    on_host = model.device == "cpu"
    kept = Share("texts and drawn pages", limits.host_bytes, "set by --text-bytes and page_bytes")
    shares = [
        Share("decoder weights", decoder, "counted"),
        Share("vision weights", tower, "counted"),
        Share("process and libraries", max(0, idle - decoder - tower), "measured"),
        Share(f"vision workspace, {MAX_BATCH} pages", vision, "measured"),
        Share("reading and answering", max(0, reading - vision), "measured, beyond vision"),
        *attention(runtime.kv_shape, model.context),
        *captured_steps(runtime.checkpoint.config, limits, model.dtype.itemsize),
    ]
    return MemoryPlan.within(
        budget,
        [*shares, kept] if on_host else shares,
        kv_per_token=runtime.kv_shape.bytes_per_token,
        turn_per_token=model.kv_shape.bytes_per_token,
        page_tokens=runtime.style.visual_tokens + 2,
        context=model.context,
        host=[] if on_host else [Share("process and libraries", HostMeter().now(), "measured"), kept],
    )


def _vision_weights(runtime: Runtime) -> int:
    """Bytes of the tower as its encoder holds it: half of fp32 where its name says so."""
    half = any(precision in runtime.encoder.name for precision in ("fp16", "bf16"))
    return vision_parameters(runtime.checkpoint.config) * (2 if half else 4)


def _probe_text(runtime: Runtime) -> str:
    """A text of MAX_BATCH pages, or of as many as the context holds."""
    wanted = min(MAX_BATCH, max(1, runtime.pages_in_context - 1))
    return _SENTENCE * bisect_right(range(1, 2**14), wanted, key=lambda lines: runtime.measure(_SENTENCE * lines).pages)


def _status(field: str) -> int:
    """A size of /proc/self/status; where there is none, the peak the system keeps."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return peak_rss_bytes()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) * KIB
