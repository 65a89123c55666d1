"""A server on a real loopback port, in this process so that tests can see its memory, and hold its work where a test wants it."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glyph_rt import Runtime
from glyph_rt.service.access import Access
from glyph_rt.service.address import Address
from glyph_rt.service.auth import Security
from glyph_rt.service.client import Client
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.server import Server
from glyph_rt.service.tracing import Tracing
from tests.conftest import eventually

PATIENCE_S = 300.0  # for what happens in moments; a box may be slow, or busy with others


@dataclass
class Served:
    """A server that runs on a thread of its own."""

    address: str
    server: Server
    runtime: Runtime
    loop: asyncio.AbstractEventLoop

    def on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def client(self, access: Access | None = None, *, timeout_s: float | None = PATIENCE_S, patience_s: float = 0.0) -> Client:
        return Client(self.address, access, timeout_s=timeout_s, patience_s=patience_s)


@contextmanager
def served(
    runtime: Runtime,
    limits: ServiceLimits | None = None,
    address: str = "127.0.0.1:0",
    *,
    ready: bool = True,
    security: Security | None = None,
    audit: Path | None = None,
    tracing: Tracing | None = None,
) -> Iterator[Served]:
    """Serve `runtime`; afterwards nothing may be left in its memory."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Server, str]:
        server = Server(Address.parse(address), limits or ServiceLimits(), security, audit, tracing)
        return server, await server.start()

    try:
        server, where = asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE_S)
        found = Served(where, server, runtime, loop)
        if ready:
            found.on_loop(server.open(runtime))
        try:
            yield found
        finally:
            found.on_loop(server.stop(0))
            desk = server.desk
            desk.check_integrity()
            assert desk.streams.used == desk.uploads.used == desk.long_texts.used == len(desk.library) == 0
            eventually(lambda: runtime.arena.used == runtime.texts.used == 0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def serve(runtime: Runtime) -> Iterator[Served]:
    """The random model behind the default limits."""
    with served(runtime) as found:
        yield found


class Gate:
    """Counts the decoder's steps as they begin, and holds them where it is told to: then nothing depends on how fast anybody is."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0  # what is held included
        self._loop = runtime.loop
        self._most = math.inf  # that may go on
        self._changed = threading.Condition()
        forward = runtime.model.forward

        def counted(*arguments: Any) -> Any:
            with self._changed:
                self.begun += 1
                assert self._changed.wait_for(lambda: self.begun <= self._most, PATIENCE_S)
            return forward(*arguments)

        monkeypatch.setattr(runtime.model, "forward", counted)

    @contextmanager
    def hold(self, after: int = 0) -> Iterator[None]:
        """Within the block, only `after` more steps go on; the next begins and waits."""
        self._let(self.begun + after)
        try:
            yield
        finally:
            self._let(math.inf)

    @property
    def held(self) -> bool:
        """Whether a step waits."""
        return self.begun > self._most

    def let_the_cancelled_know(self) -> None:
        """Let the step that waits go on, and hold the next until whoever makes an answer, or has a text read, has stopped it, for which a
        token has to come, or a page to be read.
        """
        self._let(self._most + 1)
        eventually(lambda: all(turn.cancelled for turn in self._loop._turns) and not self._loop._readings)

    def _let(self, most: float) -> None:
        with self._changed:
            self._most = most
            self._changed.notify_all()


def overrun(attempt: Callable[[float], bool]) -> None:
    """A deadline that passes in the middle of work which a test holds: `attempt(timeout_s)` says whether the work had come that far. It is
    given longer and longer timeouts until one was enough for this box.
    """
    assert any(attempt(timeout_s) for timeout_s in (0.5, 2.0, 8.0, 32.0)), "not even the longest was enough"


def slow_down(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Make every step of the decoder take `seconds` longer; gives the times at which steps began."""
    steps: list[float] = []
    forward = runtime.model.forward

    def slow(*arguments: Any) -> Any:
        steps.append(time.monotonic())
        time.sleep(seconds)
        return forward(*arguments)

    monkeypatch.setattr(runtime.model, "forward", slow)
    return steps


def serve_command(address: str, model: Path, *options: str) -> list[str]:
    """`glyph-rt serve` in a process of its own."""
    return [sys.executable, "-c", "from glyph_rt.cli import main; main()", "serve", "--address", address, "--model", str(model), *options]


def sockets(process: int) -> list[str]:
    """Lines of the kernel's tables for the internet sockets that a process has open."""
    links = []
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(str(descriptor.readlink()))
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    tables = [Path(f"/proc/{process}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    return [line for table in tables for line in table.read_text().splitlines()[1:] if line.split()[9] in inodes]
