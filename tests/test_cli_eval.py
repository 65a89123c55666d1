"""`glyph-rt eval` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import Run, run

__all__ = ["run"]


def test_an_evaluation_prints_its_figures_keeps_them_and_goes_on(run: Run, tmp_path: Path) -> None:
    arguments = ("eval", "--suite", "needle", "--size", 2, "--lengths", "150,300", "--out", tmp_path / "out")
    code, told, err = run(*arguments)
    assert (code, err) == (0, "")
    assert told.startswith("needle, exact") and "of 20" in told and "by depth: 0 " in told
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names >= {"results.jsonl", "report.json", "needle-exact-by-depth.svg", "needle-exact-by-characters-and-depth.svg"}
    results = tmp_path / "out" / "results.jsonl"
    lines = results.read_text().splitlines()
    assert len(lines) == 21
    results.write_text("\n".join(lines[:7]) + "\n")
    assert run(*arguments) == (0, told, "")
    assert sorted(results.read_text().splitlines()) == sorted(lines)


def test_failures_go_to_standard_error_and_json_to_standard_output(run: Run) -> None:
    code, told, err = run("eval", "--suite", "ruler", "--size", 1, "--lengths", 200, "--json", "--failures", 3)
    assert code == 0 and {figure["task"] for figure in json.loads(told)["figures"]} >= {"ruler-style/uuid", "ruler-style/common words"}
    assert err.count("expected") == 3 and err.startswith("ruler-style/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "nonsense"), "no suite 'nonsense'; there are: reader, ocr"),
        (("--lengths", "many"), "--lengths takes numbers of characters"),
        (("--suite", "longbench"), "name one, or a folder of them, with --data"),
        (("--suite", "mrcr", "--data", "nowhere"), "no *.parquet or *.jsonl in nowhere"),
        (("--suite", "ocr", "--data", "nowhere"), "no *.txt in nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("eval", *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err
