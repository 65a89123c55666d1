"""Tuning with the embedded reader: what a trial finds, how a front is judged, and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from glyph_rt import Runtime, evaluate
from glyph_rt.errors import InputError, OptionError, StyleError
from glyph_rt.evaluate.metrics import Interval
from glyph_rt.tune import judgement, trial
from glyph_rt.tune.front import DOMINATED, UNREADABLE, Finding
from glyph_rt.tune.judgement import EQUAL, LESS, MORE, UNDECIDED, Judgement, gains, picks, ratio
from glyph_rt.tune.questions import HELD_OUT_SEED, SEARCH_SEED, Asked, from_file, made_up
from glyph_rt.tune.search import REFERENCE, Tried
from glyph_rt.tune.trial import Trier, for_trials
from glyph_rt.typeset import PRESETS, Style, load_style
from tests.test_cli import Run, run

__all__ = ["run"]


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing takes most of a small search."""
    monkeypatch.setattr(trial, "CLOCKED", 1)
    monkeypatch.setattr(trial, "ROUNDS", 1)
    monkeypatch.setattr(judgement, "ROUNDS", 1)


@pytest.fixture(scope="module")
def trier(reader_runtime: Runtime) -> Trier:
    return Trier(for_trials(reader_runtime), Asked("search", made_up(reader_runtime.typesetter, 15, SEARCH_SEED)))


def test_a_trial_finds_what_reading_finds(trier: Trier, reader_runtime: Runtime) -> None:
    cropped = reader_runtime.style.changed("cropped", auto_crop_last_page=True)
    finding = trier(cropped)
    reading = reader_runtime.with_style(cropped)
    answers = evaluate.answers(reading, trier.task.asked)
    assert finding.right == "".join(str(int(a == q.expected)) for a, q in zip(answers, trier.task.asked, strict=True))
    tokens = sum(reading.measure(text).visual_tokens for text in trier.task.texts)
    assert finding.density == pytest.approx(sum(map(len, trier.task.texts)) / tokens)
    assert not finding.stopped and finding.time > 0 and trier.sizes == [1, 5, 15]
    assert finding.compression > trier(reader_runtime.style).compression


def test_what_is_of_no_use_or_clearly_worse_is_asked_no_further(trier: Trier, reader_runtime: Runtime) -> None:
    perfect = Finding("1" * 15, 100.0, 100.0, 0.01)
    shifted = reader_runtime.style.changed("shifted", line_height=13)  # the reader cannot read that at all
    finding = trier(shifted, [perfect])
    assert finding.stopped in (UNREADABLE, DOMINATED) and len(finding.right) < 15
    alone = trier(shifted, [replace(perfect, compression=0.0)])  # denser than whatever there was
    assert alone.stopped == UNREADABLE and len(alone.right) < 15


def test_a_style_whose_pages_do_not_fit_the_context_is_refused_before_reading(trier: Trier, reader_runtime: Runtime) -> None:
    long = replace(trier, task=Asked("long", [evaluate.Question("word " * 60_000, "?", "word", id="0")]))
    with pytest.raises(StyleError, match=r"a document of 300,000 characters takes .* and the model's context is"):
        long.weigh(reader_runtime.style)


def test_both_sets_are_the_same_for_every_run_and_share_no_document(reader_runtime: Runtime) -> None:
    t = reader_runtime.typesetter
    searched, held_out = made_up(t, 40, SEARCH_SEED), made_up(t, 40, HELD_OUT_SEED)
    assert searched == made_up(t, 50, SEARCH_SEED)[:40] and len(searched) == 40
    assert not {q.text for q in searched} & {q.text for q in held_out}
    assert all(q.expected in q.text for q in searched) and len({t.measure(q.text).pages for q in searched}) > 3


