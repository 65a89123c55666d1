"""LanguageModel: transformers' Glm4v decoder on our KV memory. Visual tokens and token ids in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError, NonFiniteError
from glyph_rt.language.attention import IMPLEMENTATION, Past
from glyph_rt.language.segments import KVShape

TEXT_PREFIX = "model.language_model."
HEAD = "lm_head."


class LanguageModel:
    """The decoder and its output head. Stateless: everything remembered lives in the KV memory handed in."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        config = checkpoint.config.text_config
        with torch.device("meta"):
            text = Glm4vTextModel._from_config(config, attn_implementation=IMPLEMENTATION, dtype=dtype)
        # Built outside the meta device: its frequency table is a buffer that no checkpoint holds.
        text.rotary_emb = type(text.rotary_emb)(text.config)
        tied = checkpoint.config.tie_word_embeddings and HEAD + "weight" not in checkpoint.shards
        try:
            text.load_state_dict({n: t.to(dtype) for n, t in checkpoint.tensors(TEXT_PREFIX)}, assign=True)
            head = text.embed_tokens.weight if tied else next(checkpoint.tensors(HEAD))[1].to(dtype)
        except RuntimeError as error:
            raise ModelError(f"the decoder's tensors do not fit its configuration: {' '.join(str(error).split())[:300]}") from None
        self._text = text.to(device).eval().requires_grad_(False)
        self._head: Tensor = nn.Parameter(head, requires_grad=False).to(device)
        self.device, self.dtype = device, dtype
        self.context = int(config.max_position_embeddings)  # tokens of prompt and answer together
        self.kv_shape = KVShape(
            layers=config.num_hidden_layers,
            kv_heads=config.num_key_value_heads,
            head_dim=config.hidden_size // config.num_attention_heads,
            dtype=dtype,
            device=device,
        )

    @property
    def weight_bytes(self) -> int:
        return sum(int(p.nbytes) for p in self._text.parameters()) + self._head.nbytes

    @torch.inference_mode()
    def embed(self, tokens: list[int]) -> Tensor:
        """Token ids to [tokens, hidden]."""
        return self._text.embed_tokens(torch.tensor(tokens, device=self.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def forward(self, embeddings: Tensor, positions: Tensor, past: Past) -> Tensor:
        """Run [new, hidden] at rope positions [3, new] after `past`; their KV joins its tail. Returns hidden states [new, hidden].

        Positions are always given: left out, transformers' model would take them from hidden state of its own.
        """
        new = len(embeddings)
        out = self._text(
            inputs_embeds=embeddings.to(self.dtype)[None],
            position_ids=positions[:, None].to(self.device),
            use_cache=False,
            past=past,
        )
        past.tail.advance(new)
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] to fp32 logits [n, vocabulary]. Raises NonFiniteError rather than let noise be sampled."""
        logits = nn.functional.linear(hidden, self._head).float()
        if not torch.isfinite(logits).all():
            raise NonFiniteError(f"the decoder produced NaN or infinity in {self.dtype}; use fp32 or bf16 weights")
        return logits
