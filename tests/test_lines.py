"""Files of JSON lines: every line whole and once, whatever ended the process that wrote them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glyph_rt.errors import InputError, OutputError
from glyph_rt.lines import LineFile

# Goes on counting from what the file holds, until it is killed or the disk is full.
COUNT = """
import sys
from pathlib import Path
from glyph_rt.errors import OutputError
from glyph_rt.lines import LineFile
with LineFile(Path(sys.argv[1])) as lines:
    n = sum(1 for _ in lines.read())
    try:
        while n < int(sys.argv[2]):
            lines.append({"n": n, "text": "é" * (n * 37 % 500)})
            n += 1
    except OutputError as error:
        sys.exit(str(error))
"""


def numbers(file: Path) -> list[int]:
    """Of all whole lines; what stands behind them is the beginning of the next."""
    whole, _, torn = file.read_bytes().rpartition(b"\n")
    assert b"\n" not in torn
    return [json.loads(line)["n"] for line in whole.splitlines()]


@pytest.mark.parametrize("size", range(0, 46, 5))
def test_a_line_that_was_cut_off_anywhere_is_taken_back(tmp_path: Path, size: int) -> None:
    file = tmp_path / "lines.jsonl"
    with LineFile(file) as lines:
        for n in range(3):
            lines.append({"n": n, "é": "\udc80"})
    file.write_bytes(file.read_bytes()[:size])
    kept = file.read_bytes().count(b"\n")
    with LineFile(file) as lines:
        assert [line["n"] for line in lines.read()] == list(range(kept))
        for n in range(kept, 3):
            lines.append({"n": n, "é": "\udc80"})
        assert list(lines.read()) == [{"n": n, "é": "\udc80"} for n in range(3)]


def test_what_is_no_such_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes\nwithout an end")
    with LineFile(file) as lines, pytest.raises(ValueError):
        list(lines.read())
    assert file.read_text() == "my notes\nwithout an end"
    with pytest.raises(OutputError, match="cannot be written"):
        LineFile(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with LineFile(tmp_path / "l") as lines:
        with pytest.raises(InputError, match="another process writes"):
            LineFile(tmp_path / "l")
        lines.append({"n": 0})
    LineFile(tmp_path / "l").close()


def test_kills_at_any_moment_lose_and_double_nothing(tmp_path: Path) -> None:
    file, rng = tmp_path / "lines.jsonl", random.Random(1)
    seen = 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", COUNT, str(file), "10000000"]) as process:
            end = time.monotonic() + 300
            while not file.exists() or len(numbers(file)) <= seen:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        found = numbers(file)
        assert found == list(range(len(found))) and len(found) > seen
        seen = len(found)


def test_a_full_disk_leaves_whole_lines_and_room_to_go_on(tmp_path: Path) -> None:
    """A limit to the size of files stands for the end of the disk: the last write that it lets through is a part of a line."""
    file = tmp_path / "lines.jsonl"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n{COUNT}"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", limited, str(file), "100"], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "cannot be written" in done.stderr and "whole" in done.stderr
        assert file.read_bytes().endswith(b"\n") and file.stat().st_size <= 10_000
        found = numbers(file)
        assert found == list(range(len(found))) and len(found) > 10
    assert subprocess.run([sys.executable, "-c", COUNT, str(file), "100"], check=False).returncode == 0
    assert numbers(file) == list(range(100))
