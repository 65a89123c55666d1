"""Decoding on a GPU with and without CUDA graphs: tokens a second at batch 1 and 8, share of the memory's bandwidth, and the same tokens.

Run through bench/gpu.sh. Two decoders: the embedded reader's, and one of GLM-4.1V-9B's shape with random weights in bf16 (`--layers 40`
is the whole of it, which takes 20 GB of disk and of memory). Answers stand on one document, whose KV is random too; greedy, no drafts,
nothing stops early. The peer is the same loop without graphs; rounds alternate. Timed is from the last first token to the first last one,
so a captured answer's time holds its ordinary steps and its captures. Random weights draw near ties, which another order of sums may
decide otherwise in bf16: there `first difference` counts, in tokens, and for the reader they must be equal.

Bound: what a step has to read (weights but for the table of embeddings, the document's KV once, the tails) at the speed of a copy within
the device's memory.

`--device cpu` runs the same code without a GPU, on a small decoder, without recording anything; its times are no GPU figures and say so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from towers import synchronize
from transformers import Glm4vConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.language import CudaRecorder, KVSegment, KVTail, LanguageModel, Past, Sampler, Sampling, StepLoop, Turn
from glyph_rt.language.graphs import Recorder, Work, eagerly
from glyph_rt.language.model import HEAD, TEXT_PREFIX
from glyph_rt.memory.estimate import captured_steps
from glyph_rt.memory.limits import GIB, MIB, Limits

BATCHES = (1, 8)


@dataclass(frozen=True)
class Size:
    """tokens of the document and of an answer, rounds beside the one that warms up."""

    document: int
    tokens: int
    rounds: int


SIZES = {"cuda": Size(8192, 192, 5), "cpu": Size(300, 40, 1)}
GLM = {"vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 13696, "num_attention_heads": 32, "num_key_value_heads": 2}
SMALL = {"vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--layers", type=int, default=8, help="of the decoder of GLM-4.1V's shape")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    machine = torch.cuda.get_device_name(0) if on_gpu else "no GPU: a dry run, whose times mean nothing"
    speed, size = copy_speed(options.device), SIZES[options.device]
    figures: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "transformers": transformers.__version__}
    figures |= {"copy GB/s": round(speed / 1e9), "document": size.document}
    with tempfile.TemporaryDirectory() as folder:
        path = random_decoder(Path(folder), GLM if on_gpu else SMALL, options.layers, options.device)
        models = {
            "reader, fp32": (Checkpoint.open(), torch.float32),
            f"{options.layers} layers of {'GLM-4.1V' if on_gpu else 'a toy'}, bf16": (Checkpoint.open(path), torch.bfloat16),
        }
        for name, (checkpoint, dtype) in models.items():
            figures[name] = one_model(checkpoint, LanguageModel(checkpoint, options.device, dtype), speed, size)
            print(json.dumps({name: figures[name]}, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not all(figures["reader, fp32"][f"batch {batch}"]["equal"] for batch in BATCHES):
        sys.exit("the reader's tokens differ with CUDA graphs")


def one_model(checkpoint: Checkpoint, model: LanguageModel, speed: float, size: Size) -> dict[str, Any]:
    recorder = Metered(eagerly if model.device == "cpu" else CudaRecorder(model.device), model.device)
    ways = {"ordinary": StepLoop(model), "captured": StepLoop(model, recorder)}
    shape = model.kv_shape
    torch.manual_seed(0)
    kv = torch.randn(shape.layers, 2, shape.kv_heads, size.document, shape.head_dim, device=model.device, dtype=model.dtype)
    document = KVSegment(kv)
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        rounds: dict[str, list[Run]] = {way: [] for way in ways}
        for number in range(size.rounds + 1):
            for way in sorted(ways, reverse=bool(number % 2)):
                rounds[way].append(decode(ways[way], document, batch, size.tokens))
        step_s = {way: [run.step_s for run in runs[1:]] for way, runs in rounds.items()}  # the first warms up
        bound = bytes_of_step(model, document, batch, size.tokens) / speed
        ratios = sorted(a / b for a, b in zip(step_s["ordinary"], step_s["captured"], strict=True))
        figures[f"batch {batch}"] = {
            "tokens/s": {way: round(batch / statistics.median(each), 1) for way, each in step_s.items()},
            "ordinary / captured": [round(x, 2) for x in (statistics.median(ratios), ratios[0], ratios[-1])],
            "share of bandwidth": {way: round(bound / statistics.median(each), 3) for way, each in step_s.items()},
            "equal": rounds["ordinary"][0].tokens == rounds["captured"][0].tokens,
            "first difference": first_difference(rounds["ordinary"][0].tokens, rounds["captured"][0].tokens),
        }
    reserved = sum(share.size for share in captured_steps(checkpoint.config, Limits(cuda_graphs=True), model.dtype.itemsize))
    memory = {"one capture, at most": round(recorder.most / MIB), "planned for all": round(reserved / MIB)}
    return figures | {"captures": recorder.captures, "MiB": memory}


@dataclass(frozen=True)
class Run:
    step_s: float
    tokens: list[list[int]]


def decode(loop: StepLoop, document: KVSegment, batch: int, tokens: int) -> Run:
    """`batch` answers on one document, each behind a prompt of its own."""
    turns = []
    for number in range(batch):
        prompt = [10 + number, 11, 12, 13, 14, 15, 16, 17]
        past = Past((document,), KVTail(loop.model.kv_shape, len(prompt) + tokens))
        turns.append(
            Turn(past, prompt, document.tokens, tokens, frozenset(), Sampler(Sampling()), subject="document", on_end=past.tail.close)
        )
    for turn in turns:
        loop.submit(turn)
    answers = [list(turn.tokens()) for turn in turns]
    stamps = [[stamp for _, stamp in answer] for answer in answers]
    step_s = (min(each[-1] for each in stamps) - max(each[0] for each in stamps)) / (tokens - 1)
    return Run(step_s, [[token for token, _ in answer] for answer in answers])


class Metered:
    """A recorder that looks at how much memory each capture takes from the device, the driver's included."""

    def __init__(self, record: Recorder, device: str) -> None:
        self.captures = self.most = 0
        self._record, self._device = record, device

    def __call__(self, work: Work) -> Work:
        before = self._free()
        replay = self._record(work)
        self.captures, self.most = self.captures + 1, max(self.most, before - self._free())
        return replay

    def _free(self) -> int:
        if self._device != "cuda":
            return 0
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]