def test_questions_of_the_users_own_are_split_by_document(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = [{"text": f"Document {n // 2}.", "question": f"Which, {n}?", "answer": str(n // 2)} for n in range(40)]
    file.write_text("\n".join(map(json.dumps, lines)))
    searched, held_out = from_file(file)
    assert len(searched) + len(held_out) == 40 and not {q.text for q in searched} & {q.text for q in held_out}
    for half in (searched, held_out):
        texts = [q.text for q in half]
        assert len(list(dict.fromkeys(texts))) == sum(a != b for a, b in zip(texts, [None, *texts[:-1]], strict=True))  # neighbours
    file.write_text(json.dumps(lines[0]))
    with pytest.raises(InputError, match="it needs more than it has"):
        from_file(file)
    file.write_text(json.dumps({**lines[0], "answer": " "}))
    with pytest.raises(InputError, match="row 1: text, question and answer must be texts"):
        from_file(file)


@pytest.mark.parametrize(("rule", "answer", "right"), [("exact", "90 days.", 0), ("contains", "It is 90 DAYS.", 1), ("contains", "90", 0)])
def test_an_answer_is_right_by_a_rule(rule: str, answer: str, right: int) -> None:
    question = evaluate.Question("t", "q", "90 days")
    assert Asked("t", [question], rule).scores(question, answer)[evaluate.EXACT].value == right
    with pytest.raises(OptionError, match="no rule 'fuzzy'"):
        Asked("t", [question], "fuzzy")


def tried(number: int, right: int, compression: float, time: float) -> Tried:
    style: Style = PRESETS["reader"].changed(str(number))
    return Tried(number, {}, style, REFERENCE, Finding("1" * right + "0" * (100 - right), compression, 2.0, time))


def test_picks_come_from_the_search_and_give_up_no_accuracy() -> None:
    reference, better, denser, faster, poor = (
        tried(0, 88, 5.0, 1.0), tried(1, 95, 4.0, 1.5), tried(2, 87, 6.0, 1.0), tried(3, 88, 5.0, 0.8), tried(4, 60, 9.0, 0.2),
    )  # fmt: skip
    found = picks([reference, better, denser, faster, poor], [better, faster, denser, poor])
    assert found == {"most accurate": better, "densest as accurate": denser, "fastest as accurate": faster}


@pytest.mark.parametrize(
    ("low", "high", "denser", "verdict", "gained"),
    [
        (0.01, 0.05, 0.7, MORE, True),
        (-0.015, 0.05, 1.1, EQUAL, True),
        (-0.015, 0.05, 0.9, EQUAL, False),
        (-0.03, 0.05, 1.1, UNDECIDED, False),
        (-0.05, -0.03, 1.1, LESS, False),
    ],
)
def test_a_verdict_follows_the_interval(low: float, high: float, denser: float, verdict: str, gained: bool) -> None:
    share = Interval(0.9, 0.88, 0.92)
    one = Interval(1.0, 1.0, 1.0)
    reference = Judgement(tried(0, 90, 5.0, 1.0), share, Interval(0, 0, 0), 100, 5.0, 5.0, one, one)
    other = replace(reference, gain=Interval((low + high) / 2, low, high), denser=Interval(denser, denser - 0.01, denser + 0.01))
    assert other.verdict == verdict and (other in gains([reference, other])) == gained


def test_a_ratio_of_sums_knows_how_documents_differ() -> None:
    assert ratio([100, 200, 300], [50, 100, 150]) == Interval(2.0, 2.0, 2.0)
    found = ratio([10, 30, 20, 40], [10, 20, 20, 30])
    assert found.share == 1.25 and found.low < 1.25 < found.high and found.high - 1.25 == pytest.approx(1.25 - found.low)


def test_tuning_finds_a_front_writes_it_and_goes_on(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("tune", "--out", out, "--encoder", "torch", "--vary", "auto-crop-last-page,space-after", "--size", 9, "--held-out", 4)
    code, told, err = run(*arguments, "--trials", 2)
    assert code == 0 and err.count("\n") == 2 and err.startswith("   0 reference: accuracy ")
    assert told.startswith("| style | accuracy |") and "| 0: the reference |" in told and "- densest as accurate: " in told
    code, told, err = run(*arguments, "--trials", 4, "--held-out", 5, "--json")
    assert code == 0 and err.count("\n") == 2 and err.startswith("   2 neighbour: ")  # the first two were not tried again
    data = json.loads(told)
    assert [each["number"] for each in data["tried"]] == [0, 1, 2, 3] and data["judged"][0]["number"] == 0
    styles = {str(file.relative_to(out)) for file in (out / "styles").iterdir()}
    assert styles == {each["style"] for each in data["judged"]}
    for each in data["judged"]:
        style = load_style(str(out / each["style"]))
        assert style.cell_width == 7 and each["questions"] == 5
        changes = next(t["changes"] for t in data["tried"] if t["number"] == each["number"])
        assert all(style.to_json()[key] == value for key, value in changes.items())
    for name in ("front-compression.svg", "front-time.svg"):
        assert ElementTree.parse(out / name).getroot().tag.endswith("svg")
    assert "beat the reference" in (out / "front.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--critic-model", "m"), "need --critic-url"),
        (("--critic-url", "https://host/v1"), "--critic-url needs --critic-model"),
        (("--critic-url", "https://host/v1", "--critic-model", "m", "--critic-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY of --critic-key-env"),
        (("--critic-url", "nowhere", "--critic-model", "m"), "takes the base of an endpoint"),
        (("--vary", "font-size"), "no key 'font-size' to vary around style 'reader'; there are: page-width"),
        (("--rule", "fuzzy"), "no rule 'fuzzy'"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_one_line(run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, out, err = run("tune", "--out", tmp_path / "out", "--size", 2, "--held-out", 2, "--encoder", "torch", *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err
