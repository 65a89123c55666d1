"""`bench serve` and `top`: figures that are right by their definitions, of a real server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from glyph_rt import Runtime
from glyph_rt.cli import main
from glyph_rt.cli.top import Look, view
from glyph_rt.service.access import Access
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.load import Pace, Phase, Sample, Target, measure, statistics_of
from tests.conftest import TEXT
from tests.service.conftest import Served, eventually, served

QUESTIONS = ("What is the weight?", "What is the carrier?")


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50))
def test_percentiles_are_numpys(values: list[float]) -> None:
    found = statistics_of(values)
    assert found["mean"] == pytest.approx(np.mean(values)) and statistics_of([]) == {}
    for p in (50, 90, 99):
        assert found[f"p{p}"] == pytest.approx(np.percentile(values, p))


def test_figures_follow_their_definitions() -> None:
    samples = (Sample(0.1, (0.2, 0.4), 0.8, 8), Sample(0.3, (), 0.4, 1), Sample(0.0, (), 0.0, 0, "UNAVAILABLE"))
    figures = Phase("warm", samples, 2.0, {"ttft": 0.2, "e2el": 1.0}).summary()
    assert (figures["completed"], figures["failed"]) == (2, {"UNAVAILABLE": 1})
    assert (figures["request_throughput"], figures["output_throughput"], figures["request_goodput"]) == (1.0, 4.5, 0.5)
    assert figures["mean_ttft_ms"] == pytest.approx(200) and figures["p50_itl_ms"] == pytest.approx(300)
    assert figures["mean_tpot_ms"] == pytest.approx(100), "of the one answer with more than one token: 0.7 s for 7 tokens"
    assert figures["p99_e2el_ms"] == pytest.approx(796)


@pytest.mark.parametrize("pace", [Pace(12, clients=3), Pace(12, rate=50.0)], ids=["closed", "open"])
def test_every_request_is_measured(serve: Served, pace: Pace) -> None:
    target = Target(serve.address, Access(), TEXT, QUESTIONS, max_new_tokens=6)
    cold, warm = asyncio.run(measure(target, Pace(4, clients=2), pace, {}))
    assert (cold.name, len(cold.samples), warm.name, len(warm.samples)) == ("cold", 4, "warm", 12)
    for sample in cold.samples + warm.samples:
        assert sample.error is None and 0 < sample.ttft_s <= sample.e2el_s and 1 <= sample.output_tokens <= 6
        assert sum(sample.gaps_s) <= sample.e2el_s - sample.ttft_s + 1e-6
    assert serve.server.desk.telemetry.tally.readings == 5, "each cold request is read anew, the warm document once"
    assert len(serve.server.desk.library) == 0


def test_refusals_are_counted_and_not_timed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = runtime.model.logits
    with served(runtime, ServiceLimits(streams=1)) as at:
        target, tally = Target(at.address, Access(), TEXT, QUESTIONS, max_new_tokens=6), at.server.desk.telemetry.tally

        def once_another_was_refused(hidden: Tensor) -> Tensor:
            if len(hidden) and tally.answers:  # of the first one that is measured: the one that warms up is alone
                eventually(lambda: tally.refusals > 0)
            return logits(hidden)

        monkeypatch.setattr(runtime.model, "logits", once_another_was_refused)
        [phase] = asyncio.run(measure(target, Pace(0), Pace(16, clients=8), {}))
    figures = phase.summary()
    assert figures["completed"] + figures["failed"]["RESOURCE_EXHAUSTED"] == 16 and figures["completed"] >= 1
    assert len(phase.series()["ttft"]) == figures["completed"]


def test_the_command_prints_and_writes_its_figures(
    serve: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    note, out, plot = tmp_path / "note.txt", tmp_path / "figures.json", tmp_path / "plot.svg"
    note.write_text(TEXT)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glyph-rt", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0), *capsys.readouterr()

    always = ("bench", "serve", str(note), "--server", serve.address, "--max-new-tokens", "4", "--requests", "4", "--cold", "1")
    code, printed, _ = run(*always, "--goodput", "ttft:60000", "--json", str(out), "--plot", str(plot))
    assert code == 0 and "warm: 4 answered" in printed and "time to first token (TTFT)" in printed
    figures = json.loads(out.read_text())
    assert figures["warm"]["request_goodput"] == figures["warm"]["request_throughput"] > 0 and figures["cold"]["completed"] == 1
    assert "<svg" in plot.read_text()
    for wrong in (("--goodput", "speed:1"), ("--clients", "0"), ("--rate", "0"), ("--plot", str(tmp_path / "x.nothing"))):
        code, _, err = run(*always, *wrong)
        assert code == 2 and err.count("\n") == 1, err
    code, printed, _ = run("top", "--server", serve.address)
    assert code == 0 and "documents read" in printed and "KV memory" in printed
    assert run("top", "--server", serve.address, "--interval", "0")[0] == 2


def test_top_shows_rates_since_the_last_look(serve: Served) -> None:
    with serve.client() as client:
        before = Look(100.0, client.runtime())
        document = client.read(TEXT)
        assert client.ask(QUESTIONS[0], document=document.id, max_new_tokens=6).text
        now = Look(102.0, client.runtime())
    console = Console(width=120, force_terminal=False)
    with console.capture() as captured:
        console.print(view("here", before, now))
    lines = {line.split("  ")[0].strip(): line.split() for line in captured.get().splitlines()}
    assert lines["pages"][1:] == ["2", "1.0/s"] and lines["answer tokens"][2:] == ["6", "3.0/s"]
    assert lines["documents"][1:4] == ["1", "of", "64"]
