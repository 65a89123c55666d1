"""Pages against the same text as tokens, on the same decoder: prefill, decoding and KV as the text grows, rendering and vision included.

    python bench/scaling.py [--tokens 4096 8192 16384] [--hidden 256] [--characters-per-token 4.2] [--threads 2] [--json FILE]

The model is random, small, and of GLM-4.1V-9B's ratios: MLP 3.34 times the width, 16 query heads to a KV head, a tower of 3/8 of the
decoder's width and 3/5 of its depth. Pages are those zai-org/Glyph was trained on (glyph-en-72: 9 pt, 72 dpi). The tokenizer of the 9B
model is not here, so a text token stands for --characters-per-token characters of English, and what is prefilled for text is that many
random ids, in chunks of a page's tokens, by the same decoder and the same attention. No question is asked: what is timed is the document,
and then steps of one token each, the two sides in turn.

Attention weighs as tokens / width, so a small model overstates what pages save on long texts: beside each measured ratio stands the
ratio of matrix FLOPs that the same pages and tokens cost GLM-4.1V-9B itself, and what the Glyph paper (arXiv:2510.17800) reports, measured
on GPUs. The 9B was never run here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from glyph_rt.export.reader.network import Reader
from glyph_rt.export.reader.package import write_package
from glyph_rt.export.reader.size import Size
from texts import prose
from towers import SIZES, flops_per_page

from glyph_rt import Document, Limits, Runtime
from glyph_rt.language import KVTail, Past
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.rows import Rows
from glyph_rt.memory.limits import GIB, MIB
from glyph_rt.typeset import PRESETS, Typesetter

PUBLISHED = {  # text tokens: prefill, decode throughput
    4096: (1.8, 2.3), 8192: (2.0, 2.3), 16384: (2.2, 2.5), 32768: (2.5, 2.7), 65536: (3.3, 3.2), 131072: (4.8, 4.4),
}  # fmt: skip
WIDTH_9B, DEPTH_9B, MLP_9B, KV_9B = 4096, 40, 13696, 256  # KV_9B: features of keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--hidden", type=int, default=256, help="the decoder's width, a multiple of 128")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--characters-per-token", type=float, default=4.2)
    parser.add_argument("--steps", type=int, default=16, help="of decoding, on each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"machine": machine(options.threads), "options": {k: v for k, v in vars(options).items() if k != "json"}}
    figures["sizes"] = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder) / "model", options.hidden, options.layers)
        limits = Limits(kv_bytes=64 * GIB, page_bytes=0, encoded_bytes=0)
        with Runtime.open(path, encoder="torch", limits=limits) as runtime:
            runtime.read(prose(2000)).close()  # warms up
            for tokens in options.tokens:
                figures["sizes"].append(one_size(runtime, tokens, options))
                print(told(figures["sizes"][-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def one_size(runtime: Runtime, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    text = prose(round(tokens * options.characters_per_token))
    start = time.perf_counter()
    with runtime.read(text) as document:
        pages_s = time.perf_counter() - start
        chunk = runtime.style.visual_tokens + 2
        start = time.perf_counter()
        as_text = prefilled_text(runtime, tokens, chunk, room=options.steps)
        text_s = time.perf_counter() - start
        pages_step, text_step = decode(runtime, document, as_text, options.steps)
        read, per_token = document.timings, runtime.model.kv_shape.bytes_per_token
        return {
            "text tokens": tokens,
            "pages": document.measure.pages,
            "document tokens": document.tokens,
            "compression": tokens / document.tokens,
            "prefill s": {
                "pages": pages_s, "of it typeset": read.typeset_s, "of it encode": read.encode_s, "of it decoder": read.prefill_s,
                "text": text_s, "ratio": text_s / pages_s,
            },
            "decode us a token": {"pages": 1e6 * pages_step, "text": 1e6 * text_step, "ratio": text_step / pages_step},
            "KV MiB": {"pages": document.kv_bytes / MIB, "text": tokens * per_token / MIB, "ratio": tokens / document.tokens},
            "prefill FLOPs of the 9B, ratio": decoder_flops(tokens) / (
                decoder_flops(document.tokens) + document.measure.pages * vision_flops(runtime)
            ),
            "published (prefill, decode)": PUBLISHED.get(tokens),
        }  # fmt: skip


@torch.inference_mode()
def prefilled_text(runtime: Runtime, tokens: int, chunk: int, room: int) -> KVTail:
    """A tail with the KV of random ids, `chunk` at a time, and room behind."""
    model = runtime.model
    tail = KVTail(model.kv_shape, tokens + room)
    ids = torch.randint(20, 100, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    for start in range(0, tokens, chunk):
        run(runtime, Past((), tail), ids[start : start + chunk], start)
    return tail


def decode(runtime: Runtime, document: Document, as_text: KVTail, steps: int) -> tuple[float, float]:
    """Seconds of a step behind the pages and behind the text, medians; in turn."""
    lease = document.means.store.pin(document.keys)
    past = Past(lease.segments, KVTail(runtime.model.kv_shape, steps))
    sides: list[Callable[[], None]] = [
        lambda: run(runtime, past, [21], document.end_position + past.tail.length),
        lambda: run(runtime, Past((), as_text), [21], as_text.length),
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(steps):
        for side, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    lease.release()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


@torch.inference_mode()
def run(runtime: Runtime, past: Past, ids: list[int], position: int) -> None:
    """One step of these ids alone, logits of the last included."""
    model = runtime.model
    batch = StepBatch([Rows(past, ids, range(position, position + len(ids)))], model.heads)
    hidden = model.forward(model.embed(ids), torch.arange(position, position + len(ids)).expand(3, -1), batch)
    model.logits(hidden[-1:])
    batch.advance()


def decoder_flops(tokens: int) -> float:
    """Of GLM-4.1V-9B's matrix products and attention, to prefill so many tokens."""
    layer = 2 * WIDTH_9B * (2 * WIDTH_9B + 2 * KV_9B + 3 * MLP_9B)
    return DEPTH_9B * (tokens * layer + 2 * WIDTH_9B * tokens**2)


