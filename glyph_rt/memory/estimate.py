"""Estimate: the memory plan of a model from its config.json alone, for models that are not here or too large to open.

Weights and KV are exact, since the configuration fixes every shape. Workspaces are upper estimates of what is alive at once in the widest
place of a pass; `glyph-rt plan` without --no-measure replaces them by measured ones. Attention is taken to be fused, as it is on a CPU;
where flash.py still uses plain matrices (GPUs), its scores come on top: heads x rows x context fp32 numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from transformers import Glm4vConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel, Glm4vVisionModel

from glyph_rt.errors import OptionError
from glyph_rt.language import KVShape, graphs
from glyph_rt.language.attention import SCORES_BYTES
from glyph_rt.language.batching import TURNS_PER_STEP
from glyph_rt.language.model import dtype_of
from glyph_rt.language.quantise import Quant, quantised_bytes
from glyph_rt.memory.limits import MIB, Limits
from glyph_rt.memory.plan import Budget, MemoryPlan, Share
from glyph_rt.typeset import Style
from glyph_rt.vision import MAX_BATCH

CUDA_CONTEXT = 600 * MIB  # of a process that uses cuBLAS; differs by GPU and driver
CUDA_GRAPH = 32 * MIB  # what the driver keeps of one; differs by GPU, driver and layers
PROCESS = 700 * MIB  # Python with torch and transformers, on Linux


@dataclass(frozen=True)
class Target:
    """Where and how a model is to run. Raises OptionError for what is none."""

    device: str = "cpu"  # or "cuda"
    precision: str = "fp32"  # of weights and KV
    quant: Quant | None = None  # of the decoder's linears

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise OptionError(f"no device {self.device!r}; choose one of: cpu, cuda")
        dtype_of(self.precision)

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return dtype_of(self.precision).itemsize


def vision_parameters(config: Glm4vConfig) -> int:
    """Parameters of the vision tower."""
    with torch.device("meta"):
        return sum(p.numel() for p in Glm4vVisionModel._from_config(config.vision_config).parameters())


def decoder_bytes(config: Glm4vConfig, target: Target) -> int:
    """Bytes of the decoder and its output head: the linears of its layers quantised if asked, all else in `precision`."""
    with torch.device("meta"):
        text = Glm4vTextModel._from_config(config.text_config)
    total = 0
    for name, parameter in text.named_parameters():
        if target.quant is not None and name.startswith("layers.") and parameter.ndim == 2:
            total += quantised_bytes(parameter.shape, target.quant)
        else:
            total += parameter.numel() * target.size
    head = 0 if config.tie_word_embeddings else config.text_config.vocab_size * config.text_config.hidden_size * target.size
    return total + head


def estimated_plan(config: Glm4vConfig, style: Style, limits: Limits, budget: Budget, target: Target) -> MemoryPlan:
    """The plan of a model that runs as `target` says and reads pages of `style`."""
    text = config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    turn = KVShape(text.num_hidden_layers, text.num_key_value_heads, head_dim, dtype_of(target.precision))
    document = replace(turn, kept=limits.kv_dtype)
    on_host = target.device == "cpu"
    process = Share("process and libraries", PROCESS if on_host else CUDA_CONTEXT, "estimated")
    kept = Share("texts and drawn pages", limits.host_bytes, "set by --text-bytes and page_bytes")
    shares = [
        Share("decoder weights", decoder_bytes(config, target), "counted"),
        Share("vision weights", vision_parameters(config) * target.size, "counted"),
        process,
        Share(f"vision workspace, {MAX_BATCH} pages", vision_workspace(config, style, target.size), "estimated"),
        Share("reading and answering", _decoder_workspace(config, style, target.size), "estimated"),
        *attention(document, int(text.max_position_embeddings)),
        *captured_steps(config, limits, target.size),
    ]
    return MemoryPlan.within(
        budget,
        [*shares, kept] if on_host else shares,
        kv_per_token=document.bytes_per_token,
        turn_per_token=turn.bytes_per_token,
        page_tokens=style.visual_tokens + 2,
        context=int(text.max_position_embeddings),
        host=[] if on_host else [Share("process and libraries", PROCESS, "estimated"), kept],
    )


def attention(document: KVShape, context: int) -> Iterator[Share]:
    """What a step's attention takes over documents of this shape: scores, and, of packed ones, a layer of the longest."""
    yield Share("scores of attention", SCORES_BYTES, "bounded")
    if size := document.unpacked_bytes(context):
        yield Share("unpacking a layer of KV", size, "counted, for a full context")


def captured_steps(config: Glm4vConfig, limits: Limits, size: int) -> Iterator[Share]:
    """What CUDA graphs keep beside what ordinary steps take, with numbers of `size` bytes: the graphs; one pool of memory, as large as the
    largest step wants it (scores, keys or values of a layer in fp32, rows and their logits); and a buffer of logits."""
    if not limits.cuda_graphs:
        return
    text = config.text_config
    of_layer = text.num_key_value_heads * text.hidden_size // text.num_attention_heads * 4 * text.max_position_embeddings
    rows = TURNS_PER_STEP * (_row_bytes(config, size) + text.vocab_size * (size + 4 + 4))
    yield Share("captured decode steps", graphs.GRAPHS * CUDA_GRAPH + graphs.CAPTURED_SCORES_BYTES + of_layer + rows, "estimated")


def vision_workspace(config: Glm4vConfig, style: Style, size: int) -> int:
    """Bytes beside the weights, with numbers of `size` bytes.

    Rows of all patches of a batch: in a block's attention the residual, its norm, q, k, v, their rotated copies and the outputs; in its
    MLP residual, norm, gate, up and their products; in the merger, on a quarter of the rows, gate, up and their products. Norms and the
    page's own inputs are fp32.
    """
    vision = config.vision_config
    patches = MAX_BATCH * style.visual_tokens * 4
    attention = vision.hidden_size * (9 * size + 8)
    mlp = 4 * vision.out_hidden_size * size + vision.hidden_size * (2 * size + 8)
    merger = (4 * vision.intermediate_size * size + 3 * vision.out_hidden_size * (size + 4)) // 4
    return int(patches * max(attention, mlp, merger))


def _decoder_workspace(config: Glm4vConfig, style: Style, size: int) -> int:
    """Rows of one page; and fp32 logits with what sampling makes of them, for the widest draft of one answer."""
    return int((style.visual_tokens + 2) * _row_bytes(config, size) + 4 * 40 * config.text_config.vocab_size * 2)


def _row_bytes(config: Glm4vConfig, size: int) -> int:
    """Of one row in a layer: residual, norm, q, k, v, rotated, outputs, or gate, up and their products."""
    text = config.text_config
    return int(max(text.hidden_size * (9 * size + 8), 4 * text.intermediate_size * size + text.hidden_size * (2 * size + 8)))
