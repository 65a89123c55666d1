"""Decoding: microseconds per token beside transformers' `generate`, alone and with many questions on one document; time to a second answer.

    python bench/decode.py [--rounds 7] [--tokens 96] [--pages 20] [--threads 1] [--json FILE]

Two models: the embedded reader, and one of 24 layers with random weights. Ours is the native step, and beside it the same by torch's calls,
which larger and other decoders take. Greedy, no drafts, nothing stops early, so that all sides draw the same number of tokens; at batch 1
that they are the same tokens is checked. The peer is given a cache of the document for nothing; at batch b it gets that cache b times over,
as generate wants it, and questions of one length, so that it need not pad. Rounds alternate. Timed is from the first token of an answer to
the last, at batch b from the last first token to the first last one.

Two bounds, timed in the same process: the matrix products of one step alone by torch, with these weights and as many rows; and reading as
many bytes as the native step reads weights and KV, once.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from glyph_rt.export.reader.network import Reader
from glyph_rt.export.reader.package import write_package
from glyph_rt.export.reader.size import Size
from torch.nn import functional as F
from transformers import DynamicCache, Glm4vForConditionalGeneration, StaticCache, StoppingCriteria, StoppingCriteriaList

from glyph_rt import Document, Limits, Runtime, Sampling
from glyph_rt.typeset import PRESETS, Typesetter

BATCHES = (1, 2, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"threads": options.threads, "pages": options.pages}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in (("reader", None), ("24 layers", deep_model(Path(folder)))):
            with Runtime.open(path, encoder="torch", limits=Limits(page_bytes=0, encoded_bytes=0)) as runtime:
                figures[name] = one_model(runtime, name, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def one_model(runtime: Runtime, name: str, options: argparse.Namespace) -> dict[str, Any]:
    marks = runtime.template.marks
    runtime.template.marks = dataclasses.replace(marks, stop=frozenset())  # answers of one length
    text = text_of(runtime, options.pages)
    figures: dict[str, Any] = {}
    with runtime.read(text) as document:
        peer = Peer(runtime, document)
        print(f"{name}: {document.measure.pages} pages, {document.tokens} tokens of document, {options.threads} threads")
        ways: dict[str, Callable[[int], float]] = {
            "ours": lambda batch: ours(document, batch, options.tokens),
            "by torch": lambda batch: by_torch(runtime, document, batch, options.tokens),
            "dynamic": lambda batch: peer.dynamic(batch, options.tokens),
        }
        for batch in BATCHES:
            timed = rounds(ways | ({"static": lambda _: peer.static(options.tokens)} if batch == 1 else {}), batch, options.rounds)
            bounds = {"products": matmul_us(runtime, batch), "reading": reading_us(runtime, document)}
            us = {way: statistics.median(each) for way, each in timed.items()}
            figures[f"batch {batch}"] = {"us per step": us, "bounds us": bounds} | {
                f"{way} / ours": ratio(timed[way], timed["ours"]) for way in timed if way != "ours"
            }
            print(
                f"  batch {batch:2}: ours {us['ours']:7.0f} us a step ({us['ours'] / batch:5.0f} a token); matrix products alone "
                f"{bounds['products']:6.0f} us, reading alone {bounds['reading']:6.0f}; "
                + ", ".join(f"{way} {us[way]:7.0f} us, {told(timed[way], timed['ours'])}" for way in timed if way != "ours")
            )
            if batch == 8:
                alone = [t * 8 for t in figures["batch 1"]["samples"]["dynamic"]]
                figures["batch 8"]["eight generates in turn / ours"] = ratio(alone, timed["ours"])
                print(f"            eight answers by generate one after the other take {told(alone, timed['ours'])}")
            figures[f"batch {batch}"]["samples"] = timed
        assert ours_tokens(document, options.tokens) == peer.tokens(options.tokens), "the greedy tokens differ"
    runtime.template.marks = marks
    figures["second answer"] = second_answer(runtime, options)
    return figures


def rounds(ways: dict[str, Callable[[int], float]], batch: int, count: int) -> dict[str, list[float]]:
    """Microseconds per step of each way, in alternating order; the first round warms up."""
    timed: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(count + 1):
        for way in sorted(ways, reverse=bool(number % 2)):
            us = 1e6 * ways[way](batch)
            if number:
                timed[way].append(us)
    return timed


def question(number: int) -> str:
    """Questions of one length."""
    return f"What is the value of item {number:02}?"


def ours(document: Document, batch: int, tokens: int) -> float:
    """Seconds per step."""
    answers = [document.ask(question(n), Sampling(max_new_tokens=tokens, draft=False)) for n in range(batch)]
    spans = []
    for answer in answers:
        stamps = [stamp for _, stamp in answer._turn.tokens()]
        spans.append((stamps[0], stamps[-1]))
    for answer in answers:
        answer.close()
    return (min(end for _, end in spans) - max(start for start, _ in spans)) / (tokens - 1)


def by_torch(runtime: Runtime, document: Document, batch: int, tokens: int) -> float:
    """As `ours`, without the native step."""
    native, runtime.model.native = runtime.model.native, None
    try:
        return ours(document, batch, tokens)
    finally:
        runtime.model.native = native


def ours_tokens(document: Document, tokens: int) -> list[int]:
    answer = document.ask(question(0), Sampling(max_new_tokens=tokens, draft=False))
    list(answer)
    return answer.tokens


class Stamps(StoppingCriteria):
    """When each token was drawn; stops nothing."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # type: ignore[override]
        self.at.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


