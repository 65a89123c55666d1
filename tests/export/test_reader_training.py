"""The training network against transformers, its samples against the pages they are about, and a run that resumes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from glyph_rt.export.reader.alphabet import BEGIN_OF_IMAGE, END_OF_IMAGE, IDS, PREFIX, USER, encode
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.network import HEADS_NOT_SHIPPED, Reader, Size, checkpoint_state
from glyph_rt.export.reader.package import write_package
from glyph_rt.export.reader.samples import IGNORE, SampleMaker, Shape
from glyph_rt.export.reader.train import Options, Stage, Trainer
from glyph_rt.export.reader.vocabulary import HELD_OUT, TRAINING
from transformers import Glm4vConfig, Glm4vForConditionalGeneration

from glyph_rt.typeset import PRESETS, Typesetter
from tests.conftest import processor_inputs

CHARACTERS = {i: c for c, i in IDS.items()}
READER = Typesetter(PRESETS["reader"])
TINY = Size(vision_hidden=32, vision_depth=1, vision_heads=2, merger=32, hidden=48, layers=2, heads=3, mlp=64, mrope_section=(2, 1, 1))


def maker(seed: int) -> SampleMaker:
    return SampleMaker(READER, Writer(TRAINING, seed))


def test_the_network_is_transformers_arithmetic() -> None:
    """Same weights, same pages, same logits: what is trained is what is shipped."""
    torch.manual_seed(1)
    reader = Reader(Size(), 10, 20).eval()
    for parameter in reader.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    config = {k: v for k, v in Size().config().items() if k != "architectures"}
    stock = Glm4vForConditionalGeneration(Glm4vConfig(**config)).eval()
    stock.load_state_dict(checkpoint_state(reader))
    batch = maker(3).batch(Shape(3, 2, 120, transcribe=False))
    ink = torch.from_numpy(batch.patches).float() / 255
    with torch.no_grad():
        logits = reader(ink, torch.from_numpy(batch.tokens)).logits
        for document in range(2):
            patches = batch.patches[3 * document : 3 * document + 3].reshape(3, 5, 10, 2, 2, 14, 14)
            pages = 255 - patches.transpose(0, 1, 3, 5, 2, 4, 6).reshape(3, 140, 280)
            pixel_values, grid = processor_inputs(list(pages))
            page = [BEGIN_OF_IMAGE, *[IDS["<|image|>"]] * 50, END_OF_IMAGE]
            ids = torch.tensor([[*PREFIX, *page * 3, *batch.tokens[document].tolist()]])
            types = (ids == IDS["<|image|>"]).int()
            out = stock(input_ids=ids, pixel_values=pixel_values, image_grid_thw=grid, mm_token_type_ids=types).logits[0, -120:]
            torch.testing.assert_close(out, logits[document], atol=5e-4, rtol=0)


@pytest.mark.parametrize("transcribe", [True, False])
@pytest.mark.parametrize("pages", [1, 3])
def test_every_answer_character_stands_where_the_sample_says(pages: int, transcribe: bool) -> None:
    batch = maker(11).batch(Shape(pages, 8, 448, transcribe=transcribe))
    checked = 0
    for d in range(8):
        for t in np.flatnonzero((batch.cells[d] != IGNORE) & (batch.labels[d] != IGNORE)):
            page, token = divmod(int(batch.cells[d, t]), 50)
            assert batch.labels[d, t] == batch.characters[d * pages + page, token, batch.slots[d, t]]
            checked += 1
        for answer in batch.answers[d]:
            assert batch.labels[d, answer.stop - 1] == USER and (batch.labels[d, answer] != IGNORE).all()
        # Teacher forcing: every labelled token is the next token of the sequence.
        labelled = np.flatnonzero(batch.labels[d, :-1] != IGNORE)
        assert (batch.tokens[d, labelled + 1] == batch.labels[d, labelled]).all()
    assert checked > 100


def test_answers_are_the_values_of_the_keys_asked_for() -> None:
    writer = Writer(TRAINING, 21)
    draft = writer.draft(900, 0.5)
    assert len(draft.facts) > 3
    for fact in draft.facts:
        assert draft.text[fact.start : fact.start + len(fact.value)] == fact.value
        assert draft.text[fact.key_start : fact.key_start + len(fact.key)] == fact.key
    keys = [fact.key.lower() for fact in draft.facts]
    assert not any(a in b for a in keys for b in keys if a is not b), "no key may be part of another"


def test_a_seed_names_a_document_and_vocabularies_do_not_overlap() -> None:
    assert Writer(TRAINING, 5).draft(500, 0.4).text == Writer(TRAINING, 5).draft(500, 0.4).text
    assert Writer(TRAINING, 5).draft(500, 0.4).text != Writer(TRAINING, 6).draft(500, 0.4).text
    for group in ("nouns", "verbs", "adjectives"):
        assert not set(getattr(TRAINING, group)) & set(getattr(HELD_OUT, group))
    rng = random.Random(0)
    words = [{vocabulary.invented(rng) for _ in range(3000)} for vocabulary in (TRAINING, HELD_OUT)]
    assert len(words[0] & words[1]) < 10


def test_the_alphabet_reads_ascii_and_marks_the_rest() -> None:
    assert [CHARACTERS[i] for i in encode("a~\n")] == ["a", "~", "\n"]
    assert encode("\u00e9") == [IDS["<|unk|>"]]


def test_training_lowers_its_loss_and_resumes_where_it_stood(tmp_path: Path) -> None:
    shape = Shape(1, 4, 48, transcribe=True, rows=1)
    options = Options(compile=False, warm_up=1)
    trainer = Trainer(PRESETS["reader"], options, tmp_path, TINY)
    batch = maker(2).batch(shape)
    trainer.train(batch, 1.0)
    first = trainer.averages["read1"]
    for _ in range(30):
        trainer.train(batch, 1.0)
    assert trainer.averages["read1"] < 0.8 * first
    trainer._save()
    again = Trainer(PRESETS["reader"], options, tmp_path, TINY)
    again.resume()
    assert (again.step, again.elapsed) == (31, trainer.elapsed)
    for old, new in zip(trainer.reader.parameters(), again.reader.parameters(), strict=True):
        assert torch.equal(old, new)
    trainer.train(batch, 1.0)
    again.train(batch, 1.0)
    assert torch.equal(trainer.reader.lm_head.weight, again.reader.lm_head.weight)


def test_a_run_goes_on_from_the_weights_of_a_model(tmp_path: Path) -> None:
    first = Trainer(PRESETS["reader"], Options(compile=False, warm_up=1), tmp_path / "first", TINY)
    first.train(maker(5).batch(Shape(1, 2, 48, transcribe=True, rows=1)), 1.0)
    write_package(first.reader, first.typesetter, tmp_path / "model")
    again = Trainer(PRESETS["reader"], Options(compile=False, start=str(tmp_path / "model")), tmp_path / "again", TINY)
    for (name, old), new in zip(first.reader.named_parameters(), again.reader.parameters(), strict=True):
        if not name.startswith(HEADS_NOT_SHIPPED):
            torch.testing.assert_close(old, new, atol=2e-2, rtol=1e-2)  # stored as bf16: 8 bits, and the bias is a sum of 196


def test_a_run_ends_with_a_log_and_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [Stage("copy", 0.02, [(1.0, Shape(1, 2, 32, transcribe=True, rows=1))])]
    monkeypatch.setattr("glyph_rt.export.reader.train.curriculum", lambda minutes, trained: stages)
    trainer = Trainer(PRESETS["reader"], Options(compile=False), tmp_path, TINY)
    trainer.run()
    assert trainer.step > 0 and trainer.elapsed >= 1.2
    assert (tmp_path / "state.pt").is_file()
