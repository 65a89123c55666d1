"""The native core under AddressSanitizer and UBSan."""

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
def test_random_pages_touch_no_byte_they_should_not(tmp_path: Path) -> None:
    core = ROOT / "glyph_rt/typeset/raster"
    sources = [str(file) for file in sorted(core.glob("*.cpp")) if file.name != "bindings.cpp"]
    program = tmp_path / "core_test"
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", f"-I{core}"]
    subprocess.run([COMPILER, *flags, *sources, str(ROOT / "tests/native/core_test.cpp"), "-o", str(program)], check=True, timeout=300)
    done = subprocess.run([program, "3000"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "3000 rounds\n"