def bytes_of_step(model: LanguageModel, document: KVSegment, batch: int, tokens: int) -> int:
    """What any way of doing a step in the middle of the answers has to read."""
    embeddings = model._text.embed_tokens.weight
    gathered = 0 if embeddings.data_ptr() == model._head.data_ptr() else embeddings.nbytes
    return model.weight_bytes - gathered + document.nbytes + batch * (tokens // 2) * model.kv_shape.bytes_per_token


def copy_speed(device: str) -> float:
    """Bytes a second that a copy within the device's memory reads and writes together, best of ten."""
    source = torch.ones(GIB if device == "cuda" else 64 * MIB, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def first_difference(ours: list[list[int]], others: list[list[int]]) -> int | None:
    """The earliest place where an answer differs."""
    places = (next((n for n, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), None) for pair in zip(ours, others, strict=True))
    return min((place for place in places if place is not None), default=None)


def random_decoder(path: Path, sizes: dict[str, int], layers: int, device: str) -> Path:
    """A checkpoint of a decoder alone, random, in bf16."""
    head_dim = sizes["hidden_size"] // sizes["num_attention_heads"]
    pairs = head_dim // 4  # half of a head's are turned
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    rope["mrope_section"] = [pairs // 4, 3 * pairs // 8, pairs - pairs // 4 - 3 * pairs // 8]
    text = sizes | {"num_hidden_layers": layers, "max_position_embeddings": 131072, "pad_token_id": 0, "rope_parameters": rope}
    config = Glm4vConfig(text_config=text, architectures=["Glm4vForConditionalGeneration"], tie_word_embeddings=False)
    with torch.device("meta"):
        shapes = {TEXT_PREFIX + name: tensor.shape for name, tensor in Glm4vTextModel._from_config(config.text_config).state_dict().items()}
    shapes[HEAD + "weight"] = torch.Size((sizes["vocab_size"], sizes["hidden_size"]))
    torch.manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if "norm" in name:
            state[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            state[name] = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(std=shape[-1] ** -0.5).cpu()
    save_file(state, path / "model.safetensors")
    config.save_pretrained(path)
    return path


if __name__ == "__main__":
    main()
