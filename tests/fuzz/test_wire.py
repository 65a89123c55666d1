"""Below messages: broken HTTP/2, and what gRPC's own interoperability tests ask of a server."""

from __future__ import annotations

import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from glyph_rt import Runtime
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.v1 import answers_pb2, documents_pb2
from tests.conftest import TEXT
from tests.faults.conftest import process
from tests.faults.test_processes import ENDINGS, Load
from tests.fuzz.conftest import QUESTION, reaches
from tests.service.conftest import Gate, Served, eventually, serve

__all__ = ["serve"]
Code = grpc.StatusCode
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """RFC 7541, section 6.2.2: a header that is not indexed, nor compressed."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def headers(path: bytes) -> bytes:
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return b"".join(literal(name, value) for name, value in fields)


def message(data: bytes, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message: flag, length, bytes."""
    return bytes((compressed,)) + struct.pack(">I", len(data) if length is None else length) + data


def greeting() -> bytes:
    return PREFACE + frame(SETTINGS, 0, 0)


def session(chance: random.Random) -> bytes:
    """A call as a client makes it, before it is broken."""
    path = chance.choice(
        (b"/glyph_rt.v1.RuntimeService/GetRuntime", b"/glyph_rt.v1.AnswerService/Ask", b"/glyph_rt.v1.DocumentService/ReadDocument")
    )
    body = answers_pb2.AskRequest(text="a: b\n", question="What is a?").SerializeToString() if b"Ask" in path else b""
    return greeting() + frame(HEADERS, 4, 1, headers(path)) + frame(DATA, 1, 1, message(body))


def visit(address: str, data: bytes, wait: float = 0.05) -> None:
    """Send bytes, take what comes for a moment, and go."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as there, suppress(OSError):
        there.sendall(data)
        there.settimeout(wait)
        while there.recv(65536):
            pass


def test_broken_http2_harms_nobody(target: Served, seconds: float) -> None:
    """Valid sessions with bytes and frames changed; another client's calls go on."""
    chance = random.Random(11)
    end = time.monotonic() + seconds
    visits = 0
    with target.client() as client:
        while time.monotonic() < end or visits < 20:
            data = bytearray(session(chance))
            for _ in range(chance.randint(1, 12)):
                at = chance.randrange(len(data))
                if chance.random() < 0.5:
                    data[at] = chance.randrange(256)
                else:
                    kind, flags, stream = chance.randrange(12), chance.randrange(256), chance.choice((0, 1, 2, 3, 2**31 - 1))
                    data[at:at] = frame(kind, flags, stream, chance.randbytes(chance.randint(0, 30)))
            with suppress(ConnectionRefusedError):  # while the listener comes back (see the last test below)
                visit(target.address, bytes(data))
            visits += 1
            if visits % 10 == 0:
                eventually(lambda: reaches(client))
    with suppress(ConnectionRefusedError):
        visit(target.address, NO_UTF8, 0.001)  # what ends the listener comes last: that it is back is for the fixture to see


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),  # a TLS greeting
        greeting() + b"".join(frame(SETTINGS, 0, 0) for _ in range(2000)),
        greeting() + b"".join(frame(PING, 0, 0, bytes(8)) for _ in range(2000)),
        greeting()
        + frame(HEADERS, 0, 1, headers(b"/x"))
        + b"".join(frame(CONTINUATION, 0, 1, literal(b"a", b"b" * 100)) for _ in range(2000)),
        greeting()
        + b"".join(frame(HEADERS, 4, 2 * i + 1, headers(b"/x")) + frame(RST_STREAM, 0, 2 * i + 1, bytes(4)) for i in range(3000)),
        greeting() + frame(HEADERS, 4, 1, headers(b"/glyph_rt.v1.AnswerService/Ask")) + frame(DATA, 0, 1, message(b"", length=2**32 - 1)),
        greeting() + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 3,
        greeting() + frame(HEADERS, 4, 1, b"\xff" * 200),
    ],
    ids=["http1", "tls", "settings", "pings", "continuation", "rapid-reset", "length", "window", "hpack"],
)
def test_known_attacks_on_http2_harm_nobody(target: Served, data: bytes) -> None:
    """CVE-2023-44487 (rapid reset), CVE-2024-27316 (continuation) and their like."""
    with target.client() as client:
        for _ in range(3):
            visit(target.address, data, 0.2)
        assert client.runtime().version
        eventually(lambda: client.runtime().load.streams == 0)


# -- gRPC's interoperability cases (grpc/doc/interop-test-descriptions.md), as far as they apply


def test_cancel_after_begin(serve: Served) -> None:
    with serve.client() as client:
        begun = threading.Event()

        def silent() -> Iterator[documents_pb2.ReadDocumentRequest]:
            begun.wait(60)
            yield from ()

        call = client._documents.ReadDocument(silent())
        call.cancel()
        begun.set()
        assert call.code() == Code.CANCELLED


