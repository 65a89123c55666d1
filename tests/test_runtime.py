"""The whole path against transformers' own, and the promises a document makes."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Glm4vForConditionalGeneration

from glyph_rt import Document, Limits, Progress, Runtime, Sampling
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import ClosedError, InputError, LimitError, ModelError, NonFiniteError, OptionError
from glyph_rt.language import KVTail, Past
from glyph_rt.language.rows import Rows
from glyph_rt.language.stopping import Marks
from glyph_rt.language.turn import UNREAD_TOKENS
from tests.conftest import TEXT, eventually, processor_inputs
from tests.language.parts import run

QUESTIONS = ("What is the value of order number?", "Transcribe page 2.")
LONG = Sampling(max_new_tokens=24)
ENDLESS = Sampling(max_new_tokens=4000)


class StockModel:
    """transformers' own Glm4vForConditionalGeneration in fp64 on the same pages, from PNG pixels on."""

    def __init__(self, runtime: Runtime, text: str, system: str = "") -> None:
        self.model = Glm4vForConditionalGeneration.from_pretrained(runtime.checkpoint.path, dtype=torch.float64).eval()
        self.runtime = runtime
        self.template = runtime.template.with_system(system) if system else runtime.template
        self.pages = list(runtime.typesetter.pages(text))
        pixel_values, self.grid = processor_inputs([page.pixels() for page in self.pages])
        self.pixel_values = pixel_values.double()

    def inputs(self, question: str) -> dict[str, torch.Tensor]:
        tokens: list[int] = []
        at = 0
        for page in self.pages:
            piece = self.template.page(page.number, at, page.width // 28, page.height // 28)
            tokens += piece.tokens
            at = piece.end
        ids = torch.tensor([tokens + self.template.question(question, at).tokens])
        types = (ids == self.model.config.image_token_id).int()
        return {"input_ids": ids, "pixel_values": self.pixel_values, "image_grid_thw": self.grid, "mm_token_type_ids": types}

    @torch.inference_mode()
    def generate(self, question: str, new_tokens: int) -> list[int]:
        inputs = self.inputs(question)
        out = self.model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        return [int(t) for t in out[0, inputs["input_ids"].shape[1] :] if int(t) not in self.runtime.template.stop_ids]

    @torch.inference_mode()
    def logits(self, question: str) -> torch.Tensor:
        return self.model(**self.inputs(question)).logits[0, -1].float()


def answer_tokens(document: Document, question: str) -> list[int]:
    answer = document.ask(question, LONG)
    assert answer.text is not None
    return answer.tokens


def question_logits(document: Document, question: str) -> torch.Tensor:
    """Logits of the first answer token, over the document's shared KV."""
    model = document.means.loop.model
    lease = document.means.store.pin(document.keys)
    piece = document.means.template.question(question, document.end_position)
    past = Past(lease.segments, KVTail(model.kv_shape, len(piece.tokens)))
    logits = run(model, [Rows(past, piece.tokens, piece.positions)])[0][-1]
    lease.release()
    return logits


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_tokens_and_logits_equal_stock_transformers(runtime: Runtime, question: str) -> None:
    stock = StockModel(runtime, TEXT)
    with runtime.read(TEXT) as document:
        assert document.measure.pages == 2
        torch.testing.assert_close(question_logits(document, question), stock.logits(question), atol=1e-4, rtol=0)
        assert answer_tokens(document, question) == stock.generate(question, 24)


def test_a_second_question_prefills_the_question_only(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document:
        first, second = (document.ask(question, Sampling(max_new_tokens=3)) for question in QUESTIONS)
        assert first.text is not None and second.text is not None
        for answer, question in ((first, QUESTIONS[0]), (second, QUESTIONS[1])):
            asked = len(runtime.template.question(question, 0).tokens)
            assert answer.prefilled_tokens == asked
            assert answer.usage.prompt_tokens == document.tokens + asked
            assert answer.usage.cached_tokens == document.tokens


def test_a_later_question_has_the_logits_of_a_cold_run_and_repeats_bit_for_bit(runtime: Runtime) -> None:
    with runtime.read(TEXT) as warm:
        question_logits(warm, QUESTIONS[0])
        later = question_logits(warm, QUESTIONS[1])
        assert torch.equal(later, question_logits(warm, QUESTIONS[1]))
        with runtime.read(TEXT) as cold:
            torch.testing.assert_close(later, question_logits(cold, QUESTIONS[1]), atol=1e-4, rtol=0)


def test_documents_of_equal_token_ids_do_not_mix(runtime: Runtime) -> None:
    """All pages share one image token id: two documents of one length differ in nothing but their pixels."""
    other = TEXT.replace("58213", "99999")
    with runtime.read(TEXT) as first, runtime.read(other) as second, runtime.read(TEXT) as again:
        assert first.tokens == second.tokens
        assert first.digest == again.digest != second.digest
        assert not torch.equal(question_logits(first, QUESTIONS[0]), question_logits(second, QUESTIONS[0]))
        assert torch.equal(question_logits(first, QUESTIONS[0]), question_logits(again, QUESTIONS[0]))


def test_concurrent_questions_get_the_answers_they_get_alone(runtime: Runtime) -> None:
    questions = [f"What is the value of {key}?" for key in ("order number", "weight", "carrier", "door code")]
    with runtime.read(TEXT) as document:
        alone = [document.ask(question, LONG).text for question in questions]
        together = [""] * len(questions)

        def ask(i: int) -> None:
            together[i] = document.ask(questions[i], LONG).text

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(questions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone


def test_kv_memory_comes_back_however_an_answer_ends(runtime: Runtime) -> None:
    runtime.template.marks = Marks(frozenset())  # else the random model stops where it likes
    document = runtime.read(TEXT)
    base = runtime.arena.used
    assert base == document.kv_bytes == document.tokens * runtime.plan().kv_per_token

    read_out = document.ask(QUESTIONS[0], LONG)
    assert read_out.text is not None
    assert runtime.arena.used == base and read_out.finish_reason == "length"

    with document.ask(QUESTIONS[0], LONG) as left_early:
        next(iter(left_early))
    assert runtime.arena.used == base and left_early.finish_reason == "cancelled"

    with document.ask(QUESTIONS[0], LONG) as never_read:
        pass
    assert runtime.arena.used == base and never_read.finish_reason == "cancelled"

    document.ask(QUESTIONS[0], ENDLESS)  # never read, never closed: rests, and is then forgotten
    gc.collect()
    eventually(lambda: runtime.arena.used == base)

    running = document.ask(QUESTIONS[0], ENDLESS)
    pieces = iter(running)
    next(pieces)
    document.close()
    assert runtime.arena.used > base, "a running answer keeps the document's KV"
    with pytest.raises(ClosedError, match="read it again"):
        document.ask(QUESTIONS[0])
    with pytest.raises(ClosedError, match="read it again"):
        document.append("more")
    running.close()
    assert runtime.arena.used == 0


def test_a_document_that_is_dropped_gives_its_memory_to_who_needs_it(runtime: Runtime) -> None:
    runtime.read(TEXT)
    gc.collect()
    runtime.store.settle()
    assert runtime.arena.used == 0


def test_an_answer_that_nobody_reads_rests(runtime: Runtime) -> None:
    runtime.template.marks = Marks(frozenset())
    with runtime.read(TEXT) as document:
        answer = document.ask(QUESTIONS[0], Sampling(max_new_tokens=2000, draft=False))
        eventually(lambda: answer._turn.resting)
        drawn = len(answer._turn.answer)
        assert drawn == UNREAD_TOKENS
        assert document.ask(QUESTIONS[1], Sampling(max_new_tokens=8)).text is not None and len(answer._turn.answer) == drawn
        assert len(answer.text) > 0 and answer.usage.completion_tokens > UNREAD_TOKENS, "whoever reads on is given more"


def test_what_never_fits_is_refused_before_any_page_is_drawn(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(runtime.typesetter), "draw", lambda *_: pytest.fail("a page was drawn"))
    with pytest.raises(LimitError, match=r"context is 8,192 tokens .*--model"):
        runtime.read("a line of words\n" * 4000)
    with pytest.raises(LimitError, match=r"limit is 16,777,216; .*--text-bytes"):
        runtime.read("x" * (16 * 2**20 + 1))
    with pytest.raises(InputError, match="empty"):
        runtime.read(" \n\t\n")


def test_a_hopeless_text_is_given_up_while_it_is_laid_out(runtime: Runtime) -> None:
    """Its lines would fill memory: 16 MiB of short ones took 16 s and 1.5 GB to be refused."""
    seen: list[Progress] = []
    text = "a\n" * 2_000_000
    with pytest.raises(LimitError, match=r"fills about [\d,]+ pages .*context is 8,192 tokens"):
        runtime.read(text, seen.append)
    assert [p.stage for p in seen] == ["layout"] and seen[0].done < 200_000 < seen[0].total == len(text)

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.read(text, stop)


def test_the_kv_budget_is_a_bound(random_model: Path, tmp_path: Path) -> None:
    with Runtime.open(random_model, encoder="torch", store=tmp_path, limits=Limits(kv_bytes=400_000)) as runtime:
        per_token = runtime.plan().kv_per_token
        assert runtime.plan().kv_tokens == 400_000 // per_token
        with pytest.raises(LimitError, match=r"needs .* MiB of KV memory and the budget is 0.4 MiB; raise --kv-bytes"):
            runtime.read("a line of words\n" * 60)
        with runtime.read("a line of words\n") as document:
            with pytest.raises(LimitError, match=r"up to 300 tokens of answer needs .* MiB, and the budget is 0.4 MiB; raise --kv-bytes"):
                document.ask(QUESTIONS[0], Sampling(max_new_tokens=300))
            assert runtime.arena.used == document.kv_bytes, "a refused question holds nothing"
            assert document.ask("Weight?", Sampling(max_new_tokens=2)).text is not None
        assert runtime.arena.used == 0


def test_an_answer_longer_than_the_context_is_refused(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document, pytest.raises(LimitError, match=r"context of 8192 tokens; .*--max-new-tokens"):
        document.ask(QUESTIONS[0], Sampling(max_new_tokens=8192))


@pytest.mark.parametrize("question", ["", " \n", "caf\udce9?"])
def test_what_is_no_question_is_refused(runtime: Runtime, question: str) -> None:
    with runtime.read(TEXT) as document, pytest.raises(InputError, match="the question is"):
        document.ask(question)


def test_sampling_is_reproducible_by_seed(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document:
        texts = [document.ask(QUESTIONS[0], Sampling(max_new_tokens=20, temperature=1.5, seed=seed)).text for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]
        assert document.ask(QUESTIONS[0], Sampling(20, 1e-4, 7)).text == document.ask(QUESTIONS[0], Sampling(20)).text


@pytest.mark.parametrize("bad", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"seed": -1}])
def test_sampling_options_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Sampling(**bad)  # type: ignore[arg-type]


def test_progress_counts_pages(runtime: Runtime) -> None:
    seen: list[Progress] = []
    with runtime.read(TEXT, seen.append):
        assert seen == [Progress("read", 1, 2), Progress("read", 2, 2)]


def test_a_reading_that_fails_gives_its_memory_back(runtime: Runtime) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.read(TEXT, stop)
    assert runtime.arena.used == 0


def test_a_closed_runtime_reads_no_more(runtime: Runtime) -> None:
    runtime.close()
    with pytest.raises(ClosedError):
        runtime.read(TEXT)


def test_noise_is_an_error_and_not_an_answer(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document:
        runtime.model._text.embed_tokens.weight.fill_(torch.nan)
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            _ = document.ask(QUESTIONS[0]).text
        assert runtime.arena.used == document.kv_bytes


def test_glyphs_other_than_the_trained_ones_are_refused(random_model: Path, tmp_path: Path) -> None:
    import json
    import shutil

    changed = tmp_path / "model"
    shutil.copytree(random_model, changed)
    style = json.loads((changed / "style.json").read_text())
    (changed / "style.json").write_text(json.dumps(style | {"font-size": 11}))
    with pytest.raises(ModelError, match="draws other glyphs here than the model was trained on"):
        Runtime.open(changed)
    with Runtime.open(changed, style="reader") as runtime:
        assert runtime.style.name == "reader"


def test_a_model_without_a_style_gets_glyphs_layout(random_model: Path, tmp_path: Path) -> None:
    import shutil

    plain = tmp_path / "model"
    shutil.copytree(random_model, plain)
    (plain / "style.json").unlink()
    with Runtime.open(plain, store=tmp_path) as runtime, runtime.read(TEXT) as document:
        assert (runtime.style.name, runtime.style.width, runtime.style.height) == ("glyph-en-72", 588, 840)
        # Two lines of text: the page is cropped to them, as the reference chain does.
        assert document.measure.pages == 1 and 0 < document.measure.visual_tokens < 630
        assert np.isfinite(question_logits(document, "Weight?").numpy()).all()


@pytest.mark.parametrize("style", ["glyph-en-72", "reader+dark", "web"])
def test_pages_of_several_sizes_and_colours_answer_as_transformers_does(random_model: Path, tmp_path: Path, style: str) -> None:
    """Cropped pages differ in size, themes have colour: batches are made of equal neighbours, and positions follow each page."""
    text = "short\n" * 170 + TEXT
    with Runtime.open(random_model, style=style, store=tmp_path, encoder="torch") as runtime, runtime.read(text) as document:
        sizes = {(page.width, page.height) for page in runtime.typesetter.pages(text)}
        assert len(sizes) > 1 or style != "glyph-en-72"
        stock = StockModel(runtime, text)
        torch.testing.assert_close(question_logits(document, QUESTIONS[0]), stock.logits(QUESTIONS[0]), atol=1e-4, rtol=0)


def test_sharded_checkpoints_load_like_single_files(random_model: Path, tmp_path: Path) -> None:
    import shutil

    sharded = tmp_path / "model"
    model = Glm4vForConditionalGeneration.from_pretrained(random_model, dtype=torch.bfloat16)
    model.save_pretrained(sharded, max_shard_size="200KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "style.json"):
        shutil.copy(random_model / name, sharded)
    assert len(set(Checkpoint.open(sharded).shards.values())) > 2
    logits = []
    for path in (sharded, random_model):
        with Runtime.open(path, store=tmp_path) as runtime, runtime.read(TEXT) as document:
            logits.append(question_logits(document, QUESTIONS[0]))
    assert torch.equal(*logits)
