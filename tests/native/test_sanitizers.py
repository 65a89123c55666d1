"""The native cores under AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler at hand: glyph-rt was installed from a wheel")
@pytest.mark.parametrize(
    ("core", "test", "rounds"),
    [("typeset/raster", "raster_test.cpp", 3000), ("language/core", "step_test.cpp", 1000)],
    ids=str,
)
def test_random_work_touches_no_byte_it_should_not(core: str, test: str, rounds: int, tmp_path: Path) -> None:
    folder = ROOT / "glyph_rt" / core
    sources = [str(file) for file in sorted(folder.glob("*.cpp")) if file.name != "bindings.cpp"]
    program = tmp_path / "test"
    flags = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [
        str(COMPILER),
        *flags,
        "-fno-omit-frame-pointer",
        f"-I{folder}",
        *sources,
        str(ROOT / "tests/native" / test),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True, timeout=1800)
    done = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{rounds} rounds\n"
