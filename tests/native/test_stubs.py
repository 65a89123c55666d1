"""The committed stubs of the native modules are what their bindings generate today."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["glyph_rt.typeset._raster", "glyph_rt.language._step"])
def test_a_stub_is_current(module: str, tmp_path: Path) -> None:
    package, name = module.rsplit(".", 1)
    fresh = tmp_path / f"{name}.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", module, "-o", str(fresh)]
    subprocess.run(command, check=True, timeout=600)
    committed = Path(str(importlib.import_module(package).__file__)).parent / fresh.name
    assert committed.read_text() == fresh.read_text(), f"regenerate it: {' '.join(command[:-1])} {committed}"
