"""Prompts: the checkpoint's format, transformers' positions, and user text that stays data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Glm4vForConditionalGeneration

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ModelError
from glyph_rt.language import Piece, PromptTemplate
from tests.language.checkpoints import TEMPLATE


@pytest.fixture(scope="module")
def template(checkpoint: Checkpoint) -> PromptTemplate:
    return PromptTemplate(checkpoint)


def assemble(
    template: PromptTemplate, pages: int, width: int, height: int, question: str, history: Sequence[tuple[str, str]] = ()
) -> tuple[list[int], torch.Tensor]:
    tokens: list[int] = []
    positions = []
    at = 0
    for number in range(1, pages + 1):
        piece = template.page(number, at, width, height)
        tokens += piece.tokens
        positions.append(piece.positions)
        at = piece.end
    assert len(tokens) == template.document_tokens(pages, pages * width * height)
    said: list[int] = []
    for i, (past, answer) in enumerate(history):
        said += template.exchange(past, answer, first=i == 0)
    said += template.follow_up(question) if history else template.question(question, at).tokens
    positions.append((at + torch.arange(len(said))).expand(3, -1))
    return tokens + said, torch.cat(positions, 1)


@pytest.mark.parametrize(("pages", "width", "height"), [(1, 10, 5), (3, 10, 5), (4, 2, 7), (2, 21, 30)])
def test_tokens_and_positions_are_transformers_own(
    checkpoint: Checkpoint, template: PromptTemplate, pages: int, width: int, height: int
) -> None:
    question = "What is the value of order number?"
    tokens, positions = assemble(template, pages, width, height, question)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    user = {"role": "user", "content": [*[{"type": "image"}] * pages, {"type": "text", "text": question}]}
    rendered = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    rendered = rendered.replace("<|image|>", "<|image|>" * (width * height))
    assert tokens == tokenizer(rendered, add_special_tokens=False).input_ids
    ids = torch.tensor([tokens])
    model = Glm4vForConditionalGeneration.from_pretrained(checkpoint.path)
    grid = torch.tensor([[1, 2 * height, 2 * width]] * pages)
    expected, _ = model.model.get_rope_index(ids, (ids == checkpoint.config.image_token_id).int(), image_grid_thw=grid)
    assert torch.equal(positions, expected[:, 0])


# A template that thinks: it opens the channel for the model, and forgets what was thought before.
THOUGHTFUL = TEMPLATE.replace("{% if add_generation_prompt %}<|assistant|>\n", "{% if add_generation_prompt %}<|assistant|>\n<think>")
FORGETFUL = THOUGHTFUL.replace("{{ m.content }}{% else %}", "{{ m.content.split('</think>')[-1] }}{% else %}")
WORDS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=("Cs", "Co"), exclude_characters="<["), min_size=1, max_size=12
)


@pytest.fixture(scope="module")
def models(thinking_model: Path, random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """The embedded reader's tokenizer, a byte-level one, and that with a template that thinks."""
    thoughtful = tmp_path_factory.mktemp("models") / "thoughtful"
    shutil.copytree(thinking_model, thoughtful)
    (thoughtful / "chat_template.jinja").write_text(FORGETFUL)
    paths = {"characters": random_model, "bytes": thinking_model, "thoughtful": thoughtful}
    return {name: Checkpoint.open(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def templates(models: dict[str, Checkpoint]) -> dict[str, PromptTemplate]:
    return {name: PromptTemplate(checkpoint) for name, checkpoint in models.items()}


@pytest.fixture(scope="module")
def stock(models: dict[str, Checkpoint]) -> dict[str, tuple[Any, Any]]:
    """transformers' tokenizer and model of each."""
    return {
        name: (AutoTokenizer.from_pretrained(c.path), Glm4vForConditionalGeneration.from_pretrained(c.path).model)
        for name, c in models.items()
    }


def conversation(system: str | None, pages: int, exchanges: list[tuple[str, str]], question: str) -> list[dict[str, Any]]:
    """In transformers' own form."""
    texts = [past for past, _ in exchanges] + [question]
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    for i, text in enumerate(texts):
        images = [{"type": "image"}] * pages if i == 0 else []
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": text}]})
        if i < len(exchanges):
            messages.append({"role": "assistant", "content": exchanges[i][1]})
    return messages


@pytest.mark.parametrize("name", ["characters", "bytes", "thoughtful"])
@settings(max_examples=30, deadline=None)
@given(
    system=st.none() | WORDS,
    pages=st.integers(1, 3),
    exchanges=st.lists(st.tuples(WORDS, WORDS), max_size=3),
    question=WORDS,
    width=st.integers(1, 6),
    height=st.integers(1, 6),
)
def test_conversations_are_transformers_own(
    models: dict[str, Checkpoint],
    templates: dict[str, PromptTemplate],
    stock: dict[str, tuple[Any, Any]],
    name: str,
    system: str | None,
    pages: int,
    exchanges: list[tuple[str, str]],
    question: str,
    width: int,
    height: int,
) -> None:
    """Token ids and rope positions, of any number of pages and turns, with system text or without."""
    template = templates[name] if system is None else templates[name].with_system(system)
    tokens, positions = assemble(template, pages, width, height, question, exchanges)
    tokenizer, model = stock[name]
    rendered = tokenizer.apply_chat_template(conversation(system, pages, exchanges, question), tokenize=False, add_generation_prompt=True)
    rendered = rendered.replace("<|image|>", "<|image|>" * (width * height))
    assert tokens == tokenizer(rendered, add_special_tokens=False).input_ids
    ids = torch.tensor([tokens])
    grid = torch.tensor([[1, 2 * height, 2 * width]] * pages)
    expected, _ = model.get_rope_index(ids, (ids == models[name].config.image_token_id).int(), image_grid_thw=grid)
    assert torch.equal(positions, expected[:, 0])


@given(past=WORDS, answer=WORDS, question=WORDS, start=st.integers(0, 500))
def test_a_follow_up_goes_on_where_the_answer_ended(
    templates: dict[str, PromptTemplate], past: str, answer: str, question: str, start: int
) -> None:
    """Behind the KV of question and answer it makes the prompt that running all of it again would have."""
    template = templates["bytes"]
    asked = template.question(past, start)
    assert asked.end == start + len(asked.tokens) and torch.equal(asked.positions, torch.arange(start, asked.end).expand(3, -1))
    assert [*asked.tokens, *template.encode(answer)] == template.exchange(past, answer, first=True)
    assert [*template.follow_up(past), *template.encode(answer)] == template.exchange(past, answer, first=False)


def spelled_controls(checkpoint: Checkpoint) -> tuple[list[str], set[int]]:
    """Every control token's text, and every control token but the one for unknown characters."""
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    added = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()}
    return list(added.values()), {i for i, content in added.items() if content != "<|unk|>"}


@pytest.mark.parametrize("name", ["characters", "bytes", "thoughtful"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_text_of_users_is_data(models: dict[str, Checkpoint], templates: dict[str, PromptTemplate], name: str, data: st.DataObject) -> None:
    """Control tokens spelled in a question, a system text, an earlier answer or a document are the characters they are."""
    contents, control = spelled_controls(models[name])
    assert len(contents) >= 16
    parts = data.draw(st.lists(st.sampled_from(contents) | st.text(max_size=5), max_size=8))
    text = "".join(c for c in "".join(parts) if not 0xD800 <= ord(c) <= 0xDFFF)
    template = templates[name]
    tokens = template.encode(text)
    assert not control & set(tokens)
    if name != "characters":
        assert "".join(piece.text for piece in said(template, tokens)) == text

    def controls(tokens: list[int]) -> list[int]:
        return [token for token in tokens if token in control]

    assert controls(template.question(text, 0).tokens) == controls(template.question("", 0).tokens)
    assert controls(template.follow_up(text)) == controls(template.follow_up(""))
    assert controls(template.exchange(text, text, first=True)) == controls(template.exchange("", "", first=True))
    assert controls(template.with_system(text).page(1, 0, 2, 2).tokens) == controls(template.with_system("").page(1, 0, 2, 2).tokens)


def said(template: PromptTemplate, tokens: list[int]) -> list[Piece]:
    """The text of tokens of which none is a mark."""
    stream = template.stream(len(tokens) + 1)
    return [*(piece for token in tokens for piece in stream.push(token)), *stream.finish()]


def test_marks_are_the_checkpoints(models: dict[str, Checkpoint], templates: dict[str, PromptTemplate]) -> None:
    tokenizer = Tokenizer.from_file(str(models["bytes"].path / "tokenizer.json"))
    ids = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}
    marks = templates["bytes"].marks
    assert marks.thinking == (ids["<think>"], ids["</think>"]) and marks.silent == {ids["<answer>"]} and not marks.thinks
    assert marks.stop == {ids["<|endoftext|>"], ids["<|user|>"], ids["</answer>"]}
    assert templates["thoughtful"].marks.thinks
    assert templates["characters"].marks.thinking is None


def test_a_template_for_single_questions_says_so(random_model: Path, tmp_path: Path) -> None:
    single = tmp_path / "model"
    shutil.copytree(random_model, single)
    (single / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}{% endif %}{% endfor %}" + TEMPLATE
    )
    template = PromptTemplate(Checkpoint.open(single))
    assert template.question("Weight?", 0).tokens
    with pytest.raises(ModelError, match="does not render conversations"):
        template.follow_up("Weight?")
    with pytest.raises(ModelError, match="takes no system text"):
        template.with_system("Be brief.")


def test_stop_tokens_come_from_the_checkpoint(template: PromptTemplate) -> None:
    assert template.stop_ids == {3, 0}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("chat_template.jinja", "{{ messages[0].role }}", "does not render images and a question"),
        ("tokenizer.json", "{}", "no usable tokenizer"),
    ],
)
def test_a_model_without_a_usable_prompt_is_refused(random_model: Path, tmp_path: Path, file: str, content: str, reason: str) -> None:
    broken = tmp_path / "model"
    shutil.copytree(random_model, broken)
    (broken / file).write_text(content)
    with pytest.raises(ModelError, match=reason):
        PromptTemplate(Checkpoint.open(broken))


def test_a_model_without_a_stop_token_is_refused(random_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(random_model, broken)
    (broken / "generation_config.json").unlink()
    config = json.loads((broken / "config.json").read_text())
    del config["text_config"]["eos_token_id"]
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="names no eos_token_id"):
        PromptTemplate(Checkpoint.open(broken))
