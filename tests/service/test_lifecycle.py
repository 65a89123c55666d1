"""Calls that end early, servers that stop, and what a serving process opens: memory comes back, others are not disturbed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from glyph_rt import Runtime
from glyph_rt.errors import AddressError, OptionError
from glyph_rt.service.address import Address
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.server import SERVICES
from glyph_rt.v1 import documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Gate, Served, eventually, overrun, serve_command, served, slow_down, sockets

QUESTION = "What is the value of order number?"
Code = grpc.StatusCode
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def options() -> documents_pb2.ReadDocumentRequest:
    return documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())


def test_a_cancelled_answer_stops_within_a_token_and_frees_its_memory(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve.client() as client:
        identity = client.read(TEXT).id
        base = serve.runtime.arena.used
        gate = Gate(serve.runtime, monkeypatch)
        with gate.hold(after=3):
            reply = client.ask(QUESTION, document=identity, max_new_tokens=200)
            next(iter(reply))
            eventually(lambda: gate.held)
            assert serve.runtime.arena.used > base
            reply.close()
            eventually(lambda: serve.server.desk.streams.used == 0)
            gate.let_the_cancelled_know()
        eventually(lambda: serve.runtime.arena.used == base)
        assert gate.begun <= 5, "one token behind the one that was under way"


def test_the_clients_deadline_stops_the_work(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, desk = serve.runtime, serve.server.desk
    with serve.client() as client:
        identity = client.read(TEXT).id
        base = runtime.arena.used
        gate = Gate(runtime, monkeypatch)

        def overran(work: Callable[[Client], object], timeout_s: float) -> bool:
            before = gate.begun
            with gate.hold(after=3), serve.client(timeout_s=timeout_s) as hurried:
                with pytest.raises(ServiceError) as caught:
                    work(hurried)
                assert caught.value.code == Code.DEADLINE_EXCEEDED
                came_so_far = gate.held
                eventually(lambda: desk.streams.used == 0)
                gate.let_the_cancelled_know()
            eventually(lambda: runtime.arena.used == base and desk.uploads.used == 0)
            assert gate.begun <= before + 7, "of 200 tokens, and of 20 pages: no more than was handed in"
            return came_so_far

        overrun(partial(overran, lambda hurried: hurried.ask(QUESTION, document=identity, max_new_tokens=200).text))
        overrun(partial(overran, lambda hurried: hurried.read("line\n" * 200)))
        assert [d.id for d in client.list()] == [identity]


def test_the_servers_cap_ends_a_call_that_has_no_deadline(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(runtime) as at, at.client(timeout_s=None) as client:
        document, desk = client.read("a\n"), at.server.desk
        gate = Gate(runtime, monkeypatch)

        def overran(timeout_s: float) -> bool:
            desk.limits, before = replace(desk.limits, deadline_s=timeout_s), gate.begun
            with gate.hold(after=3):
                with pytest.raises(ServiceError) as caught:
                    _ = client.ask(QUESTION, document=document.id, max_new_tokens=200).text
                assert (caught.value.code, caught.value.reason) == (Code.DEADLINE_EXCEEDED, "SERVER_DEADLINE")
                came_so_far = gate.held
                gate.let_the_cancelled_know()
            eventually(lambda: runtime.arena.used == document.kv_bytes)
            assert gate.begun <= before + 5
            return came_so_far

        overrun(overran)


def test_a_cancelled_reading_stops_within_a_few_pages(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inline and uploaded: the document is gone, and so is the text."""
    gate, desk = Gate(serve.runtime, monkeypatch), serve.server.desk
    with serve.client() as client:
        with gate.hold(after=2):
            inline = client.ask(QUESTION, text="line\n" * 200)
            call = client._documents.ReadDocument(iter([options(), documents_pb2.ReadDocumentRequest(text=b"line\n" * 200)]))
            eventually(lambda: gate.held and desk.streams.used == 2)
            inline.close()
            call.cancel()
            eventually(lambda: desk.streams.used == 0)
        eventually(lambda: serve.runtime.arena.used == 0 and desk.uploads.used == 0)
        assert gate.begun <= 3 + 4 and len(desk.library) == 0, "of each reading, the pages that were handed in"


def test_streams_over_the_limit_are_told_to_come_back(runtime: Runtime) -> None:
    waiting = threading.Event()

    def stalled() -> Iterator[documents_pb2.ReadDocumentRequest]:
        yield options()
        waiting.wait(PATIENCE_S)

    with served(runtime, ServiceLimits(streams=1)) as at, at.client() as client:
        call = client._documents.ReadDocument(stalled())
        eventually(lambda: at.server.desk.streams.used == 1)
        with pytest.raises(ServiceError) as caught:
            client.read(TEXT)
        assert (caught.value.code, caught.value.reason, caught.value.retry_s) == (Code.RESOURCE_EXHAUSTED, "BUSY", 1.0)
        assert client.runtime().documents == 0, "calls that do no work are still answered"
        call.cancel()
        waiting.set()
        eventually(lambda: at.server.desk.streams.used == 0)
        assert client.read(TEXT).pages == 2


