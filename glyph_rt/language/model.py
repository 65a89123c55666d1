"""LanguageModel: Glm4v's decoder on our KV memory. Visual tokens and token ids in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError, OptionError
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.decoder import Decoder, join_projections
from glyph_rt.language.native import NativeDecoder
from glyph_rt.language.quantise import Quant, quantise
from glyph_rt.language.segments import KVShape

TEXT_PREFIX = "model.language_model."
HEAD = "lm_head."
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LanguageModel:
    """The decoder and its output head. Stateless: everything remembered lives in the KV memory handed in.

    Raises ModelError for a checkpoint that does not fit together, OptionError for a device there is not.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", dtype: torch.dtype = torch.float32, quant: Quant | None = None) -> None:
        _check_device(device)
        config = checkpoint.config.text_config
        with torch.device("meta"):
            text = Glm4vTextModel._from_config(config, dtype=dtype)
        # Built outside the meta device: its frequency table is a buffer that no checkpoint holds.
        text.rotary_emb = type(text.rotary_emb)(text.config)
        tied = checkpoint.config.tie_word_embeddings and HEAD + "weight" not in checkpoint.shards
        try:
            text.load_state_dict({n: t.to(dtype) for n, t in checkpoint.tensors(TEXT_PREFIX)}, assign=True)
            head = text.embed_tokens.weight if tied else next(checkpoint.tensors(HEAD))[1].to(dtype)
        except RuntimeError as error:
            raise ModelError(f"the decoder's tensors do not fit its configuration: {' '.join(str(error).split())[:300]}") from None
        join_projections(text)
        if quant is not None:  # before the rest follows, so that the device never holds what is not quantised yet
            quantise(text.layers, quant, device)
        self._text = text.to(device).eval().requires_grad_(False)
        self._decoder = Decoder(self._text)
        self._head: Tensor = nn.Parameter(head, requires_grad=False).to(device)
        self.device, self.dtype, self.quant = device, dtype, quant
        self.context = int(config.max_position_embeddings)  # tokens of prompt and answer together
        self.heads = self._decoder.heads  # of queries
        self.vocabulary = len(self._head)
        self.kv_shape = KVShape(config.num_hidden_layers, self._decoder.kv_heads, self._decoder.head_dim, dtype, device)
        self.native: NativeDecoder | None = None  # of steps with few rows; None: torch runs them all
        if NativeDecoder.can_run(self._text, self._head, self.kv_shape):
            self.native = NativeDecoder(self._text, self._head, self._decoder)

    @property
    def weight_bytes(self) -> int:
        tied = self._head.data_ptr() == self._text.embed_tokens.weight.data_ptr()
        held = [*self._text.parameters(), *self._text.buffers(), *([] if tied else [self._head])]
        return sum(int(tensor.nbytes) for tensor in held)

    @torch.inference_mode()
    def embed(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Token ids to [tokens, hidden]."""
        return nn.functional.embedding(torch.as_tensor(tokens, device=self.device), self._text.embed_tokens.weight)

    @torch.inference_mode()
    def forward(self, embeddings: Tensor, positions: Tensor, batch: StepBatch) -> Tensor:
        """Run [rows, hidden] at rope positions [3, rows] to hidden states [rows, hidden].

        Writes the rows' KV to the batch's tails without advancing them, so a pass that raised may be run again.
        """
        x, positions = embeddings.to(self.dtype), positions.to(self.device)
        if self.native is None or batch.choose is not None:  # how it attends is prescribed
            return self._decoder.forward(x, positions, batch)
        small = [n for n, part in enumerate(batch.parts) if self.native.takes(part)]
        if not small:
            return self._decoder.forward(x, positions, batch)
        if len(small) == len(batch.parts):
            return self.native.forward(x, positions, batch)
        out = torch.empty_like(x)
        large = [n for n in range(len(batch.parts)) if n not in small]
        for forward, chosen in ((self.native.forward, small), (self._decoder.forward, large)):
            alone, rows = batch.only(chosen)
            out[rows] = forward(x[rows], positions[:, rows], alone)
        return out

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] to fp32 logits [n, vocabulary]."""
        if self.native is not None:
            return self.native.logits(hidden)
        return nn.functional.linear(hidden, self._head).float()


def dtype_of(precision: str) -> torch.dtype:
    """Raises OptionError for what is none."""
    if precision not in DTYPES:
        raise OptionError(f"no precision {precision!r}; choose one of: {', '.join(DTYPES)}")
    return DTYPES[precision]


def _check_device(device: str) -> None:
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise OptionError(f"no device {device!r}; choose one of: cpu, cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"torch has no GPU here for --device {device}; install a build of it with CUDA, or choose cpu")
