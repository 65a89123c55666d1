"""Batches: each line answered once, by itself right or wrong, whatever interrupts the run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from glyph_rt import Quoting, Runtime, batch
from glyph_rt.errors import InputError
from glyph_rt.long import ReadingRules
from tests.service.test_quotes import CORRECTED, ID, MISREAD, PATTERN, SAID
from tests.service.test_quotes import TEXT as CODED
from tests.test_cli import Run, run

__all__ = ["run"]

KEYS = {"Pump type": "KV-330", "Monthly fee": "EUR 2,450", "Notice period": "90 days"}
CONTRACT = (Path(__file__).parents[1] / "examples" / "contract.txt").read_text()
NOTE = "door code: 7731\n"
GOOD: list[dict[str, Any]] = [
    {"id": "code", "text": NOTE, "question": "What is the value of door code?", "options": {"max_new_tokens": 9}},
    *({"id": n, "file": "contract.txt", "question": f"What is the value of {key}?"} for n, key in enumerate(KEYS)),
    {"text": NOTE, "question": "What is the value of door code?", "options": {"regex": "[0-9]+", "strategy": "whole"}},
    {"id": "long", "text": NOTE + "Nothing of note.\n" * 200, "question": "What is the value of door code?"},
]
BAD: list[tuple[str, str, str]] = [  # line, type of error, message
    ('{"id": "broken"', "InputError", "line 7 is no JSON"),
    ('["a"]', "InputError", "line 8: the line:"),
    ('{"id": "none", "question": "q"}', "InputError", "a line has a file or a text"),
    ('{"id": "both", "file": "f", "text": "t", "question": "q"}', "InputError", "a line has a file or a text"),
    ('{"id": "key", "text": "t", "question": "q", "options": {"temperatur": 1}}', "InputError", "options.temperatur"),
    ('{"id": "range", "text": "t", "question": "q", "options": {"top_p": 7}}', "OptionError", "top-p must lie above 0"),
    ('{"id": "forms", "text": "t", "question": "q", "options": {"regex": "a", "json_schema": {}}}', "OptionError", "one form"),
    ('{"id": "file", "file": "-", "question": "q"}', "InputError", "no file"),
    ('{"id": "empty", "text": " ", "question": "q"}', "InputError", "the text is empty"),
    ('{"id": "mute", "text": "t", "question": " "}', "InputError", "the question is empty"),
    ('{"id": "size", "text": "t", "question": "q", "options": {"max_new_tokens": 9000}}', "LimitError", "no room for a page"),
    ('{"id": "odd", "text": "\\ud800", "question": "q"}', "InputError", ""),
    ('{"id": "deep", "text": "t", "question": ' + "[" * 100_000, "InputError", ""),
]


def write(folder: Path, lines: Sequence[str]) -> Path:
    (folder / "contract.txt").write_text(CONTRACT)
    source = folder / "in.jsonl"
    source.write_text("\n".join(lines) + "\n\n")
    return source


def output(file: Path) -> dict[Any, dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines), "a line was doubled"
    return found


def task(runtime: Runtime, **subject: str) -> batch.Task:
    return batch.Task(runtime, {"model": "m"} | subject, rules=ReadingRules(window=8))


def test_every_line_has_its_answer_or_its_error(reader_runtime: Runtime, tmp_path: Path) -> None:
    source = write(tmp_path, [*map(json.dumps, GOOD), *(line for line, _, _ in BAD)])
    done = batch.run(task(reader_runtime), source, tmp_path / "out.jsonl")
    found = output(tmp_path / "out.jsonl")
    assert (done.answered, done.failed, done.earlier) == (len(GOOD), len(BAD), 0) and len(found) == len(GOOD) + len(BAD)
    assert [found[n]["answer"] for n in range(3)] == list(KEYS.values())
    assert [found[name]["answer"] for name in ("code", "line-5", "long")] == ["7731"] * 3
    assert found["long"]["reading"]["strategy"] == "retrieve_pages" and "do not fit the 8-page window" in found["long"]["reading"]["reason"]
    cited = found[0]["citations"][0]
    assert CONTRACT[cited["start"] : cited["end"]] == "KV-330"
    errors = [line["error"] for line in found.values() if "error" in line]
    assert sorted(error["type"] for error in errors) == sorted(kind for _, kind, _ in BAD)
    assert all(any(message in error["message"] for error in errors) for _, _, message in BAD)
    assert reader_runtime.arena.used == 0


def test_a_document_is_read_once_for_all_its_lines(reader_runtime: Runtime, tmp_path: Path) -> None:
    source = write(tmp_path, [json.dumps(GOOD[n]) for n in (1, 0, 2, 4, 3)])
    steps: list[int] = []
    read = reader_runtime.read
    try:
        reader_runtime.read = lambda text, *rest, **options: (steps.append(len(text)), read(text, *rest, **options))[1]  # type: ignore[method-assign]
        batch.run(task(reader_runtime), source, tmp_path / "out.jsonl")
    finally:
        del reader_runtime.read  # type: ignore[method-assign]
    assert steps == [len(CONTRACT), len(NOTE)]


class StopError(Exception):
    """Stands for whatever ends a run in the middle."""


@pytest.mark.parametrize("most", range(1, 7))
def test_a_run_that_broke_off_goes_on(reader_runtime: Runtime, tmp_path: Path, most: int) -> None:
    source, out = write(tmp_path, list(map(json.dumps, GOOD))), tmp_path / "out.jsonl"

    def stop(name: str, done: int, total: int) -> None:
        assert (name, total) == ("batch", len(GOOD)) and done == len(out.read_text().splitlines())
        if done == most:
            raise StopError

    with pytest.raises(StopError):
        batch.run(task(reader_runtime), source, out, stop)
    if most < len(GOOD):
        out.write_bytes(out.read_bytes() + b'{"id": "long", "ans')  # the line that a crash cut off
    done = batch.run(task(reader_runtime), source, out)
    assert (done.answered, done.failed, done.earlier) == (len(GOOD), 0, most)
    assert len(output(out)) == len(GOOD)
    before = out.read_bytes()
    assert batch.run(task(reader_runtime), source, out).earlier == len(GOOD) and out.read_bytes() == before


def test_files_that_do_not_belong_together_are_refused_and_left_alone(reader_runtime: Runtime, tmp_path: Path) -> None:
    lines, out = list(map(json.dumps, GOOD[:2])), tmp_path / "out.jsonl"
    source = write(tmp_path, lines)
    batch.run(task(reader_runtime), source, out)
    before = out.read_bytes()
    with pytest.raises(InputError, match="another line or model under the id 'code'"):
        batch.run(task(reader_runtime, model="other"), source, out)
    write(tmp_path, [lines[0]])
    with pytest.raises(InputError, match="a line for the id '0'"):
        batch.run(task(reader_runtime), source, out)
    write(tmp_path, [*lines, lines[0]])
    with pytest.raises(InputError, match="the id 'code' stands on lines 1 and 3"):
        batch.run(task(reader_runtime), source, out)
    with pytest.raises(InputError, match="not the output of a batch"):
        batch.run(task(reader_runtime), source, source)
    assert out.read_bytes() == before and source.read_text() == "\n".join([*lines, lines[0]]) + "\n\n"
    with pytest.raises(InputError, match="cannot be read"):
        batch.run(task(reader_runtime), tmp_path / "none.jsonl", out)


def test_the_command_says_how_many_lines_failed_by_its_exit_code(run: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path, [json.dumps(GOOD[0])]), tmp_path / "new" / "out.jsonl"
    assert run("batch", source, out, "--encoder", "torch") == (
        0,
        "",
        f"{out}: 1 lines answered, 0 with an error, 0 of all by earlier runs\n",
    )
    write(tmp_path, [json.dumps(GOOD[0]), BAD[0][0]])
    assert run("batch", source, out, "--encoder", "torch")[0] == 1 and len(output(out)) == 2
    for other in (("--window", 3), ("--quotes", "exact"), ("--kv-dtype", "int8")):
        assert run("batch", source, out, "--encoder", "torch", *other)[0] == 2, "it would be another answer"
    assert run("batch", source, source / "out", "--encoder", "torch")[::2] == (
        1,
        f"glyph-rt: {source / 'out'} cannot be written (File exists)\n",
    )


def test_a_line_gets_exact_quotes_if_it_or_the_batch_asks_for_them(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model with random weights, which a form makes say what a misreading one would."""
    form = {"regex": PATTERN, "max_new_tokens": 80}
    lines = [
        {"id": quotes or "default", "text": CODED, "question": "Which order?", "options": form | ({"quotes": quotes} if quotes else {})}
        for quotes in (None, "mark", "exact")
    ]
    source, out = (
        write(tmp_path, [*map(json.dumps, lines), '{"text": "a", "question": "b", "options": {"quotes": "all"}}']),
        tmp_path / "out",
    )
    batch.run(batch.Task(runtime, {}, quotes=Quoting.EXACT), source, out)
    refused = output(out)
    assert refused["mark"]["answer"] == SAID and "quotes" not in refused["mark"]
    assert refused["default"]["error"] == refused["exact"]["error"] and refused["exact"]["error"]["type"] == "OptionError"
    assert "options.quotes" in refused["line-4"]["error"]["message"]
    for where in ("glyph_rt.answers.check_quoting", "glyph_rt.long.text.check_quoting"):
        monkeypatch.setattr(where, lambda quoting, sampling: None)
    out.unlink()
    batch.run(batch.Task(runtime, {}, quotes=Quoting.EXACT), source, out)
    found = output(out)
    assert (found["default"]["answer"], found["exact"]["answer"], found["mark"]["answer"]) == (CORRECTED, CORRECTED, SAID)
    misread = found["exact"]["quotes"][0]
    assert (misread["kind"], misread["said"]) == ("misread", MISREAD) and SAID[misread["start"] : misread["end"]] == MISREAD
    assert misread["places"] == [{"start": CODED.index(ID), "end": CODED.index(ID) + len(ID), "text": ID}]
    batch.run(batch.Task(runtime, {}), source, tmp_path / "marked")
    assert output(tmp_path / "marked")["default"]["answer"] == SAID