def test_health_follows_the_servers_life(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOT_SERVING, then SERVING after the warm-up, then NOT_SERVING while a running answer is let finish."""
    with served(runtime, ready=False) as at, at.client() as client, grpc.insecure_channel(at.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def status(service: str = "") -> int:
            return int(health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S).status)

        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == status() == NOT_SERVING
        with pytest.raises(ServiceError, match="starting") as caught:
            client.read(TEXT)
        assert (caught.value.code, caught.value.retry_s) == (Code.UNAVAILABLE, 1.0)

        at.on_loop(at.server.open(runtime))
        assert next(watch).status == SERVING
        assert {status(name) for name in ("", *SERVICES)} == {SERVING}

        identity = client.read(TEXT).id
        with Gate(runtime, monkeypatch).hold(after=3):
            reply = client.ask(QUESTION, document=identity, max_new_tokens=20)
            pieces = iter(reply)
            next(pieces)
            stopping = asyncio.run_coroutine_threadsafe(at.server.stop(PATIENCE_S), at.loop)
            assert next(watch).status == status() == NOT_SERVING
            with pytest.raises(ServiceError, match="draining"):
                client.get(identity)
        list(pieces)
        assert reply.done is not None and stopping.result(PATIENCE_S) is True


def test_a_drain_ends_with_its_time(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(runtime) as at, at.client() as client:
        identity = client.read(TEXT).id
        steps = slow_down(runtime, monkeypatch, 0.1)
        reply = client.ask(QUESTION, document=identity, max_new_tokens=2000)
        next(iter(reply))
        before = time.monotonic()
        assert at.on_loop(at.server.stop(0.3)) is False
        assert time.monotonic() - before >= 0.3 and runtime.arena.used == 0
        assert len(steps) < 200, "it did not wait for the answer"
        with pytest.raises(ServiceError):
            _ = reply.text


def test_reflection_lists_the_services(serve: Served) -> None:
    with grpc.insecure_channel(serve.address) as channel:
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        response = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=10))
    names = {service.name for service in response.list_services_response.service}
    assert names == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize(
    "address", ["", "50051", ":50051", "localhost", "example.com:1", "127.0.0.1:65536", "127.0.0.1:x", "unix:", "unix:/" + "a" * 100]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressError):
        Address.parse(address)


def test_a_taken_address_is_refused(serve: Served, runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="cannot be listened at"), served(runtime, address=serve.address, ready=False):
        pass
    path = tmp_path / "s"
    with served(runtime, address=f"unix:{path}") as at, at.client() as client:
        assert client.read(TEXT).pages == 2 and path.stat().st_mode & 0o077 == 0, "for this user only"
        with pytest.raises(AddressError, match="another process"):
            Address.parse(f"unix:{path}").claim()
    with socket.socket(socket.AF_UNIX) as stale:
        path.unlink(missing_ok=True)
        stale.bind(str(path))
    Address.parse(f"unix:{path}").claim()
    assert not path.exists(), "left by a process that died"
    path.write_text("not a socket")
    with pytest.raises(AddressError, match="not a socket"):
        Address.parse(f"unix:{path}").claim()


@pytest.mark.parametrize(
    "bad", [{"streams": 0}, {"deadline_s": 0.0}, {"deadline_s": float("nan")}, {"idle_s": float("inf")}, {"drain_s": -1.0}]
)
def test_limits_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        ServiceLimits(**bad)  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads Linux's socket tables")
def test_glyph_rt_serve_from_start_to_sigterm(random_model: Path, tmp_path: Path) -> None:
    """The real process: phases on standard error, one listening socket and no other, a drain on SIGTERM, exit code 0."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "http_proxy": "http://192.0.2.1:9"}
    with subprocess.Popen(serve_command("127.0.0.1:0", random_model), stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline() for _ in range(5)]
            phases = ("libraries loaded", "listening at", "model opened in", "warmed up in", "] serving")
            assert all(words in line for words, line in zip(phases, lines, strict=True)), lines
            address = lines[1].split("listening at ")[1].split(",")[0]
            [listening] = sockets(process.pid)
            assert listening.split()[3] == "0A", "the one socket listens"
            with Client(address, timeout_s=PATIENCE_S) as client:
                identity = client.read(TEXT).id
                _ = client.ask(QUESTION, document=identity, max_new_tokens=4).text
                local = [line.split()[1] for line in sockets(process.pid)]
                assert len({place.split(":")[1] for place in local}) == 1, "everything else came in through the listening port"
                process.send_signal(signal.SIGTERM)
                rest = process.stderr.read()
            assert process.wait(PATIENCE_S) == 0 and "draining" in rest and rest.splitlines()[-1].endswith("stopped")
        finally:
            process.kill()


# A token takes so long that 7,000 of them take minutes, however fast the box.
SLOWLY = """
import time
from glyph_rt.cli import main
from glyph_rt.language import LanguageModel
forward = LanguageModel.forward
LanguageModel.forward = lambda *arguments: (time.sleep(0.1), forward(*arguments))[1]
main()
"""


@pytest.mark.parametrize("moment", ["while it starts", "during a long answer"])
def test_signals_end_it_at_any_moment(random_model: Path, moment: str) -> None:
    """One signal while it starts; two while it drains: the second does not wait for the answer."""
    command = serve_command("127.0.0.1:0", random_model, "--drain", str(PATIENCE_S))
    command[2] = SLOWLY
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = [next(line for line in process.stderr if "listening at" in line)]
            if moment == "during a long answer":
                lines += [next(line for line in process.stderr if "] serving" in line)]
                with Client(lines[0].split("listening at ")[1].split(",")[0], timeout_s=PATIENCE_S) as client:
                    reply = client.ask(QUESTION, text=TEXT, max_new_tokens=7000)
                    next(iter(reply))
                    process.send_signal(signal.SIGTERM)
                    assert f"draining for up to {PATIENCE_S:g} s" in process.stderr.readline()
                    process.send_signal(signal.SIGTERM)
                    assert "stopping at once" in process.stderr.readline()
                    with pytest.raises(ServiceError):
                        _ = reply.text
            else:
                process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(PATIENCE_S) == 0 and "Traceback" not in rest and "stopped" in rest.splitlines()[-1], rest
        finally:
            process.kill()
