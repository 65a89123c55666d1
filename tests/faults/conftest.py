"""What every fault is followed by: accounts that add up, memory back where it was, and others that noticed nothing."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glyph_rt import Runtime
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Served, eventually, serve, serve_command

__all__ = ["serve"]
QUESTION = "What is the value of order number?"


@contextmanager
def unharmed(at: Served) -> Iterator[str]:
    """Gives the id of a document that somebody else asks about all the while: the answers stay the same, and afterwards nothing of
    what the block did is left.
    """
    with at.client() as client:
        identity = client.read(TEXT).id
        expected = client.ask(QUESTION, document=identity, max_new_tokens=12).text
        base = at.runtime.arena.used
        stop = threading.Event()
        answers: list[str] = []

        def ask() -> None:
            while not stop.is_set():
                answers.append(client.ask(QUESTION, document=identity, max_new_tokens=12).text)
                time.sleep(0.02)

        other = threading.Thread(target=ask)
        other.start()
        try:
            eventually(lambda: bool(answers))
            yield identity
        finally:
            stop.set()
            other.join(PATIENCE_S)
        assert not other.is_alive() and answers and set(answers) == {expected}
        desk = at.server.desk
        eventually(lambda: desk.streams.used == desk.uploads.used == 0 and at.runtime.arena.used == base)
        desk.check_integrity()
        assert len(desk.library) == 1
        client.delete(identity)


@contextmanager
def held(runtime: Runtime, stage: str, wanted: Callable[..., bool]) -> Iterator[threading.Event]:
    """Within the block, a stage of the work waits where `wanted(runtime, *arguments)`; the event says that it does."""
    place, name = {
        "layout": (runtime.typesetter, "layout"),
        "encode": (runtime.encoder, "encode"),
        "decoder": (runtime.model, "forward"),
        "question": (runtime.template, "question"),
    }[stage]
    begun, may_go_on = threading.Event(), threading.Event()
    original = getattr(place, name)

    def waiting(*arguments: Any, **keywords: Any) -> Any:
        if wanted(runtime, *arguments):
            begun.set()
            assert may_go_on.wait(PATIENCE_S)
        return original(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, waiting)
        try:
            yield begun
        finally:
            may_go_on.set()


@dataclass
class Process:
    """`glyph-rt serve` in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def stop(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def process(model: Path, address: str, *options: str) -> Iterator[Process]:
    """Serve, from when it does until the block ends."""
    command = serve_command(address, model, *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) as child:
        try:
            assert child.stderr is not None
            lines = iter(child.stderr.readline, "")
            where = next(line for line in lines if "listening at " in line).split("listening at ")[1].split(",")[0]
            next(line for line in lines if "] serving" in line)
            # Nobody reads on, and a full pipe would stall it.
            threading.Thread(target=child.stderr.read, daemon=True).start()
            yield Process(child, where)
        finally:
            child.kill()
