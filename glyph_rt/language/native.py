"""The decode step in one native call, for small fp32 decoders on a CPU.

A step of a few rows of such a decoder spends four fifths of its time between torch's calls (bench/decode.py). core/ runs all its layers
over the rows in one, on one thread and without the GIL, and reads KV where torch has it. decoder.py stays the reference, and runs whatever
is not for this: other devices and dtypes, quantised weights, packed KV, large weights, and parts of a step with many rows.

A row's result never depends on what else is in the step, to the bit: every sum has an order of its own. So an answer is the same beside
others as alone, but for what torch computed of it: its document's pages, and a question of more than `MOST_ROWS` tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel

from glyph_rt.language import _step
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.decoder import Decoder
from glyph_rt.language.drafting import LONGEST_DRAFT
from glyph_rt.language.rows import Rows
from glyph_rt.language.segments import KVShape
from glyph_rt.memory.limits import KVDtype

# Rows of one turn: a token and the longest draft, so that a drafted answer has no row of torch's. Beyond, torch's blocked products are
# as fast on one thread, and use several.
MOST_ROWS = 1 + LONGEST_DRAFT
# Of a layer's weights, or the output head's. torch spends some 300 us a layer between its products, about what one thread takes to read
# this much; torch's threads read it together. Measured on one thread each, the native step is 2.2 times as fast at 2 MiB a layer, 1.8 times
# at 8, 1.5 times at 34, and up to 9 times with weights in halves; many threads were not at hand.
LAYER_BYTES = 8 * 2**20
# A head's features fill vectors of the widest instruction set. With 8 of them, behind 28,488 tokens, a step took 24.3 ms and torch's 4.6
# (bench/scaling.py).
WIDEST = 16


class NativeDecoder:
    """A decoder's layers and its output head, run by core/. Reads the weights where they are; what it can keep in halves, it copies."""

    def __init__(self, text: Glm4vTextModel, head: Tensor, reference: Decoder) -> None:
        layers, output = [_weights(layer) for layer in text.layers], _packed(head)
        self._model = _step.Model(
            layers=layers,
            norm=text.norm.weight.numpy(),
            head=output,
            frequencies=reference.frequencies.numpy(),
            axes=reference.axes.tolist(),
            heads=reference.heads,
            kv_heads=reference.kv_heads,
            eps=float(text.norm.variance_epsilon),
        )
        self._words = len(head)
        # What a step reads of them; norms and biases do not count.
        self.weight_bytes = output.nbytes + sum(weight.nbytes for (qkv, _), *rest in layers for weight in (qkv, *rest[:3]))

    @staticmethod
    def can_run(text: Glm4vTextModel, head: Tensor, shape: KVShape) -> bool:
        """Whether these weights and this KV are what it is for."""
        linears = [linear for layer in text.layers for linear in _linears(layer)]
        return (
            shape.device == "cpu"
            and shape.dtype == torch.float32
            and shape.head_dim % WIDEST == 0
            and all(isinstance(linear, nn.Linear) for linear in linears)
            and max(head.nbytes, sum(linear.weight.nbytes for linear in linears) // len(text.layers)) <= LAYER_BYTES
        )

    @staticmethod
    def takes(part: Rows) -> bool:
        """Whether a part of a step is for it."""
        past = part.past
        packed = past.tail.shape.kept != KVDtype.MODEL or any(segment.scales is not None for segment in past.segments)
        return len(part.tokens) <= MOST_ROWS and not packed

    def forward(self, x: Tensor, positions: Tensor, batch: StepBatch) -> Tensor:
        """As Decoder.forward, of parts that it takes."""
        # By their place in the chain, whoever else sees them, so that a row sees them in the order of its own.
        shared = sorted((each for group in batch.groups for each in group.shared), key=lambda each: each.before)
        for span in batch.spans:
            span.tail.length_with(span.rows)  # core/ would refuse it, too, but without figures
        out = x.clone(memory_format=torch.contiguous_format)
        self._model.forward(
            out.numpy(),
            positions.numpy(),
            [(each.segment.native, each.start, each.stop) for each in shared],
            [(span.tail.buffer.native, span.tail.length, span.start, span.stop) for span in batch.spans],
        )
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] to logits [n, vocabulary]."""
        out = torch.empty(len(hidden), self._words)
        self._model.logits(hidden.numpy(), out.numpy())
        return out


def _linears(layer: Any) -> tuple[Any, Any, Any, Any]:
    return layer.self_attn.qkv_proj, layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj


def _weights(layer: Any) -> tuple[Any, ...]:
    """In the order of _step.Model."""
    qkv, out, gate_up, down = _linears(layer)
    norms = layer.input_layernorm, layer.post_self_attn_layernorm, layer.post_attention_layernorm, layer.post_mlp_layernorm
    return (
        (_packed(qkv.weight), qkv.bias.numpy()),
        *(_packed(linear.weight) for linear in (out, gate_up, down)),
        *(norm.weight.numpy() for norm in norms),
    )


def _packed(weight: Tensor) -> Any:
    """The upper halves of the weights, uint16, if the lower are all zero, as those of a checkpoint in bfloat16 are. Else the weights.

    The same numbers in half the bytes, which are what a step waits for.
    """
    halves = weight.to(torch.bfloat16)
    return (halves.view(torch.uint16) if torch.equal(halves.float(), weight) else weight).numpy()
