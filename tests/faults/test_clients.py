"""Clients that die, stall, cancel or run out of time, at every stage of the work."""

from __future__ import annotations

import gc
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from glyph_rt import Runtime
from glyph_rt.memory.allocator import give_back_free_memory
from glyph_rt.service import documents, library
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.v1 import answers_pb2, documents_pb2
from tests.faults.conftest import QUESTION, held, unharmed
from tests.service.conftest import PATIENCE_S, Served, eventually, overrun, served

LONG = "a line of words\n" * 40
STUBS = (
    "import sys, time, grpc\n"
    "from glyph_rt.v1 import answers_pb2 as a, answers_pb2_grpc as ag, documents_pb2 as d, documents_pb2_grpc as dg\n"
    "channel = grpc.insecure_channel(sys.argv[1])\n"
)
UPLOADS = (
    "def parts():\n"
    "    yield d.ReadDocumentRequest(options=d.ReadDocumentOptions())\n"
    "    yield d.ReadDocumentRequest(text=b'a line of words\\n' * 20)\n"
    "    time.sleep(60)\n"
    "list(dg.DocumentServiceStub(channel).ReadDocument(parts()))\n"
)
ASKS = (
    "request = a.AskRequest(document_id=sys.argv[2], question='What?', sampling=a.SamplingOptions(max_new_tokens=300))\n"
    "for event in ag.AnswerServiceStub(channel).Ask(request): time.sleep(60)\n"
)


def answers_at_length(runtime: Runtime, *_: Any) -> bool:
    """Whether the decoder works on the answer of `ask` below, or of ASKS; the other client wants shorter ones."""
    return any(turn.max_new_tokens == 300 for turn in runtime.loop._turns)


@pytest.mark.parametrize("script", [UPLOADS, ASKS], ids=["upload", "answer"])
def test_a_client_that_is_killed_leaves_nothing(serve: Served, script: str) -> None:
    """kill -9 in the middle of an upload and of an answer: the connection breaks without a word."""
    desk = serve.server.desk
    with unharmed(serve) as identity, held(serve.runtime, "decoder", answers_at_length) as begun:
        child = subprocess.Popen([sys.executable, "-c", STUBS + script, serve.address, identity])
        if script is UPLOADS:
            eventually(lambda: desk.uploads.used == 320)
        else:
            assert begun.wait(PATIENCE_S)
        child.kill()
        child.wait()


def test_a_client_that_does_not_read_holds_up_only_itself(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow control: pages that nobody takes are not drawn, so memory does not fill with them."""
    drawn: list[int] = []

    def large(_: object) -> bytes:
        drawn.append(1)
        return os.urandom(1_000_000)

    monkeypatch.setattr(documents, "png", large)
    with unharmed(serve), serve.client() as client:
        document = client.read("a line of words\n" * 600)
        assert document.pages == 60
        call = client._documents.RenderPages(documents_pb2.RenderPagesRequest(id=document.id))
        next(call)
        eventually(lambda: len(drawn) >= 2)
        seen = 0
        while seen < len(drawn):  # until none came for a while, which on a stalled box may be too early, and harms nothing then
            seen = len(drawn)
            time.sleep(1.0)
        assert seen < 30, "what fills the connection's window, and no more"
        call.cancel()
        client.delete(document.id)


class Relay:
    """A connection through a box in the network that can stop passing anything on, without closing."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.frozen = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._server)
                self._sockets += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.frozen.is_set():
                    continue  # swallowed, as by a firewall that forgot the connection
                sink.sendall(data)


def test_a_connection_that_died_without_a_word_is_found_by_keepalive(runtime: Runtime) -> None:
    with served(runtime, ServiceLimits(keepalive_s=6.0)) as at, unharmed(at):  # 2 s for an answer: who is merely slow is not cut off
        relay = Relay(at.address)
        with Client(relay.address) as client:
            parted = threading.Event()

            def stalled() -> Iterator[documents_pb2.ReadDocumentRequest]:
                yield documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())
                yield documents_pb2.ReadDocumentRequest(text=b"x" * 1000)
                parted.wait(PATIENCE_S)

            call = client._documents.ReadDocument(stalled())  # held: a call that is let go of is cancelled
            eventually(lambda: at.server.desk.uploads.used == 1000)
            relay.frozen.set()
            eventually(lambda: at.server.desk.uploads.used == 0, PATIENCE_S)
            parted.set()
            call.cancel()
        relay.close()


def upload(client: Client, **how: Any) -> Any:
    parts = [
        documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions()),
        documents_pb2.ReadDocumentRequest(text=LONG.encode()),
    ]
    return client._documents.ReadDocument(iter(parts), **how)


def ask(client: Client, identity: str, **how: Any) -> Any:
    sampling = answers_pb2.SamplingOptions(max_new_tokens=300)
    return client._answers.Ask(answers_pb2.AskRequest(question="Which? " + QUESTION, document_id=identity, sampling=sampling), **how)


def inline(client: Client, **how: Any) -> Any:
    return client._answers.Ask(answers_pb2.AskRequest(question=QUESTION, text=LONG), **how)