def test_cancel_after_first_response(serve: Served) -> None:
    with serve.client() as client:
        call = client._answers.Ask(answers_pb2.AskRequest(question=QUESTION, text=TEXT))
        assert next(call).WhichOneof("event") == "accepted"
        call.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() == Code.CANCELLED  # type: ignore[attr-defined]
        eventually(lambda: serve.runtime.arena.used == 0)


def test_timeout_on_sleeping_server(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gate(serve.runtime, monkeypatch).hold(), serve.client(timeout_s=0.1) as client, pytest.raises(ServiceError) as caught:
        client.read(TEXT)
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_unimplemented_method_and_service(serve: Served) -> None:
    with grpc.insecure_channel(serve.address) as channel:
        for path in ("/glyph_rt.v1.DocumentService/Unknown", "/glyph_rt.v2.DocumentService/GetDocument", "/x/y", "/"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(b"", timeout=60)
            assert caught.value.code() == Code.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_large_messages(serve: Served) -> None:
    """Right up to the limit they are read; beyond it, refused before they are."""
    limit = 4 * 2**20
    with serve.client() as client:
        first = documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())
        for size, code in ((limit - 5, Code.INVALID_ARGUMENT), (limit + 1, Code.RESOURCE_EXHAUSTED)):
            part = documents_pb2.ReadDocumentRequest(text=b"\xff" * size)  # refused as no UTF-8, which shows that all of it came
            with pytest.raises(grpc.RpcError) as caught:
                list(client._documents.ReadDocument(iter([first, part]), timeout=60))
            assert caught.value.code() == code  # type: ignore[attr-defined]
        eventually(lambda: serve.server.desk.uploads.used == 0)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages(serve: Served, compression: grpc.Compression) -> None:
    with serve.client() as client, grpc.insecure_channel(serve.address, compression=compression) as channel:
        plain = client.ask(QUESTION, text=TEXT, max_new_tokens=8).text
        request = answers_pb2.AskRequest(question=QUESTION, text=TEXT, sampling=answers_pb2.SamplingOptions(max_new_tokens=8))
        call = channel.unary_stream("/glyph_rt.v1.AnswerService/Ask")(request.SerializeToString(), timeout=60)
        events = [answers_pb2.AskResponse.FromString(data) for data in call]
        assert "".join(event.piece.text for event in events) == plain


def test_a_small_message_that_unpacks_to_a_large_one_is_refused(runtime: Runtime, serve: Served) -> None:
    """A compression bomb: the limit holds for what comes out."""
    with grpc.insecure_channel(serve.address, compression=grpc.Compression.Gzip) as channel:
        request = answers_pb2.AskRequest(question=QUESTION, text="a" * (20 * 2**20))
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.unary_stream("/glyph_rt.v1.AnswerService/Ask")(request.SerializeToString(), timeout=60))
        assert caught.value.code() == Code.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_empty_requests(serve: Served) -> None:
    with grpc.insecure_channel(serve.address) as channel:
        assert channel.unary_unary("/glyph_rt.v1.RuntimeService/GetRuntime")(b"", timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream("/glyph_rt.v1.DocumentService/ReadDocument")(iter([]), timeout=60))
        assert caught.value.code() == Code.INVALID_ARGUMENT  # type: ignore[attr-defined]


NO_UTF8 = greeting() + frame(HEADERS, 4, 1, headers(b"/glyph_rt.v1.RuntimeService/\xff\xfe")) + frame(DATA, 1, 1, message(b""))


def test_a_method_name_that_is_no_utf8_cuts_calls_off_and_no_more(serve: Served) -> None:
    """It ends grpc.aio's accept loop, and with it the server: ours listens again, with its documents, in the same place."""
    with serve.client() as client:
        identity = client.read(TEXT).id
        expected = client.ask(QUESTION, document=identity, max_new_tokens=8).text
    desk = serve.server.desk
    for restarts in range(1, 4):
        visit(serve.address, NO_UTF8, 0.2)
        eventually(lambda n=restarts: desk.telemetry.registry.get_sample_value("glyph_rt_listener_restarts_total") == n)
        with serve.client() as client:
            eventually(lambda client=client: answers(client, identity) == expected)
    assert len(desk.library) == 1


def test_method_names_that_are_no_utf8_between_calls_do_not_harm_the_process(random_model: Path) -> None:
    """While calls come and go. With methods registered in gRPC's core a few of these crashed the server, or it listened no more."""
    with process(random_model, "127.0.0.1:0") as server:
        load = Load(server.address, 3)
        for _ in range(12):
            done = len(load.answers)
            eventually(lambda done=done: len(load.answers) > done or server.process.poll() is not None)
            assert server.process.poll() is None
            visit(server.address, NO_UTF8, 0.2)
        load.stop()
        assert {error.code for error in load.errors} <= ENDINGS and len(set(load.answers)) == 1
        assert server.stop(signal.SIGTERM) == 0


def answers(client: Client, identity: str) -> str | None:
    """The answer, or None while nobody listens."""
    return client.ask(QUESTION, document=identity, max_new_tokens=8).text if reaches(client) else None