class Peer:
    """transformers' model on the same document, whose cache it finds ready."""

    def __init__(self, runtime: Runtime, document: Document) -> None:
        self.template = runtime.template
        self.model = Glm4vForConditionalGeneration.from_pretrained(runtime.checkpoint.path, dtype=torch.float32).eval()
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0
        pages = list(runtime.typesetter.pages(document.text))
        self.grid = torch.tensor([[1, page.height // 14, page.width // 14] for page in pages])
        self.ids: list[int] = []
        self.visual, self.positions, at = [], [], 0
        for page in pages:
            piece = self.template.page(page.number, at, page.width // 28, page.height // 28)
            self.ids += piece.tokens
            self.positions.append(piece.positions)
            self.visual.append(runtime.encoder.encode(page.patches[None], page.width, page.height)[0])
            at = piece.end
        with torch.inference_mode():
            self.prefix = self.fill(DynamicCache(config=self.model.config))

    def fill(self, cache: Any) -> Any:
        embeddings = self.model.model.language_model.embed_tokens(torch.tensor([self.ids]))
        embeddings[0, torch.tensor(self.ids) == self.model.config.image_token_id] = torch.cat(self.visual)
        positions = torch.cat(self.positions, 1)[:, None]
        self.model.model.language_model(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True)
        return cache

    @torch.inference_mode()
    def generate(self, batch: int, tokens: int, cache: Any) -> tuple[torch.Tensor, list[float]]:
        ids = torch.tensor([self.ids + self.template.question(question(n), 0).tokens for n in range(batch)])
        stamps = Stamps()
        self.model.model.rope_deltas = None
        out = self.model.generate(
            input_ids=ids,
            past_key_values=cache,
            image_grid_thw=self.grid.repeat(batch, 1),
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
            max_new_tokens=tokens,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([stamps]),
        )
        return out[:, ids.shape[1] :], stamps.at

    def dynamic(self, batch: int, tokens: int) -> float:
        cache = copy.deepcopy(self.prefix)
        if batch > 1:
            cache.batch_repeat_interleave(batch)
        at = self.generate(batch, tokens, cache)[1]
        return (at[-1] - at[0]) / (tokens - 1)

    def static(self, tokens: int) -> float:
        room = len(self.ids) + len(self.template.question(question(0), 0).tokens) + tokens
        with torch.inference_mode():
            cache = self.fill(StaticCache(config=self.model.config, max_cache_len=room))
        at = self.generate(1, tokens, cache)[1]
        return (at[-1] - at[0]) / (tokens - 1)

    def tokens(self, tokens: int) -> list[int]:
        return self.generate(1, tokens, copy.deepcopy(self.prefix))[0][0].tolist()


@torch.inference_mode()
def matmul_us(runtime: Runtime, batch: int) -> float:
    """The matrix products of one step, layer after layer, so that weights come from where they come from in a step."""
    model = runtime.model
    modules = [module for module in model._text.modules() if isinstance(module, torch.nn.Linear)]
    inputs = [torch.randn(batch, module.in_features) for module in modules]
    hidden = torch.randn(batch, model._head.shape[1])

    def step() -> None:
        for module, x in zip(modules, inputs, strict=True):
            F.linear(x, module.weight, module.bias)
        F.linear(hidden, model._head)

    return 1e6 * min(seconds(step) for _ in range(50))


@torch.inference_mode()
def reading_us(runtime: Runtime, document: Document) -> float:
    """Adding up as many bytes as a step reads."""
    assert runtime.model.native is not None, "both models are small, and in fp32"
    numbers = torch.ones((runtime.model.native.weight_bytes + document.kv_bytes) // 4)
    return 1e6 * min(seconds(numbers.sum) for _ in range(50))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def second_answer(runtime: Runtime, options: argparse.Namespace) -> dict[str, float]:
    """Time to the first token of a first and of a second question on a text that was never read."""
    shares, firsts, seconds_ = [], [], []
    for number in range(options.rounds + 1):
        text = f"{number}\n" + text_of(runtime, options.pages)
        start = time.perf_counter()
        with runtime.read(text) as document:
            reading = time.perf_counter() - start
            times = []
            for n in range(2):
                answer = document.ask(question(n), Sampling(max_new_tokens=4))
                assert answer.text is not None and answer.timings is not None
                times.append(answer.timings.prefill_s)
        if number:
            firsts.append(reading + times[0])
            seconds_.append(times[1])
            shares.append(times[1] / (reading + times[0]))
    shares.sort()
    print(
        f"  first token of the first answer after {1e3 * statistics.median(firsts):.0f} ms, of the second after "
        f"{1e3 * statistics.median(seconds_):.1f} ms: {statistics.median(shares):.1%} ({shares[0]:.1%} to {shares[-1]:.1%})"
    )
    return {"first s": statistics.median(firsts), "second s": statistics.median(seconds_), "share": statistics.median(shares)}


def ratio(theirs: list[float], mine: list[float]) -> list[float]:
    """Median, least and most, paired within rounds."""
    each = sorted(a / b for a, b in zip(theirs, mine, strict=True))
    return [round(x, 2) for x in (statistics.median(each), each[0], each[-1])]


def told(theirs: list[float], mine: list[float]) -> str:
    median, least, most = ratio(theirs, mine)
    return f"{median:.2f} times ours ({least:.2f} to {most:.2f})"


def text_of(runtime: Runtime, pages: int) -> str:
    lines = runtime.typesetter.rows * pages
    text = "".join(f"item {n % 100:02}: {n * 7919 % 100_000}\n" for n in range(lines))
    assert runtime.measure(text).pages == pages
    return text


def deep_model(folder: Path) -> Path:
    """24 layers, 8 query heads on 2 KV heads, random."""
    torch.manual_seed(0)
    size = Size(
        vision_hidden=64, vision_depth=2, vision_heads=2, merger=96,
        hidden=256, layers=24, heads=4, kv_heads=1, mlp=512, mrope_section=(4, 6, 6),
    )  # fmt: skip
    reader = Reader(size, 10, 20)
    write_package(reader, Typesetter(PRESETS["reader"]), folder / "deep")
    return folder / "deep"


if __name__ == "__main__":
    main()
