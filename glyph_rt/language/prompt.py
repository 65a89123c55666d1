"""Prompt: the checkpoint's own chat template and tokenizer, cut into what belongs to a document and what to a conversation about it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError
from glyph_rt.language.constraints import Grammars
from glyph_rt.language.stopping import AnswerStream, Marks

# Private-use characters around a name: stand for texts while the template is rendered.
_SYSTEM, _QUESTION, _ANSWER, _NEXT = (f"\ue000{name}\ue001" for name in ("system", "question", "answer", "next"))


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
    """Builds prompts in the checkpoint's format: system text, pages, then questions and answers in turn.

    Text of a user is data: whatever control tokens are spelled in it, it is encoded as the characters it is. Texts are encoded apart
    from the template around them, so a tokenizer that joins blanks across that border would have spelled the same prompt differently.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        self._path = checkpoint.path
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
            backend = tokenizer.backend_tokenizer.to_str()
        except Exception as error:  # transformers raises whatever its loader met
            raise ModelError(f"{checkpoint.path} has no usable tokenizer: {' '.join(str(error).split())[:200]}") from None
        if not tokenizer.chat_template:
            raise ModelError(f"{checkpoint.path} has no chat template (chat_template.jinja)")
        self._control = Tokenizer.from_str(backend)
        self._data = data_tokenizer(backend)
        self._image_id = int(config.image_token_id)
        self._begin, self._end = int(config.image_start_token_id), int(config.image_end_token_id)
        self._cut(tokenizer)
        self.marks = self._marks(_stop_ids(checkpoint))
        self.grammars = Grammars(self._control, self.marks, int(config.text_config.vocab_size))

    @property
    def stop_ids(self) -> frozenset[int]:
        return self.marks.stop

    @property
    def frame(self) -> list[int]:
        """The token ids that every document's prompt holds, the image token once."""
        return [*self._head, self._begin, self._image_id, self._end]

    def with_system(self, text: str) -> PromptTemplate:
        """This template with a system text in front of the pages. Raises ModelError if the chat template has no place for one."""
        if self._system is None:
            raise ModelError(
                f"the chat template of {self._path} takes no system text", public="the model takes no system text", field="system"
            )
        before, after = self._system
        changed = copy.copy(self)
        changed._head = [*before, *self.encode(text), *after]
        return changed

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
        """The first question behind a document that ends at rope position `start`, up to where the answer begins."""
        tokens = [*self._before, *self.encode(text), *self._after]
        return PromptPiece(tokens, (start + torch.arange(len(tokens))).expand(3, -1), None, start + len(tokens))

    def follow_up(self, text: str) -> list[int]:
        """A question behind an earlier answer, from behind that answer's last token up to where the new answer begins. Rope positions
        count on by one per token. Raises ModelError if the chat template does not render conversations."""
        _, follow = self._conversation()
        return [*follow, *self.encode(text), *self._after]

    def exchange(self, question: str, answer: str, first: bool) -> list[int]:
        """An earlier question, the first or a later one, and its answer without thoughts, as the template has them once they are past."""
        answered, follow = self._conversation()
        return [*(self._before if first else follow), *self.encode(question), *answered, *self.encode(answer)]

    def encode(self, text: str) -> list[int]:
        """Text tokens of `text`: what a text model would have to read. Never a control token."""
        return list(self._data.encode(text, add_special_tokens=False).ids)

    def stream(self, most: int, stops: Sequence[str] = ()) -> AnswerStream:
        """For one answer of at most `most` tokens."""
        return AnswerStream(self._control, self.marks, most, stops)

    def _cut(self, tokenizer: Any) -> None:
        """Render conversations of placeholders, and keep what stands between them."""
        image: dict[str, Any] = {"type": "image"}
        pages: dict[str, Any] = {"role": "user", "content": [image, image, {"type": "text", "text": _QUESTION}]}
        block = "".join(self._control.id_to_token(i) or "" for i in (self._begin, self._image_id, self._end))
        cut = _split(tokenizer, [pages], (block, block, _QUESTION))
        if cut is None:
            raise ModelError(f"the chat template of {self._path} does not render images and a question in the GLM-4.1V form")
        self._head, self._between, self._before, self._after = map(self._encode, cut)
        cut = _split(tokenizer, [{"role": "system", "content": _SYSTEM}, pages], (_SYSTEM, block, block, _QUESTION))
        self._system = None if cut is None else (self._encode(cut[0]), self._encode(cut[1]))
        follow = {"role": "user", "content": [{"type": "text", "text": _NEXT}]}
        said: list[dict[str, Any]] = [pages, {"role": "assistant", "content": _ANSWER}, follow]
        cut = _split(tokenizer, said, (block, block, _QUESTION, _ANSWER, _NEXT))
        self._said = None if cut is None else (self._encode(cut[3]), self._encode(cut[4]))

    def _conversation(self) -> tuple[list[int], list[int]]:
        """The tokens between a question and its answer, once given, and between that and the next question."""
        if self._said is None:
            raise ModelError(
                f"the chat template of {self._path} does not render conversations of several questions",
                public="the model takes no conversations of several questions",
                field="conversation_id",
            )
        return self._said

    def _encode(self, text: str) -> list[int]:
        return list(self._control.encode(text, add_special_tokens=False).ids)

    def _marks(self, stop: frozenset[int]) -> Marks:
        """GLM-4.1V-Thinking writes <think>notes</think><answer>text</answer>; a model whose tokenizer lacks these does not."""
        added = {token.content: i for i, token in self._control.get_added_tokens_decoder().items()}
        begin, end = added.get("<think>"), added.get("</think>")
        silent = frozenset({added["<answer>"]}) if "<answer>" in added else frozenset()
        if "</answer>" in added:
            stop |= {added["</answer>"]}
        if begin is None or end is None:
            return Marks(stop, None, silent)
        opened = [token for token in self._after if token in (begin, end)]
        return Marks(stop, (begin, end), silent, thinks=opened[-1:] == [begin])


def _split(tokenizer: Any, messages: list[dict[str, Any]], marks: Sequence[str]) -> list[str] | None:
    """The rendered prompt around `marks`, which have to stand in it in this order and nowhere else; None when they do not."""
    try:
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates raise what they like, over roles they do not know
        return None
    parts = []
    for mark in marks:
        part, found, rendered = rendered.partition(mark)
        if not found:
            return None
        parts.append(part)
    parts.append(rendered)
    return None if any(mark in part for mark in marks for part in parts) else parts


def data_tokenizer(backend: str) -> Tokenizer:
    """The tokenizer without its added tokens, so that none can come out of a text, be it marked as special or not."""
    specification = json.loads(backend)
    added = {token["id"]: token["content"] for token in specification["added_tokens"]}
    specification["added_tokens"] = []
    data = Tokenizer.from_str(json.dumps(specification))
    unknown = data.token_to_id(specification["model"].get("unk_token") or "")
    for content in added.values():
        spelled = set(data.encode(content, add_special_tokens=False).ids) & set(added) - {unknown}
        if spelled:
            raise ModelError(f"the tokenizer makes a control token of the text {content!r}; it cannot tell data from control")
    return data


def _stop_ids(checkpoint: Checkpoint) -> frozenset[int]:
    ids = checkpoint.generation.get("eos_token_id") or getattr(checkpoint.config.text_config, "eos_token_id", None)
    if ids is None:
        raise ModelError(f"{checkpoint.path} names no eos_token_id in generation_config.json or config.json")
    return frozenset([ids] if isinstance(ids, int) else ids)
