"""Answers on an opened model: system texts, thoughts, stop strings and conversations, down to the memory they hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from glyph_rt import Runtime, Sampling
from glyph_rt.errors import InputError
from glyph_rt.language import Channel
from tests.conftest import SMALL_PAGES, TEXT
from tests.language.checkpoints import TEMPLATE, write_thinking_model
from tests.test_runtime import QUESTIONS, StockModel, eventually, question_logits

SHORT = Sampling(max_new_tokens=6)


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A random model whose prompt opens the thinking channel and forgets earlier thoughts."""
    template = TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>{% endif %}")
    path = write_thinking_model(tmp_path_factory.mktemp("models") / "thoughtful", template)
    with Runtime.open(path, style=SMALL_PAGES, encoder="torch", store=path) as runtime:
        yield runtime


def test_a_system_text_stands_before_the_pages(runtime: Runtime) -> None:
    stock = StockModel(runtime, TEXT, "Answer in one word.")
    with runtime.read(TEXT, system="Answer in one word.") as document:
        assert document.tokens == stock.inputs(QUESTIONS[0])["input_ids"].shape[1] - len(runtime.template.question(QUESTIONS[0], 0).tokens)
        torch.testing.assert_close(question_logits(document, QUESTIONS[0]), stock.logits(QUESTIONS[0]), atol=1e-4, rtol=0)


def test_only_equal_system_texts_share_pages(runtime: Runtime) -> None:
    with runtime.read(TEXT) as plain, runtime.read(TEXT, system="Be brief.") as brief:
        assert plain.prefilled_tokens == plain.tokens < brief.tokens == brief.prefilled_tokens
        with runtime.read(TEXT, system="Be brief.") as again, runtime.read(TEXT, system="Be exact.") as other:
            assert again.prefilled_tokens == 0 and again.digest == brief.digest
            assert other.prefilled_tokens > 0 and len({plain.digest, brief.digest, other.digest}) == 3
        longer = brief.append("more of it\n" * 4)
        assert longer.prefilled_tokens < longer.tokens, "appending stays behind the same system text"
        longer.close()


def test_a_system_text_is_unicode(runtime: Runtime) -> None:
    with pytest.raises(InputError, match="system text is not valid Unicode"):
        runtime.read(TEXT, system="caf\udce9")


def test_a_stop_string_ends_the_turn_and_frees_it(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document:
        base = runtime.arena.used
        whole = document.ask(QUESTIONS[0], Sampling(max_new_tokens=60)).text
        stop = whole[10:12]
        answer = document.ask(QUESTIONS[0], Sampling(max_new_tokens=60, stop=(stop,)))
        assert answer.text == whole[: whole.index(stop)] and answer.finish_reason == "stop"
        assert len(answer.tokens) < 60
        eventually(lambda: runtime.arena.used == base)
        follow = document.ask(QUESTIONS[1], SHORT, after=answer)
        expected = [*runtime.template.question(QUESTIONS[0], 0).tokens, *answer.tokens, *runtime.template.follow_up(QUESTIONS[1])]
        assert follow.usage.prompt_tokens == document.tokens + len(expected)
        assert follow.text is not None


def test_thoughts_are_no_part_of_the_answer(thoughtful: Runtime) -> None:
    with thoughtful.read(TEXT) as document:
        answer = document.ask(QUESTIONS[0], Sampling(max_new_tokens=40, temperature=1.0))
        pieces = list(answer.pieces())
        assert "".join(p.text for p in pieces if p.channel == Channel.THINKING) == answer.thinking != ""
        assert "".join(p.text for p in pieces if p.channel == Channel.ANSWER) == answer.text
        end = thoughtful.template.marks.thinking[1]  # type: ignore[index]
        assert end in answer.tokens or answer.text == ""


@pytest.mark.parametrize("keep", [False, True])
def test_a_conversation_forgets_thoughts_as_the_template_does(thoughtful: Runtime, keep: bool) -> None:
    template = thoughtful.template
    with thoughtful.read(TEXT) as document:
        first = document.ask(QUESTIONS[0], SHORT, keep=keep)
        assert first.text is not None and first.thinking
        second = document.ask(QUESTIONS[1], SHORT, after=first, keep=keep)
        assert second.text is not None
        third = document.ask("Carrier?", SHORT, after=second)
        past = template.exchange(QUESTIONS[0], first.text, first=True)
        assert second._prompt == [*past, *template.follow_up(QUESTIONS[1])]
        past += template.exchange(QUESTIONS[1], second.text, first=False)
        assert third._prompt == [*past, *template.follow_up("Carrier?")]
        assert third.text is not None
        for answer in (first, second, third):
            answer.close()
        eventually(lambda: thoughtful.arena.used == document.kv_bytes)
    thoughtful.arena.check_integrity()


def test_the_penalty_counts_the_conversation_whether_or_not_its_kv_was_kept(runtime: Runtime) -> None:
    """The tokens that `generate` would count: all that the answer is conditioned on."""
    options = Sampling(max_new_tokens=24, repetition_penalty=4.0)
    told = []
    with runtime.read(TEXT) as document:
        for keep in (False, True):
            first = document.ask(QUESTIONS[0], options, keep=keep)
            assert first.text is not None
            second = document.ask(QUESTIONS[1], options, after=first, keep=keep)
            assert second.text is not None
            third = document.ask("Weight?", options, after=second)
            told.append((first.tokens, second.tokens, (third.text, third.tokens)))
            for answer in (first, second, third):
                answer.close()
    assert told[0] == told[1]
