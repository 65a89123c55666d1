"""A server on a real loopback port, in this process so that tests can see its memory, and slow it down to hit a race for certain."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

Serve = Callable[..., "Served"]


@dataclass
class Served:
    """A server that runs on a thread of its own."""

    address: str
    server: Server
    runtime: Runtime
    loop: asyncio.AbstractEventLoop

    def on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def client(self, access: Access | None = None, *, timeout_s: float | None = 60.0, patience_s: float = 0.0) -> Client:
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
        server, where = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
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


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what a worker does on its own thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


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
    links = [str(fd.readlink()) for fd in Path(f"/proc/{process}/fd").iterdir() if fd.is_symlink()]
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    tables = [Path(f"/proc/{process}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    return [line for table in tables for line in table.read_text().splitlines()[1:] if line.split()[9] in inodes]
