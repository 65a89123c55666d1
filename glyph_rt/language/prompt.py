"""Prompt: the checkpoint's own chat template and tokenizer, cut into what belongs to a document and what to a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import AutoTokenizer

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError

_QUESTION = "\ue000question\ue001"  # private-use characters: stands for the question while the template is rendered
_ANSWER = "\ue000answer\ue001"


@dataclass(frozen=True)
class PromptPiece:
    """Consecutive prompt tokens with their rope positions.

    tokens: ids [n]; positions: int64 [3, n] (time, height, width); image: the slice of `tokens` that visual tokens replace,
    or None; end: the first position behind the piece.
    """

    tokens: list[int]
    positions: Tensor
    image: slice | None
    end: int


class PromptTemplate:
    """Builds prompts in the checkpoint's format.

    Text of a user is data: special tokens spelled in a question are encoded as the characters they are.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
            backend = tokenizer.backend_tokenizer.to_str()
        except Exception as error:  # transformers raises whatever its loader met
            raise ModelError(f"{checkpoint.path} has no usable tokenizer: {' '.join(str(error).split())[:200]}") from None
        self._control = Tokenizer.from_str(backend)
        self._data = Tokenizer.from_str(backend)
        self._data.encode_special_tokens = True
        self._image_id = int(config.image_token_id)
        self._begin, self._end = int(config.image_start_token_id), int(config.image_end_token_id)
        block = "".join(self._control.id_to_token(i) or "" for i in (self._begin, self._image_id, self._end))
        user = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": _QUESTION}]}
        if not tokenizer.chat_template:
            raise ModelError(f"{checkpoint.path} has no chat template (chat_template.jinja)")
        rendered = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        pieces = rendered.split(block)
        if len(pieces) != 3 or pieces[2].count(_QUESTION) != 1:
            raise ModelError(f"the chat template of {checkpoint.path} does not render images and a question in the GLM-4.1V form")
        before, after = pieces[2].split(_QUESTION)
        self._head, self._between, self._before, self._after = (self._encode(p) for p in (pieces[0], pieces[1], before, after))
        answered = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _QUESTION}]
        rendered = tokenizer.apply_chat_template(answered, tokenize=False, add_generation_prompt=True)
        if rendered.count(_ANSWER) != 1 or rendered.count(_QUESTION) != 1:
            raise ModelError(f"the chat template of {checkpoint.path} does not render a conversation in the GLM-4.1V form")
        before, after = rendered.split(_ANSWER)[1].split(_QUESTION)
        self._before_next, self._after_next = self._encode(before), self._encode(after)
        self.stop_ids = frozenset(self._stop_ids(checkpoint))

    def document_tokens(self, pages: int, visual_tokens: int) -> int:
        """Cache slots of a document whose pages come to `visual_tokens` in all."""
        return len(self._head) + visual_tokens + 2 * pages + len(self._between) * max(0, pages - 1)

    def page(self, number: int, start: int, width: int, height: int) -> PromptPiece:
        """Page `number` (from 1) of width x height visual tokens, at rope position `start`; page 1 brings the prompt's head.

        Positions are those of Glm4vModel.get_rope_index: text counts up in all three; inside an image time stands still
        and height and width run over the grid; the text behind goes on after the longer side.
        """
        lead = [*(self._head if number == 1 else self._between), self._begin]
        origin = start + len(lead)
        rows = origin + torch.arange(height).repeat_interleave(width)
        columns = origin + torch.arange(width).repeat(height)
        after = origin + max(height, width)
        positions = torch.cat(
            [
                (start + torch.arange(len(lead))).expand(3, -1),
                torch.stack([torch.full_like(rows, origin), rows, columns]),
                torch.full((3, 1), after),
            ],
            1,
        )
        image = slice(len(lead), len(lead) + width * height)
        return PromptPiece([*lead, *[self._image_id] * (width * height), self._end], positions, image, after + 1)

    def question(self, text: str, start: int) -> PromptPiece:
        """A question behind a document that ends at rope position `start`, up to where the answer begins."""
        tokens = [*self._before, *self._data.encode(text, add_special_tokens=False).ids, *self._after]
        return PromptPiece(tokens, (start + torch.arange(len(tokens))).expand(3, -1), None, start + len(tokens))

    def follow_up(self, text: str) -> list[int]:
        """A question behind an earlier answer, from behind that answer's last token up to where the new answer begins. Its rope positions
        count on by one per token."""
        return [*self._before_next, *self._data.encode(text, add_special_tokens=False).ids, *self._after_next]

    def encode(self, text: str) -> list[int]:
        """Text tokens of `text`: what a text model would have to read."""
        return list(self._data.encode(text, add_special_tokens=False).ids)

    def detokenizer(self) -> Detokenizer:
        """For the tokens of one answer."""
        return Detokenizer(self._control)

    def _encode(self, text: str) -> list[int]:
        return list(self._control.encode(text, add_special_tokens=False).ids)

    @staticmethod
    def _stop_ids(checkpoint: Checkpoint) -> list[int]:
        ids = checkpoint.generation.get("eos_token_id") or getattr(checkpoint.config.text_config, "eos_token_id", None)
        if ids is None:
            raise ModelError(f"{checkpoint.path} names no eos_token_id in generation_config.json or config.json")
        return [ids] if isinstance(ids, int) else list(ids)


class Detokenizer:
    """Token ids to text as they come; never half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def step(self, token: int) -> str:
        """The text that this token completes; empty while a character is still in pieces."""
        return self._stream.step(self._tokenizer, token) or ""
