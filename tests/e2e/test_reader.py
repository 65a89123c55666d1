"""The embedded reader with its shipped weights: it answers the demo, and reads what it never saw as well as it was measured to.

The floors lie at the lower ends of the intervals of what was measured (`python bench/reader_quality.py`), of these weights or of earlier
ones, whichever is highest, and that of transcripts at its bar.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glyph_rt import Runtime, evaluate
from glyph_rt.checkpoint import EMBEDDED_READER, Checkpoint
from glyph_rt.evaluate.suites import Options, reader
from glyph_rt.typeset import PRESETS, Typesetter

FLOORS = {
    ("values, 1 page", "exact"): 0.985,
    ("values, 1 to 4 pages", "exact"): 0.964,
    ("values, 8 pages", "exact"): 0.956,
    ("other phrasings", "exact"): 0.904,
    ("in sentences", "exact"): 0.942,
    ("in tables and logs", "exact"): 0.898,
    ("UUIDs and digits", "exact"): 0.904,
    ("not in the document", "exact"): 0.942,
    ("transcripts", "characters"): 0.995,
    ("transcripts, 2 pages", "characters"): 0.982,
    ("lines", "exact"): 0.141,
    ("comparisons", "exact"): 0.166,
    ("counts", "exact"): 0.318,
}
CONTRACT = (Path(__file__).parents[2] / "examples" / "contract.txt").read_text()


@pytest.mark.parametrize(("key", "value"), [("Pump type", "KV-330"), ("Monthly fee", "EUR 2,450"), ("Notice period", "90 days")])
def test_it_answers_about_the_bundled_contract(reader_runtime: Runtime, key: str, value: str) -> None:
    with reader_runtime.read(CONTRACT) as document:
        answer = document.ask(f"What is the value of {key}?")
        assert (answer.text, answer.finish_reason) == (value, "stop")


def test_a_changed_figure_is_read_and_not_recalled(reader_runtime: Runtime) -> None:
    with reader_runtime.read(CONTRACT.replace("KV-330", "QX-817")) as document:
        assert document.ask("What is the value of Pump type?").text == "QX-817"


def test_its_style_is_the_preset_and_draws_the_trained_glyphs() -> None:
    """A change of one pixel of this style means training again: this test says so before a user meets it."""
    trained = Checkpoint.open().trained_style
    assert trained is not None
    assert trained.style == PRESETS["reader"]
    assert Typesetter(trained.style).atlas.digest() == trained.atlas_digest


def test_it_is_an_ordinary_model_directory_of_modest_size() -> None:
    names = {file.name for file in EMBEDDED_READER.iterdir() if file.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "style.json", "chat_template.jinja"} <= names
    assert json.loads((EMBEDDED_READER / "config.json").read_text())["architectures"] == ["Glm4vForConditionalGeneration"]
    assert sum(file.stat().st_size for file in EMBEDDED_READER.iterdir() if file.is_file()) < 12_000_000


@pytest.mark.slow
@pytest.mark.parametrize(("task", "measure"), FLOORS)
def test_it_reads_what_it_never_saw(reader_runtime: Runtime, task: str, measure: str) -> None:
    """The suite that `glyph-rt eval` runs, at the size that the floors were measured at."""
    (asked,) = [t for t in reader(Options(reader_runtime.typesetter, size=200)) if t.name == task]
    record = evaluate.Record(None, {})
    evaluate.run(reader_runtime, [asked], record)
    overall = next(f for f in evaluate.figures(record.results.values()) if (f.measure, f.place) == (measure, {}))
    assert overall.interval.share >= FLOORS[task, measure], str(overall.interval)
