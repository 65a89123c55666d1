"""A build that is killed leaves nothing behind that could be taken for an engine, and the next one works."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glyph_rt.cli import build
from glyph_rt.vision.store import EngineStore

KILLED = """
import contextlib, os, signal
from glyph_rt.cli import build
from glyph_rt.export.build import NoProgress

class Fatal(NoProgress):
    steps = 0
    def step(self, phase, step):
        self.steps += 1
        if self.steps == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

build._bar = lambda title: contextlib.nullcontext(Fatal())
build.run(build.BuildOptions(None, "rtx-4090"))
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed: pip install 'glyph-rt[rtx]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = EngineStore(tmp_path / "cache/glyph-rt/engines/tensorrt")
    assert store.entries() == [] and not store.root.exists()
    build.run(build.BuildOptions(None, "rtx-4090"))
    (entry,) = store.entries()
    assert store.verify(entry) is None
