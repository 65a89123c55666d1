"""The committed stub of the native core is what its bindings generate today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import glyph_rt.typeset


def test_the_stub_is_current(tmp_path: Path) -> None:
    fresh = tmp_path / "_raster.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "glyph_rt.typeset._raster", "-o", str(fresh)]
    subprocess.run(command, check=True, timeout=120)
    committed = Path(glyph_rt.typeset.__file__).parent / "_raster.pyi"
    assert committed.read_text() == fresh.read_text(), f"regenerate it: {' '.join(command[:-1])} {committed}"
