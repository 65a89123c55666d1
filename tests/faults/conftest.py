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
from tests.service.conftest import Served, eventually, serve, serve_command

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
            yield identity
        finally:
            stop.set()
            other.join(60)
        assert not other.is_alive() and answers and set(answers) == {expected}
        desk = at.server.desk
        eventually(lambda: desk.streams.used == desk.uploads.used == 0 and at.runtime.arena.used == base, 30.0)
        desk.check_integrity()
        assert len(desk.library) == 1
        client.delete(identity)


def delay(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime, stage: str, seconds: float, wanted: Callable[..., bool] = lambda *_: True
) -> threading.Event:
    """Make a stage of the work take `seconds` longer, for calls whose arguments are `wanted`; the event says that it has begun."""
    place, name = {
        "layout": (runtime.typesetter, "layout"),
        "encode": (runtime.encoder, "encode"),
        "decoder": (runtime.model, "forward"),
        "question": (runtime.template, "question"),
    }[stage]
    begun = threading.Event()
    original = getattr(place, name)

    def slow(*arguments: Any, **keywords: Any) -> Any:
        if wanted(*arguments):
            begun.set()
            time.sleep(seconds)
        return original(*arguments, **keywords)

    monkeypatch.setattr(place, name, slow)
    return begun


@dataclass
class Process:
    """`glyph-rt serve` in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def stop(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


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
