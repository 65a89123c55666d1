"""Texts longer than the window over gRPC: answered by every strategy, stopped anywhere, refused when they can never be, and let wait."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from glyph_rt import Quoting, Runtime
from glyph_rt.documents import Document
from glyph_rt.long import LongText, Strategy
from glyph_rt.memory.arena import Reservation
from glyph_rt.service.access import Access
from glyph_rt.service.auth import Security
from glyph_rt.service.client import AsyncClient, Client, RefusedError, ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.tokens import add_token
from glyph_rt.v1 import answers_pb2, documents_pb2
from tests.long.test_text import ASKED, CONTRACT, LONG, SAID, SHORT, WINDOW
from tests.service.conftest import PATIENCE_S, Gate, Served, eventually, overrun, served
from tests.test_cli import Run, run

__all__ = ["run"]

LIMITS = ServiceLimits(window=WINDOW.window)
TOKENS = SHORT.max_new_tokens
DOOR = "door code: 7731\n"


@pytest.fixture(scope="module")
def at(reader_runtime: Runtime) -> Iterator[Served]:
    """The embedded reader, four pages at a time: LONG is more than ten such windows."""
    with served(reader_runtime, LIMITS) as found:
        yield found


@pytest.mark.parametrize("strategy", ["retrieve_pages", "map_reduce", "auto"])
def test_a_long_text_is_answered_as_by_the_library(at: Served, reader_runtime: Runtime, strategy: str) -> None:
    with LongText(reader_runtime, LONG, rules=WINDOW) as text:
        expected = text.ask(ASKED, SHORT, strategy=Strategy.parse(strategy))
        layout = text.layout
    told: list[documents_pb2.ReadProgress] = []
    with at.client() as client:
        reply = client.ask(ASKED, text=LONG, strategy=strategy, max_new_tokens=TOKENS, progress=told.append)
        assert reply.text == SAID
    done, accepted = reply.done, reply.accepted
    assert done is not None and accepted is not None and accepted.choice == done.reading.choice
    assert answers_pb2.Strategy.Name(done.reading.choice.strategy) == f"STRATEGY_{expected.choice.strategy.name}"
    assert done.reading.choice.reason == expected.choice.reason
    assert (done.reading.pages, done.reading.pages_read) == (expected.pages, expected.pages_read)
    assert expected.pages >= 40 and (expected.pages_read == expected.pages) == (strategy == "map_reduce")
    assert [(part.first_page, part.last_page, part.text, part.found) for part in done.reading.parts] == [
        (*part.pages, part.text, part.found) for part in expected.parts
    ]
    (source,), (cited,) = done.reading.sources, done.citations
    assert (source.start, source.end) == (cited.start, cited.end) and LONG[cited.start : cited.end] == SAID
    assert cited.boxes[0].page == source.page == layout.find_all(cited.start, cited.end)[0].page
    usage, cost = done.usage, expected.cost.usage
    assert (usage.pages, usage.prompt_tokens, usage.completion_tokens) == (cost.pages, cost.prompt_tokens, cost.completion_tokens)
    assert usage.characters == cost.characters and usage.cached_tokens == 0
    read = [(p.done, p.total) for p in told if p.stage == documents_pb2.READ_STAGE_READ]
    assert read[-1] == (usage.pages, usage.pages) and read == sorted(read)
    assert {p.stage for p in told} <= {documents_pb2.READ_STAGE_READ, documents_pb2.READ_STAGE_LAYOUT}


def test_what_fits_is_answered_as_whole_is(at: Served) -> None:
    with at.client() as client:
        whole = client.ask(ASKED, text=CONTRACT, max_new_tokens=TOKENS)
        assert whole.text == SAID and whole.done is not None and not whole.done.HasField("reading")
        assert whole.accepted is not None and whole.accepted.prompt_tokens == whole.done.usage.prompt_tokens
        said_so = client.ask(ASKED, text=CONTRACT, max_new_tokens=TOKENS, strategy="whole")
        assert said_so.text == SAID and said_so.done is not None and said_so.done.usage == whole.done.usage
    with served(at.runtime) as wide, wide.client() as client:
        auto = client.ask(ASKED, text=CONTRACT, max_new_tokens=TOKENS, strategy="auto", quotes=Quoting.EXACT)
        assert auto.text == SAID and auto.done is not None and auto.done.HasField("text")
        assert auto.done.reading.choice.strategy == answers_pb2.STRATEGY_WHOLE
        assert auto.done.usage == whole.done.usage and list(auto.done.citations) == list(whole.done.citations)


def test_the_async_client_asks_about_long_texts(at: Served) -> None:
    async def ask() -> str:
        async with AsyncClient(at.address) as client:
            reply = client.ask(ASKED, text=LONG, strategy="retrieve_pages", max_new_tokens=TOKENS)
            text = await reply.text()
            assert reply.done is not None and reply.done.reading.pages_read < reply.done.reading.pages
            return text

    assert asyncio.run(ask()) == SAID


STEPS = 32  # enough for the first of LONG's parts: four pages, and an answer that says in twenty tokens that it is not there


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
def test_what_nobody_waits_for_stops_in_the_middle(at: Served, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    gate, desk = Gate(at.runtime, monkeypatch), at.server.desk

    def ended(timeout_s: float | None = None) -> bool:
        seen: list[int] = []  # pages

        def progress(where: documents_pb2.ReadProgress) -> None:
            if where.stage == documents_pb2.READ_STAGE_READ:
                seen.append(where.done)

        with at.client(timeout_s=timeout_s) as client, ThreadPoolExecutor(1) as other, gate.hold(after=STEPS):
            reply = client.ask(ASKED, text=LONG, strategy="map_reduce", max_new_tokens=TOKENS, progress=progress)
            asked = other.submit(lambda: reply.text)
            if ending == "cancel":
                eventually(lambda: gate.held and bool(seen) and max(seen) > 4)  # it is told what it did, in the second part
                reply.close()
            error = asked.exception()
            came_so_far, begun = gate.held and reply.accepted is not None and bool(seen), gate.begun
            eventually(lambda: desk.streams.used == 0)  # the server knows
            if came_so_far:
                gate.let_the_cancelled_know()
        assert isinstance(error, ServiceError)
        assert error.code == (grpc.StatusCode.CANCELLED if ending == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED)
        eventually(lambda: desk.long_texts.used == desk.uploads.used == at.runtime.arena.used == at.runtime.texts.used == 0)
        assert all(done < 40 for done in seen)
        assert not came_so_far or gate.begun <= begun + 1, "and nobody goes on"
        return came_so_far

    if ending == "cancel":
        assert ended()
    else:
        overrun(ended)
    desk.check_integrity()


def test_what_can_never_be_answered_is_refused_with_the_figures(at: Served, reader_runtime: Runtime) -> None:
    def refused(client: Client, *, question: str = ASKED, **options: Any) -> str:
        reply = client.ask(question, **options)
        with pytest.raises(RefusedError) as error:
            _ = reply.text
        assert reply.accepted is None
        return f"{error.value.field}: {error.value}"

    with at.client() as client:
        identity = client.read(CONTRACT).id
        assert refused(client, document=identity, strategy="auto").startswith("strategy: the server: a strategy says how a text sent along")
        client.delete(identity)
        assert refused(client, text=" ", strategy="auto").startswith("text: ")
        assert refused(client, text="a\0", strategy="auto").startswith("text: ")
        assert refused(client, strategy="auto").startswith("subject: ")
        assert refused(client, text="a", after="0" * 32, strategy="auto").startswith("conversation_id: ")
        assert "no page holds a word" in refused(client, question="zyx?", text=LONG, strategy="retrieve_pages")
        unknown = answers_pb2.AskRequest(text="a", question="?", strategy=99)  # type: ignore[arg-type]
        with pytest.raises(grpc.RpcError) as error:
            list(client._answers.Ask(unknown))
        assert error.value.details() == "no strategy has the number 99"  # type: ignore[attr-defined]
    with served(reader_runtime, ServiceLimits(window=4, parts=3)) as narrow, narrow.client() as client:
        assert "the limit is 3" in refused(client, text=LONG, strategy="map_reduce")
    with served(reader_runtime, ServiceLimits(long_bytes=1000)) as narrow, narrow.client() as client:
        assert f"has {len(LONG.encode()):,} bytes and the limit for a strategy other than whole is 1,000" in refused(
            client, text=LONG, strategy="auto"
        )
        about = client.runtime().limits
        assert (about.long_bytes, about.parts, about.window_pages) == (1000, 64, 0)
    page = reader_runtime.style.visual_tokens + 2
    budget = 2 * page * reader_runtime.model.kv_shape.bytes_per_token
    with served(reader_runtime.with_kv(budget)) as poor, poor.client() as client:
        for strategy in ("auto", "map_reduce", "retrieve_pages"):
            told = refused(client, text=LONG, strategy=strategy, max_new_tokens=60)
            assert (
                f"its answer (up to 60) leave no room for a page of the text ({page + 4})" in told
                and f"KV budget ({budget / 2**20:.1f} MiB)" in told
            )


def test_each_part_is_let_in_for_itself(reader_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for one part is enough for any text; who finds it taken is told the place, also between parts, and goes on after that."""
    page = reader_runtime.style.visual_tokens + 2
    runtime = reader_runtime.with_kv(5 * page * reader_runtime.model.kv_shape.bytes_per_token)
    with served(runtime) as poor, poor.client() as client:
        readings: list[str] = []
        held: list[Reservation] = []
        places: list[int] = []
        read = Runtime.read

        def taken(*arguments: Any, **options: Any) -> Document:
            readings.append(arguments[1])
            if len(readings) in (1, 3):  # between parts nothing of the text is in memory: somebody else may have all of it
                held.append(runtime.arena.reserve(runtime.arena.budget, "somebody"))
            return read(*arguments, **options)

        def wait(place: int) -> None:
            places.append(place)
            held.pop().release()

        monkeypatch.setattr(Runtime, "read", taken)
        reply = client.ask(ASKED, text=LONG, strategy="map_reduce", max_new_tokens=TOKENS, on_wait=wait)
        assert reply.text == SAID and reply.done is not None and len(readings) == len(reply.done.reading.parts) > 10
        assert reply.done.reading.pages_read == reply.done.reading.pages and places == [1, 1]


