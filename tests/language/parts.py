"""Small random Glm4v decoders of several shapes, and transformers' own run of the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import DynamicCache, Glm4vConfig, Glm4vForConditionalGeneration

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.language import KVSegment, KVTail, LanguageModel, Past
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.rows import Rows

VOCABULARY = 64


@dataclass(frozen=True)
class Shape:
    """A decoder's shape: query heads per KV head is where layouts go wrong."""

    heads: int
    kv_heads: int
    head_dim: int = 16
    layers: int = 2
    rotary: float = 0.5
    mlp: int | None = None  # None: twice the hidden size
    native: bool = True  # whether a test may use the native decoder

    @property
    def sections(self) -> list[int]:
        pairs = int(self.head_dim * self.rotary) // 2
        return [pairs // 3, pairs // 3, pairs - 2 * (pairs // 3)]


SHAPES = (Shape(3, 1), Shape(4, 2), Shape(4, 4), Shape(8, 2, 8), Shape(16, 1, 8), Shape(6, 3, 24, rotary=1.0))


def save_random(shape: Shape, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint without a tokenizer; norms and biases are not trivial."""
    torch.manual_seed(shape.heads * 10 + shape.kv_heads)
    hidden = shape.heads * shape.head_dim
    config = Glm4vConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": hidden,
            "intermediate_size": shape.mlp or 2 * hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 4096,
            "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "partial_rotary_factor": shape.rotary,
                "mrope_section": shape.sections,
            },
        },
        vision_config={"hidden_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": hidden, "intermediate_size": 16},
        image_token_id=1,
    )
    model = Glm4vForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(path)
    return path


class Stock:
    """transformers' decoder, in fp64 unless told otherwise."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float64) -> None:
        model = Glm4vForConditionalGeneration.from_pretrained(path, dtype=dtype).eval()
        self.text, self.head = model.model.language_model, model.lm_head

    @torch.inference_mode()
    def logits(self, embeddings: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits [tokens, vocabulary] of one cold run over all of it."""
        out = self.text(
            inputs_embeds=embeddings[None].to(self.text.dtype),
            position_ids=positions[:, None],
            past_key_values=DynamicCache(config=self.text.config),
            use_cache=True,
        )
        return self.head(out.last_hidden_state[0]).float()


class Sequence:
    """One sequence of a test: its tokens in segments and a tail, with positions as of a page and a text behind it."""

    def __init__(self, model: LanguageModel, tokens: list[int], generator: torch.Generator) -> None:
        self.tokens = tokens
        self.positions = torch.randint(0, 3, (3, len(tokens)), generator=generator).cumsum(1)
        self.embeddings = model.embed(tokens)

    def rows(self, past: Past, start: int, stop: int) -> Rows:
        return Rows(past, self.tokens[start:stop], self.positions[:, start:stop], wanted=stop - start)


@torch.inference_mode()
def run(model: LanguageModel, parts: list[Rows]) -> list[torch.Tensor]:
    """One step, as the loop makes it."""
    batch = StepBatch(parts, model.heads)
    embeddings = torch.cat([model.embed(part.tokens) for part in parts])
    positions = torch.cat([part.positions for part in parts], 1)  # type: ignore[misc]
    logits = model.logits(model.forward(embeddings, positions, batch))
    batch.advance()
    return list(logits.split([len(part.tokens) for part in parts]))


def prefilled(model: LanguageModel, sequence: Sequence, segments: tuple[KVSegment, ...], start: int, stop: int) -> KVSegment:
    """Tokens [start, stop) as a segment behind `segments`."""
    tail = KVTail(model.kv_shape, stop - start)
    run(model, [sequence.rows(Past(segments, tail), start, stop)])
    return tail.seal()


def opened(path: Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return LanguageModel(Checkpoint.open(path), dtype=dtype)
