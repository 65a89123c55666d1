"""Decoder: the layers of transformers' Glm4v text model, run as one short loop over the rows of a step.

transformers' own modules spend most of a small decode step outside their matrix products (bench/decode.py). The weights stay in
its modules, where quantisation finds them; what is run here is the same function of them, which tests hold to the stock model:

- q, k and v are one product;
- a linear is a function of the rows, without a module's hooks;
- a rotated pair is one complex number, so rope is one multiplication, in place, with factors computed once per step;
- the norm is |x| by one kernel and the square root of |x|^2 + n eps by another;
- rows of different turns lie behind each other: no batch dimension, no padding, no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel

from glyph_rt.errors import ModelError
from glyph_rt.language.attention import StepBatch


class Decoder:
    """Embeddings to hidden states, by the modules of a loaded Glm4vTextModel after `join_projections`."""

    def __init__(self, text: Glm4vTextModel) -> None:
        config = text.config
        rope = config.rope_parameters
        if config.hidden_act != "silu" or rope["rope_type"] != "default":
            raise ModelError(f"the decoder wants {config.hidden_act} and {rope['rope_type']} rope; glyph-rt runs silu and default")
        self.heads, self.kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.head_dim = int(config.hidden_size) // self.heads
        self._scale = self.head_dim**-0.5
        self._widths = [self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim]  # of queries, of keys and values
        frequencies: Tensor = text.rotary_emb.inv_freq.float()
        at_rest = self.head_dim // 2 - len(frequencies)  # the last pairs of a head, which no position turns
        self.frequencies = F.pad(frequencies, (0, at_rest))  # [head_dim / 2]
        # Which of a token's three positions (time, height, width) turns each pair.
        sections = enumerate(rope["mrope_section"])
        axes = [n % 3 for n, size in sections for _ in range(size)]
        self.axes = torch.tensor(axes + [0] * at_rest, device=frequencies.device)
        self._layers = [_Layer(layer) for layer in text.layers]
        self._norm = _Norm(text.norm)

    def forward(self, x: Tensor, positions: Tensor, batch: StepBatch) -> Tensor:
        """[rows, hidden] at rope positions [3, rows] to [rows, hidden]. Writes the rows' KV to the batch's tails, without advancing."""
        turns, rows = self._turns(positions), len(x)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.before_attention(x))
            _rotate(qkv, turns)
            query, kv = qkv.split_with_sizes(self._widths, -1)
            heads, pair = query.view(rows, self.heads, -1), kv.view(rows, 2, self.kv_heads, -1)
            mixed = batch.attend(index, heads, pair, self._scale)
            x = layer.after_attention.added_to(x, layer.out(mixed.reshape(rows, -1)))
            gate, up = layer.gate_up(layer.before_mlp(x)).chunk(2, -1)
            x = layer.after_mlp.added_to(x, layer.down(F.silu(gate).mul_(up)))
        return self._norm(x)

    def _turns(self, positions: Tensor) -> Tensor:
        """Unit complex numbers [rows, (heads + kv_heads) * head_dim / 2]: by how much each pair of a row's queries and keys is turned."""
        angles = positions[self.axes].T * self.frequencies
        return torch.polar(torch.ones_like(angles), angles).repeat(1, self.heads + self.kv_heads)


class _Layer:
    """One layer's modules, looked up once: a module's attribute costs more than an addition."""

    def __init__(self, layer: Any) -> None:
        self.qkv, self.out = _function(layer.self_attn.qkv_proj), _function(layer.self_attn.o_proj)
        self.gate_up, self.down = _function(layer.mlp.gate_up_proj), _function(layer.mlp.down_proj)
        self.before_attention, self.after_attention = _Norm(layer.input_layernorm), _Norm(layer.post_self_attn_layernorm)
        self.before_mlp, self.after_mlp = _Norm(layer.post_attention_layernorm), _Norm(layer.post_mlp_layernorm)


class _Norm:
    """Glm4vRMSNorm: x w / sqrt(mean(x^2) + eps), which is x w sqrt(n) / hypot(|x|, sqrt(n eps)). Computed in fp32."""

    def __init__(self, norm: Any) -> None:
        weight: Tensor = norm.weight.float()
        size = len(weight)
        self._weight = weight * size**0.5
        self._floor = torch.tensor((size * norm.variance_epsilon) ** 0.5, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        normed: Tensor = x * self._weight / self._length(x)
        return normed.to(x.dtype)

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual + norm(x), in fewer kernels."""
        return torch.addcdiv(residual, x * self._weight, self._length(x)).to(x.dtype)

    def _length(self, x: Tensor) -> Tensor:
        return torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32), self._floor)


def join_projections(text: Glm4vTextModel) -> None:
    """Make one linear of each layer's q, k and v, in their place, so that their memory is not held twice."""
    for layer in text.layers:
        _join(layer.self_attn)


def _join(attention: Any) -> None:
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    with torch.device("meta"):
        joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    joined.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
    attention.qkv_proj = joined
    del attention.q_proj, attention.k_proj, attention.v_proj


def _function(linear: nn.Module) -> Callable[[Tensor], Tensor]:
    """What it computes."""
    return partial(F.linear, weight=linear.weight, bias=linear.bias) if isinstance(linear, nn.Linear) else linear.forward


def _rotate(x: Tensor, turns: Tensor) -> None:
    """Turn the first pairs of each row of [rows, n], in place; neighbours form a pair (rotate_half_llm in transformers)."""
    pairs = x.view(len(x), -1, 2)[:, : turns.shape[-1]]
    if x.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(turns)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * turns))