def test_a_part_that_finds_no_room_in_time_ends_the_answer(reader_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one behind the first: a client with patience asks again, since it has not seen a piece."""

    def release(held: Reservation, refused: int) -> None:
        eventually(lambda: poor.server.desk.telemetry.tally.refusals > refused)
        held.release()

    page = reader_runtime.style.visual_tokens + 2
    runtime = reader_runtime.with_kv(5 * page * reader_runtime.model.kv_shape.bytes_per_token)
    runtime.arena._wait_s = 0.2
    readings = 0
    read = Runtime.read

    def taken(*arguments: Any, **options: Any) -> Document:
        nonlocal readings
        readings += 1
        if readings == 3:
            held = runtime.arena.reserve(runtime.arena.budget, "somebody")
            threading.Thread(target=release, args=(held, poor.server.desk.telemetry.tally.refusals)).start()
        return read(*arguments, **options)

    with served(runtime) as poor, poor.client() as client, poor.client(patience_s=PATIENCE_S) as patient:
        monkeypatch.setattr(Runtime, "read", taken)
        reply = client.ask(ASKED, text=LONG, strategy="map_reduce", max_new_tokens=TOKENS)
        with pytest.raises(ServiceError) as error:
            _ = reply.text
        assert error.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED and error.value.retry_s == 1.0
        assert reply.accepted is not None and readings == 3
        eventually(lambda: runtime.arena.used == 0)
        readings = 0
        assert patient.ask(ASKED, text=LONG, strategy="map_reduce", max_new_tokens=TOKENS).text == SAID and readings > 13


def test_tenants_share_nothing_of_a_long_text(reader_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read all of it, at the same time, under names of their own for every page; also a second time."""
    tokens = tmp_path / "tokens"
    callers = [Access(token=add_token(tokens, tenant)) for tenant in ("ward-a", "ward-b")]
    documents: list[tuple[str, str]] = []
    read = Runtime.read

    def noted(*arguments: Any, **options: Any) -> Document:
        document = read(*arguments, **options)
        documents.append((options.get("tenant", ""), document.digest))
        return document

    monkeypatch.setattr(Runtime, "read", noted)
    with served(reader_runtime, LIMITS, security=Security(tokens=tokens)) as at, ThreadPoolExecutor(4) as pool:
        documents.clear()  # of the warm-up

        def ask(access: Access) -> str:
            with at.client(access) as client:
                return client.ask(ASKED, text=LONG, strategy="map_reduce", max_new_tokens=TOKENS).text

        assert list(pool.map(ask, [*callers, *callers])) == [SAID] * 4
    a, b = ({digest for tenant, digest in documents if tenant == name} for name in ("ward-a", "ward-b"))
    assert len(a) == len(b) > 10 and not a & b and len(documents) == 2 * (len(a) + len(b))


def test_long_texts_take_turns_with_short_ones(reader_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread that reads, a short question overtakes a long text between two of its parts."""
    read: list[str] = []
    reading = Runtime.read

    def noted(*arguments: Any, **options: Any) -> Document:
        read.append(arguments[1])
        return reading(*arguments, **options)

    with served(reader_runtime, ServiceLimits(window=4, readers=1)) as one, one.client() as client, ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(Runtime, "read", noted)
        gate, line = Gate(reader_runtime, monkeypatch), one.server.desk.workers.readers
        with gate.hold(after=2):
            long = pool.submit(lambda: client.ask(ASKED, text=LONG, strategy="map_reduce", max_new_tokens=TOKENS).text)
            eventually(lambda: gate.held)  # in the first part
            short = pool.submit(lambda: client.ask("What is the value of door code?", text=DOOR, max_new_tokens=TOKENS).text)
            eventually(lambda: len(line._members) == 2)
        assert (short.result(PATIENCE_S), long.result(PATIENCE_S)) == ("7731", SAID)
    assert read.index(DOOR) == 1 and len(read) > 10


def test_all_long_texts_together_are_bounded(at: Served) -> None:
    size = len(LONG.encode())
    with served(at.runtime, ServiceLimits(window=4, long_bytes=size)) as narrow, narrow.client() as client:
        narrow.server.desk.long_texts.take(1)
        with pytest.raises(ServiceError) as error:
            _ = client.ask(ASKED, text=LONG, strategy="auto").text
        assert error.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED and error.value.retry_s == 1.0
        assert narrow.server.desk.uploads.used == 0
        narrow.server.desk.long_texts.give(1)
        assert client.ask(ASKED, text=LONG, strategy="auto", max_new_tokens=TOKENS).text == SAID


def test_the_command_line_has_a_server_read_long_texts(at: Served, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text(LONG)
    always = ("ask", file, ASKED, "--max-new-tokens", TOKENS)
    code, out, err = run(*always, "--server", at.address)
    assert (code, out) == (0, SAID + "\n")
    assert err == "41 pages do not fit the 4-page window; the question names words that stand on few pages: retrieve_pages\n"
    for strategy in ("map_reduce", "retrieve_pages"):
        there = json.loads(run(*always, "--server", at.address, "--strategy", strategy, "--json")[1])
        here = json.loads(run(*always, "--window", 4, "--strategy", strategy, "--json", "--encoder", "torch")[1])
        for told in (here, there):
            del told["timings"]
            del told["usage"]["cached_tokens"]
        del here["memory"]
        assert there == here
    code, out, err = run(*always, "--server", at.address, "--strategy", "half")
    assert code == 2 and "half" in err.lower()