def vision_flops(runtime: Runtime) -> float:
    """Of GLM-4.1V-9B's tower, for a page of the style."""
    return float(flops_per_page(SIZES["full"], 4 * runtime.style.visual_tokens))


def told(size: dict[str, Any]) -> str:
    prefill, step, published = size["prefill s"], size["decode us a token"], size["published (prefill, decode)"]
    beside = f"; published {published[0]} and {published[1]}" if published else ""
    return (
        f"{size['text tokens']:7,} text tokens, {size['pages']:3} pages, {size['compression']:.2f} times fewer tokens and KV bytes: "
        f"prefill {prefill['text']:.1f} against {prefill['pages']:.1f} s (typeset {prefill['of it typeset']:.2f}, encode "
        f"{prefill['of it encode']:.1f}), {prefill['ratio']:.2f} times; decode {step['text']:.0f} against {step['pages']:.0f} us, "
        f"{step['ratio']:.2f} times; FLOPs of the 9B {size['prefill FLOPs of the 9B, ratio']:.2f} times{beside}"
    )


def machine(threads: int) -> dict[str, Any]:
    """What ran this, and how busy it was."""
    return {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg(), "threads": threads,
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def write_model(path: Path, hidden: int, layers: int) -> Path:
    """Random, with GLM-4.1V's ratios."""
    torch.manual_seed(0)
    heads = 16
    pairs = hidden // heads // 4  # half of a head is rotated
    size = Size(
        vision_hidden=hidden * 3 // 8, vision_depth=max(1, layers * 3 // 5), vision_heads=hidden // 128, merger=hidden * 107 // 32,
        hidden=hidden, layers=layers, heads=heads, kv_heads=1, mlp=hidden * 107 // 32,
        mrope_section=(pairs // 4, pairs * 3 // 8, pairs - pairs // 4 - pairs * 3 // 8), max_positions=2**20,
    )  # fmt: skip
    write_package(Reader(size, 10, 20), Typesetter(PRESETS["glyph-en-72"]), path)
    return path


if __name__ == "__main__":
    main()
