"""The training network against transformers, its samples against the pages they are about, and a run that resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from glyph_rt.export.reader.alphabet import BEGIN_OF_IMAGE, END_OF_IMAGE, IDS, NEWLINE, PREFIX, USER, encode
from glyph_rt.export.reader.curriculum import Stage, curriculum
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.growth import grown
from glyph_rt.export.reader.losses import Weights, gradients, ink
from glyph_rt.export.reader.network import HEADS_NOT_SHIPPED, Reader, checkpoint_state
from glyph_rt.export.reader.package import kept, write_mean, write_package
from glyph_rt.export.reader.prefetch import Prefetcher
from glyph_rt.export.reader.questions import ABSENT
from glyph_rt.export.reader.replicas import Replicas
from glyph_rt.export.reader.samples import IGNORE, SampleMaker, Shape
from glyph_rt.export.reader.size import Size
from glyph_rt.export.reader.train import RECENT, Options, Trainer
from glyph_rt.export.reader.vocabulary import TRAINING
from transformers import Glm4vConfig, Glm4vForConditionalGeneration

from glyph_rt.checkpoint import EMBEDDED_READER, Checkpoint
from glyph_rt.typeset import PRESETS, Typesetter
from tests.conftest import processor_inputs

CHARACTERS = {i: c for c, i in IDS.items()}
READER = Typesetter(PRESETS["reader"])
TINY = Size(
    vision_hidden=32, vision_depth=1, vision_heads=2, merger=32, hidden=48, layers=2, heads=3, kv_heads=1, mlp=64, mrope_section=(2, 1, 1)
)


def maker(seed: int) -> SampleMaker:
    return SampleMaker(READER, Writer(TRAINING, seed))


def test_the_network_is_transformers_arithmetic() -> None:
    """Same weights, same pages, same logits: what is trained is what is shipped."""
    torch.manual_seed(1)
    rows, columns = READER.style.height // 14, READER.style.width // 14
    reader = Reader(Size(), rows, columns).eval()
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
            patches = batch.patches[3 * document : 3 * document + 3].reshape(3, rows // 2, columns // 2, 2, 2, 14, 14)
            pages = 255 - patches.transpose(0, 1, 3, 5, 2, 4, 6).reshape(3, READER.style.height, READER.style.width)
            pixel_values, grid = processor_inputs(list(pages))
            page = [BEGIN_OF_IMAGE, *[IDS["<|image|>"]] * READER.style.visual_tokens, END_OF_IMAGE]
            ids = torch.tensor([[*PREFIX, *page * 3, *batch.tokens[document].tolist()]])
            types = (ids == IDS["<|image|>"]).int()
            out = stock(input_ids=ids, pixel_values=pixel_values, image_grid_thw=grid, mm_token_type_ids=types).logits[0, -120:]
            torch.testing.assert_close(out, logits[document], atol=5e-4, rtol=0)


@pytest.mark.parametrize(("layers", "kv_heads"), [(3, 3), (2, 3), (3, 1)])
def test_a_grown_network_computes_what_it_grew_from(layers: int, kv_heads: int) -> None:
    torch.manual_seed(2)
    shape = READER.style.height // 14, READER.style.width // 14
    small = Reader(TINY, *shape)
    for parameter in small.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    large = Reader(replace(TINY, layers=layers, kv_heads=kv_heads), *shape)
    large.load_state_dict(grown(large, small.state_dict(), TINY))
    batch = maker(4).batch(Shape(1, 2, 64, transcribe=False))
    ink, tokens = torch.from_numpy(batch.patches).float() / 255, torch.from_numpy(batch.tokens)
    out = large(ink, tokens)
    torch.testing.assert_close(out.logits, small(ink, tokens).logits, atol=1e-5, rtol=0)
    # What is new takes part in learning from the first step on.
    out.logits.square().mean().backward()
    still = [name for name, p in large.named_parameters() if "_norm" in name and name.startswith("layers.") and not p.grad.any()]
    assert not still


@pytest.mark.parametrize("size", [TINY, Size()], ids=["tiny", "full"])
def test_a_configuration_tells_the_size_it_was_made_from(size: Size) -> None:
    config = {k: v for k, v in size.config().items() if k != "architectures"}
    assert Size.of(Glm4vConfig(**config)) == size


def test_training_goes_on_from_the_embedded_reader(tmp_path: Path) -> None:
    """Whatever size it was shipped in."""
    name = "self_attn.q_proj.weight"
    shipped = dict(Checkpoint.open().tensors("model.language_model.layers.0."))[name].float()
    reader = Trainer(PRESETS["reader"], Options(start=str(EMBEDDED_READER), compiled=False, replicas=1), tmp_path).reader
    torch.testing.assert_close(reader.state_dict()[f"layers.0.{name}"], shipped, atol=0, rtol=0)


def test_a_network_of_another_kind_does_not_grow() -> None:
    large = Reader(replace(TINY, mlp=96), 10, 10)
    with pytest.raises(ValueError, match="does not grow into"):
        grown(large, {}, TINY)


@pytest.mark.parametrize("transcribe", [True, False])
@pytest.mark.parametrize("pages", [1, 3])
def test_every_answer_character_stands_where_the_sample_says(pages: int, transcribe: bool) -> None:
    batch = maker(11).batch(Shape(pages, 8, 448, transcribe=transcribe))
    checked = 0
    for d in range(8):
        for t in np.flatnonzero((batch.cells[d] != IGNORE) & (batch.labels[d] != IGNORE)):
            page, token = divmod(int(batch.cells[d, t]), READER.style.visual_tokens)
            there = batch.characters[d * pages + page, token, batch.slots[d, t]]
            assert batch.labels[d, t] in ((there, NEWLINE) if there == encode(" ")[0] else (there,)), "a line ends where blank begins"
            checked += 1
        for answer in batch.answers[d]:
            assert batch.labels[d, answer.stop - 1] == USER and (batch.labels[d, answer] != IGNORE).all()
        # Teacher forcing: every labelled token is the next token of the sequence.
        labelled = np.flatnonzero(batch.labels[d, :-1] != IGNORE)
        assert (batch.tokens[d, labelled + 1] == batch.labels[d, labelled]).all()
    assert checked > 100


def test_a_sample_asks_in_vain_and_answers_so() -> None:
    batch = maker(13).batch(Shape(2, 30, 224, transcribe=False))
    answers = [(d, answer) for d in range(30) for answer in batch.answers[d]]
    absent = [(d, a) for d, a in answers if "".join(CHARACTERS[i] for i in batch.labels[d, a]) == ABSENT + "<|user|>"]
    assert 0.05 < len(absent) / len(answers) < 0.3
    assert all((batch.cells[d, a] == IGNORE).all() for d, a in absent), "nowhere to point"


def test_the_alphabet_reads_ascii_and_marks_the_rest() -> None:
    assert [CHARACTERS[i] for i in encode("a~\n")] == ["a", "~", "\n"]
    assert encode("\u00e9") == [IDS["<|unk|>"]]


def test_processes_make_the_batches_that_a_thread_makes() -> None:
    stage = Stage("copy", 1, [(0.5, Shape(1, 2, 64, transcribe=True, rows=2)), (0.5, Shape(2, 1, 64, transcribe=False))])
    made = []
    for makers in (0, 2):
        batches = Prefetcher(PRESETS["reader"], stage, 5, makers, scale=2)
        made.append([batches.next() for _ in range(4)])
        batches.close()
    for one, other in zip(*made, strict=True):
        assert one.shape == other.shape and len(one.tokens) == one.shape.documents in (2, 4)
        assert (one.tokens == other.tokens).all() and (one.patches == other.patches).all()
    assert len({batch.tokens.tobytes() for batch in made[0]}) == 4


def test_training_lowers_its_loss_and_resumes_where_it_stood(tmp_path: Path) -> None:
    shape = Shape(1, 4, 48, transcribe=True, rows=1)
    options = Options(warm_up=1, compiled=False, replicas=1)
    trainer = Trainer(PRESETS["reader"], options, tmp_path, TINY)
    batch = maker(2).batch(shape)
    trainer.train([batch], 1.0)
    first = trainer.averages["read1"]
    for _ in range(30):
        trainer.train([batch], 1.0)
    assert trainer.averages["read1"] < 0.8 * first
    trainer._save()
    again = Trainer(PRESETS["reader"], options, tmp_path, TINY)
    again.resume()
    assert (again.step, again.elapsed) == (31, trainer.elapsed)
    for old, new in zip(trainer.reader.parameters(), again.reader.parameters(), strict=True):
        assert torch.equal(old, new)
    trainer.train([batch], 1.0)
    again.train([batch], 1.0)
    assert torch.equal(trainer.reader.lm_head.weight, again.reader.lm_head.weight)
    assert torch.equal(trainer.mean.lm_head.weight, again.mean.lm_head.weight)


def test_heads_that_are_not_shipped_catch_up_alone(tmp_path: Path) -> None:
    """Weights come without them. Learning along with heads that know nothing, the tower would forget what it has learned."""
    trainer = Trainer(PRESETS["reader"], Options(warm_up=1, compiled=False, replicas=1), tmp_path, TINY)
    before = {name: weight.clone() for name, weight in trainer.reader.named_parameters()}
    for _ in range(3):
        trainer.train([maker(2).batch(Shape(1, 2, 48, transcribe=True, rows=1))], 1.0, heads_only=True)
    moved = {name for name, weight in trainer.reader.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if name.startswith(HEADS_NOT_SHIPPED)} and moved
    first, then = curriculum(60, trained=True)
    assert first.heads_only and not then.heads_only and first.minutes + then.minutes == 60
    assert not any(stage.heads_only for stage in curriculum(60)), "from scratch all learn together"


def test_the_first_and_the_last_of_an_answer_weigh_more() -> None:
    torch.manual_seed(3)
    reader = Reader(TINY, READER.style.height // 14, READER.style.width // 14)
    batch = maker(6).batch(Shape(1, 2, 160, transcribe=False))
    answers_only = {"character": 0.0, "pointer": 0.0, "slot": 0.0, "value": 0.0}
    plain, _ = gradients(reader, batch, Weights(**answers_only, end=1.0, begin=1.0))
    weighed, _ = gradients(reader, batch, Weights(**answers_only, end=2.0, begin=5.0))
    labels = torch.from_numpy(batch.labels)
    weight = torch.where(labels == USER, 2.0, (labels != IGNORE).float())
    for document, answers in enumerate(batch.answers):
        assert answers
        for answer in answers:
            assert weight[document, answer.start] == 1 and weight[document, answer.stop - 1] == 2
            weight[document, answer.start] = 5.0
    logits = reader(ink(batch, torch.device("cpu")), torch.from_numpy(batch.tokens)).logits
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none")
    (wanted,) = torch.autograd.grad((each * weight.flatten()).sum() / weight.sum(), reader.lm_head.weight)
    at = [name for name, _ in reader.named_parameters()].index("lm_head.weight")
    assert plain[at] is not None and not torch.allclose(plain[at], wanted, atol=1e-3)
    torch.testing.assert_close(weighed[at], wanted, atol=2e-3, rtol=2e-2)  # of products in bfloat16, where a CPU has them


def test_what_is_written_is_the_mean_of_late(tmp_path: Path) -> None:
    """Step t weighs t (t + 1) ... (t + RECENT - 1), which is about t ** RECENT."""
    trainer = Trainer(PRESETS["reader"], Options(warm_up=1, compiled=False, replicas=1), tmp_path, TINY)
    batch = maker(2).batch(Shape(1, 2, 48, transcribe=True, rows=1))
    passed = []
    for _ in range(12):
        trainer.train([batch], 1.0)
        passed.append(trainer.reader.lm_head.weight.detach().clone())
    weights = torch.tensor([math.prod(range(t, t + RECENT)) for t in range(1, 13)], dtype=torch.float64)
    want = torch.einsum("t,t...->...", weights / weights.sum(), torch.stack(passed).double()).float()
    torch.testing.assert_close(trainer.mean.lm_head.weight.detach(), want)
    assert not torch.allclose(want, passed[-1])


def test_a_step_over_several_batches_is_the_step_over_their_mean_loss(tmp_path: Path) -> None:
    """Side by side in processes, frozen vision or not; and over the weights as the last step left them."""
    trainer = Trainer(PRESETS["reader"], Options(compiled=False, warm_up=1), tmp_path, TINY)
    batches = [maker(n).batch(Shape(1, 2, 64, transcribe=n == 1, rows=2, vision=v)) for n, v in ((1, "trained"), (2, "frozen"))]
    for _ in range(2):
        alone = [gradients(trainer.reader, batch, Weights()) for batch in batches]
        got, parts = trainer.replicas.mean_gradients(batches)
        assert parts[0].keys() == {"read1", "pointer_read1", "slot_read", "fetched", "characters"}
        assert parts[1].keys() == {"ask1", "pointer_ask1", "slot_ask", "fetched"}
        for (_, here), there in zip(alone, parts, strict=True):
            assert there == pytest.approx(here, rel=1e-3)
        for one, other, mean in zip(alone[0][0], alone[1][0], got, strict=True):
            there = [gradient for gradient in (one, other) if gradient is not None]
            want = torch.stack(there).sum(0) / 2 if there else None
            torch.testing.assert_close(mean, want, atol=1e-5, rtol=1e-3)
        assert alone[1][0][0] is None and got[0] is not None, "the first parameter is of the vision tower"
        trainer.train(batches, 1.0)
    with pytest.raises(ValueError, match="3 batches for 2 replicas"):
        trainer.train([*batches, batches[0]], 1.0)
    trainer.replicas.close()
    with pytest.raises(ValueError, match="a GPU wants one"):
        Replicas(Reader(TINY, 10, 20).to("meta"), Weights(), 2, compiled=False)


def test_a_run_goes_on_from_the_weights_of_a_model(tmp_path: Path) -> None:
    first = Trainer(PRESETS["reader"], Options(warm_up=1, compiled=False, replicas=1), tmp_path / "first", TINY)
    first.train([maker(5).batch(Shape(1, 2, 48, transcribe=True, rows=1))], 1.0)
    write_package(first.reader, first.typesetter, tmp_path / "model")
    again = Trainer(PRESETS["reader"], Options(start=str(tmp_path / "model"), compiled=False, replicas=1), tmp_path / "again", TINY)
    for (name, old), new in zip(first.reader.named_parameters(), again.reader.parameters(), strict=True):
        if not name.startswith(HEADS_NOT_SHIPPED):
            torch.testing.assert_close(old, new, atol=6e-2, rtol=4e-2)  # stored with 5 bits, and the bias is a sum of 196


def test_the_mean_of_two_runs_is_written_as_a_model(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("one", "other")]
    trainers = [Trainer(PRESETS["reader"], Options(seed=n, compiled=False, replicas=1), run, TINY) for n, run in enumerate(runs)]
    for trainer in trainers:
        trainer._save()
    write_mean(runs, tmp_path / "model")
    model = Checkpoint.open(tmp_path / "model")
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    one, other = (checkpoint_state(trainer.reader)[name] for trainer in trainers)
    assert torch.equal(dict(model.tensors(""))[name], kept((one + other) / 2)) and not torch.equal(one, other)
    Trainer(PRESETS["reader"], Options(compiled=False, replicas=1), tmp_path / "larger", replace(TINY, mlp=96))._save()
    with pytest.raises(ValueError, match="other sizes or styles"):
        write_mean([runs[0], tmp_path / "larger"], tmp_path / "none")


def test_weights_are_kept_to_a_thirty_second_part() -> None:
    weights = torch.randn(300, 40) * 10.0 ** torch.randint(-6, 6, (300, 40))
    found = kept(weights)
    assert found.dtype == torch.bfloat16 and ((found - weights).abs() <= weights.abs() / 32).all()
    assert torch.equal(kept(found), found) and len((found.float().frexp().mantissa.abs()).unique()) == 16
    assert torch.equal(kept(-weights), -found) and torch.equal(kept(torch.zeros(2, 2)), torch.zeros(2, 2, dtype=torch.bfloat16))
    assert torch.equal(kept(weights[0]), weights[0].to(torch.bfloat16)), "biases and norms have all that bf16 has"


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_ends_with_a_log_and_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    stages = [Stage("copy", 0.02, [(1.0, Shape(1, 2, 32, transcribe=True, rows=1))])]
    monkeypatch.setattr("glyph_rt.export.reader.train.curriculum", lambda minutes, trained: stages)
    trainer = Trainer(PRESETS["reader"], Options(compiled=compiled, replicas=1 if compiled else 2), tmp_path / "run", TINY)
    trainer.run()
    assert trainer.step > 0 and trainer.elapsed >= 1.2
    assert (tmp_path / "run/state.pt").is_file()