# A batch that goes on for ten lines at most, and then waits to be killed, however late whoever kills it comes.
WAITS = """
import time
from glyph_rt.cli import main
from glyph_rt.lines import LineFile
append, count = LineFile.append, 0

def counted(*arguments):
    global count
    count += 1
    time.sleep(600 * (count > 10))
    append(*arguments)

LineFile.append = counted
main()
"""


@pytest.mark.slow
def test_kills_at_any_moment_neither_lose_nor_double_a_line(tmp_path: Path) -> None:
    """A real `glyph-rt batch`, killed again and again, then left to end: the output is that of a run that nothing interrupted."""
    writer = random.Random(3)
    lines = [
        {"id": n, "text": NOTE * 3 + f"pump type: KV-{n // 4}\n", "question": f"What is the value of {key}?", "options": {"seed": n}}
        for n in range(80)
        for key in [writer.choice(["door code", "pump type"])]
    ]
    source, out = write(tmp_path, list(map(json.dumps, lines))), tmp_path / "out.jsonl"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}

    def command(script: str, target: Path) -> list[str]:
        return [sys.executable, "-c", script, "batch", str(source), str(target), "--encoder", "torch"]

    for _ in range(5):
        before = out.read_bytes().count(b"\n") if out.exists() else 0
        with subprocess.Popen(command(WAITS, out), env=environment) as process:
            end = time.monotonic() + 600
            while not out.exists() or out.read_bytes().count(b"\n") < before + 3:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.0005)
            time.sleep(writer.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    for target in (out, tmp_path / "whole.jsonl"):
        subprocess.run(command("from glyph_rt.cli import main; main()", target), env=environment, check=True)
    assert output(out) == output(tmp_path / "whole.jsonl") and len(output(out)) == len(lines)