STAGES: dict[str, tuple[str, Callable[..., bool], str]] = {
    # name: (what is held, where, the call it belongs to). The other client's calls are left alone.
    "laying out an upload": ("layout", lambda _, text, *__: text == LONG, "upload"),
    "encoding an upload": ("encode", lambda *_: True, "upload"),
    "laying out a text sent along": ("layout", lambda _, text, *__: text == LONG, "inline"),
    "encoding a text sent along": ("encode", lambda *_: True, "inline"),
    "reading a question": ("question", lambda _, question, *__: question.startswith("Which?"), "ask"),
    "prefill or decode of an answer": ("decoder", answers_at_length, "ask"),
    "prefill of an upload": ("decoder", lambda runtime, *_: bool(runtime.loop._readings), "upload"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ending", ["cancel", "deadline"])
def test_a_call_may_end_at_every_stage(serve: Served, stage: str, ending: str) -> None:
    """The stage is held until the end has come."""
    what, wanted, kind = STAGES[stage]
    calls = {"upload": upload, "inline": inline}
    desk, cancellations = serve.server.desk, Cancellations(serve)
    with unharmed(serve) as identity, serve.client() as client:

        def ended(timeout_s: float | None = None) -> bool:
            with held(serve.runtime, what, wanted) as begun:
                seen = cancellations.total
                call = ask(client, identity, timeout=timeout_s) if kind == "ask" else calls[kind](client, timeout=timeout_s)
                if ending == "cancel":
                    assert begun.wait(PATIENCE_S)
                    call.cancel()
                with pytest.raises(grpc.RpcError) as caught:
                    list(call)
                came_so_far = begun.is_set()
                if came_so_far:
                    eventually(lambda: cancellations.total > seen)  # the server knows
            expected = grpc.StatusCode.CANCELLED if ending == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.code() == expected  # type: ignore[attr-defined]
            eventually(lambda: desk.uploads.used == 0)
            return came_so_far

        if ending == "cancel":
            assert ended()
        else:
            overrun(ended)


class Cancellations:
    """How many calls a server has seen end from outside."""

    def __init__(self, at: Served) -> None:
        self._registry = at.server.desk.telemetry.registry

    @property
    def total(self) -> float:
        families = self._registry.collect()
        return sum(s.value for family in families for s in family.samples if s.name == "glyph_rt_cancellations_total")


def test_a_call_may_end_while_it_waits_for_a_thread(runtime: Runtime) -> None:
    """Readings in the queue behind one that takes long: cancelled there, none of them is ever begun."""
    laid_out: list[str] = []
    with served(runtime, ServiceLimits(readers=1)) as serve, unharmed(serve), serve.client() as client:
        desk = serve.server.desk
        with held(runtime, "layout", lambda _, text, *__: laid_out.append(text) is None):
            calls = [upload(client) for _ in range(6)]
            eventually(lambda: len(laid_out) == 1 and desk.uploads.used == 6 * len(LONG))
            for call in calls:
                call.cancel()
            eventually(lambda: desk.uploads.used == len(LONG))  # all but the one that has a thread
        eventually(lambda: desk.uploads.used == 0)
        assert len(laid_out) == 1


def test_the_wall_clock_may_jump(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """By years, forwards and backwards: documents do not expire, deadlines hold, order stays.

    Only the server's clock: gRPC's own client in this process reckons its deadlines by the wall clock.
    """
    now, cancellations = time.time(), Cancellations(serve)
    with unharmed(serve), serve.client() as client:
        made = []
        for jump in (0.0, 3e8, -3e8):
            clock = SimpleNamespace(time=lambda jump=jump: now + jump, monotonic=time.monotonic, monotonic_ns=time.monotonic_ns)
            monkeypatch.setattr(library, "time", clock)
            document = client.read("a\n")
            assert document.create_time.seconds == int(now + jump)
            made.append(document.id)
            assert client.ask(QUESTION, document=made[0], max_new_tokens=2).text
        assert [d.id for d in client.list()][1:] == made

        def overran(timeout_s: float) -> bool:
            with held(serve.runtime, "layout", lambda _, text, *__: text == LONG) as begun, serve.client(timeout_s=timeout_s) as hurried:
                with pytest.raises(ServiceError) as caught:
                    hurried.read(LONG)
                assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
                if begun.is_set():
                    eventually(lambda: cancellations.total > 0)  # the server knows
                return begun.is_set()

        overrun(overran)
        for identity in made:
            client.delete(identity)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mib() -> float:
    """Without what is garbage, or free and kept for later."""
    gc.collect()
    give_back_free_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files and memory as Linux lists them")
@pytest.mark.parametrize("connections", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_connections_come_and_go(serve: Served, connections: int) -> None:
    """Most say nothing, or half of a greeting; some make a call. Nothing is left open, and no memory held.

    They come one after the other, so that this process, which is both ends of each, stays far from its limit on open files. Memory is
    compared with what it was after the first tenth, when pools and caches have filled: a leak of 2 KiB a connection would show.
    """
    host, _, port = serve.address.rpartition(":")
    settled = 0.0
    with unharmed(serve):
        before = descriptors()
        for i in range(connections):
            if i == connections // 10:
                settled = resident_mib()
            if i % 20 == 0:
                with serve.client() as client:
                    assert client.runtime().version
                continue
            with socket.create_connection((host, int(port))) as visitor:
                if i % 3:
                    visitor.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[: i % 25])
        eventually(lambda: descriptors() <= before + 10, 30.0)
        assert resident_mib() - settled < 16.0
