"""The blocking client and the asynchronous one: the same calls, over real sockets, with the same results and refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from glyph_rt import Runtime
from glyph_rt.errors import OptionError
from glyph_rt.service.client import AsyncClient, Client, RefusedError, ServiceError
from glyph_rt.service.client.flows import Flow, Give, Patience, Pause, Send
from glyph_rt.service.failures import DETAILS
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.v1 import documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Gate, Served, eventually, served

QUESTION = "What is the value of order number?"


def everything(client: Client) -> list[Any]:
    """Every method once; what each gave, without what differs from call to call."""
    progress: list[documents_pb2.ReadProgress] = []
    document = client.read(TEXT, progress.append)
    reply = client.ask(QUESTION, document=document.id, max_new_tokens=12)
    first = next(iter(reply))
    assert reply.accepted is not None and reply.text.startswith(first)
    assert reply.done is not None
    after = client.ask("And the weight?", document=document.id, after=reply.done.conversation_id, max_new_tokens=4).text
    longer = client.append(document.id, "Weight: 12 kg\n")
    listed = [d.id == document.id for d in client.list(page_size=1)]
    pages = [page.png for page in client.pages(document.id)]
    found = client.get(document.id).digest == longer.digest
    client.delete(document.id)
    return [progress, document.digest, reply.text, reply.done.usage, after, longer.digest, listed, pages, found, client.runtime().documents]


async def everything_at_once(client: AsyncClient) -> list[Any]:
    progress: list[documents_pb2.ReadProgress] = []
    document = await client.read(TEXT, progress.append)
    reply = client.ask(QUESTION, document=document.id, max_new_tokens=12)
    first = await anext(aiter(reply))
    text = await reply.text()
    assert reply.accepted is not None and text.startswith(first)
    assert reply.done is not None
    after = await client.ask("And the weight?", document=document.id, after=reply.done.conversation_id, max_new_tokens=4).text()
    longer = await client.append(document.id, "Weight: 12 kg\n")
    listed = [d.id == document.id async for d in client.list(page_size=1)]
    pages = [page.png async for page in client.pages(document.id)]
    found = (await client.get(document.id)).digest == longer.digest
    await client.delete(document.id)
    about = await client.runtime()
    return [progress, document.digest, text, reply.done.usage, after, longer.digest, listed, pages, found, about.documents]


def asynchronously(address: str, what: Callable[[AsyncClient], Any], **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(address, **options) as client:
            return await what(client)

    return asyncio.run(run())


def test_both_clients_do_the_same(serve: Served) -> None:
    with serve.client() as client:
        expected = everything(client)
    assert asynchronously(serve.address, everything_at_once) == expected


def test_answers_of_one_async_client_run_together(serve: Served) -> None:
    questions = [f"What is the value of {key}?" for key in ("order number", "weight", "carrier", "door code")]

    async def ask(client: AsyncClient) -> list[str]:
        document = await client.read(TEXT)
        replies = [client.ask(question, document=document.id, max_new_tokens=12) for question in questions]
        texts = await asyncio.gather(*(reply.text() for reply in replies))
        await client.delete(document.id)
        return texts

    with serve.client() as client:
        identity = client.read(TEXT).id
        alone = [client.ask(question, document=identity, max_new_tokens=12).text for question in questions]
    assert asynchronously(serve.address, ask) == alone


def test_both_clients_are_refused_alike(serve: Served) -> None:
    async def refused(client: AsyncClient) -> ServiceError:
        with pytest.raises(RefusedError) as caught:
            await client.ask(" ", text=TEXT).text()
        with pytest.raises(OptionError):
            client.ask("?", text=TEXT, seed=-1)
        return caught.value

    with serve.client() as client, pytest.raises(RefusedError) as caught:
        _ = client.ask(" ", text=TEXT).text
    for error in (caught.value, asynchronously(serve.address, refused)):
        assert (error.code, error.reason, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT", "question")


def test_closing_an_async_reply_stops_the_work_and_cancelling_its_task_is_a_cancellation(
    serve: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, streams = Gate(serve.runtime, monkeypatch), serve.server.desk.streams

    async def close(client: AsyncClient) -> None:
        with gate.hold(after=4):  # two pages, the question, and a token
            reply = client.ask("Which?", text=TEXT, max_new_tokens=400)
            pieces = aiter(reply)
            assert await anext(pieces)
            await asyncio.to_thread(eventually, lambda: gate.held)
            reply.close()
            with pytest.raises(ServiceError) as caught:
                await anext(pieces)
            assert caught.value.code == grpc.StatusCode.CANCELLED
            await asyncio.to_thread(eventually, lambda: streams.used == 0)
            await asyncio.to_thread(gate.let_the_cancelled_know)
        assert gate.begun <= 6
        with gate.hold():
            task = asyncio.create_task(client.ask("Which?", text=TEXT, max_new_tokens=400).text())
            await asyncio.to_thread(eventually, lambda: streams.used == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(eventually, lambda: streams.used == 0)

    asynchronously(serve.address, close)
    eventually(lambda: serve.runtime.arena.used == 0)
    assert gate.begun <= 6 + 2


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_a_patient_client_comes_back_when_there_is_room(runtime: Runtime, kind: str) -> None:
    """Documents at their limit: refused with RetryInfo, and taken once one was deleted. A question likewise, while streams are taken."""
    with served(runtime, ServiceLimits(documents=1)) as at, at.client() as other:
        held = other.read("held\n").id
        refusals = lambda: at.server.desk.telemetry.tally.refusals  # noqa: E731
        result: list[str] = []

        def read() -> None:
            if kind == "blocking":
                with at.client(patience_s=PATIENCE_S) as client:
                    result.append(client.read(TEXT).id)
            else:
                result.append(asynchronously(at.address, lambda client: client.read(TEXT), patience_s=PATIENCE_S).id)

        thread = threading.Thread(target=read)
        thread.start()
        eventually(lambda: refusals() >= 1)
        other.delete(held)
        thread.join(PATIENCE_S)
        assert [d.id for d in other.list()] == result and refusals() >= 1
        with pytest.raises(ServiceError) as caught:
            other.read("b\n")
        assert caught.value.retry_s == 1.0
        other.delete(result[0])


def test_an_upload_that_is_refused_early_is_told_why(runtime: Runtime) -> None:
    """Often enough that some messages are on their way in the moment of the refusal."""

    async def refused(client: AsyncClient) -> set[tuple[grpc.StatusCode, float | None]]:
        found = set()
        for number in range(60):
            with pytest.raises(ServiceError) as caught:
                await client.read("line\n" * (1 + 100_000 * (number % 2)))
            found.add((caught.value.code, caught.value.retry_s))
        return found

    with served(runtime, ServiceLimits(documents=1)) as at, at.client() as client:
        held = client.read("held\n").id
        assert asynchronously(at.address, refused) == {(grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0)}
        client.delete(held)


class FakeCall(grpc.RpcError):
    """What gRPC raises, with google.rpc details or without."""

    def __init__(self, code: grpc.StatusCode, retry_s: float | None) -> None:
        status = status_pb2.Status()
        if retry_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(retry_s * 1e9))
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            status.details.append(detail)
        self.code = lambda: code
        self.details = lambda: "told"
        self.trailing_metadata = lambda: ((DETAILS, status.SerializeToString()),)


def test_patience_waits_as_long_as_it_is_told_and_no_longer_than_it_has() -> None:
    busy = ServiceError(FakeCall(grpc.StatusCode.RESOURCE_EXHAUSTED, 2.0))
    pauses = [Patience(60.0).pause(busy) for _ in range(50)]
    assert all(pause is not None and 2.0 <= pause.seconds <= 3.0 for pause in pauses)
    assert len({pause.seconds for pause in pauses if pause is not None}) > 1, "clients refused together do not come back together"
    assert Patience(1.9).pause(busy) is None
    assert Patience(60.0).pause(ServiceError(FakeCall(grpc.StatusCode.UNAVAILABLE, None))) is None, "nothing was said of trying again"


def test_a_flow_repeats_what_may_be_repeated_and_gives_nothing_twice(serve: Served) -> None:
    """The retries, without a server: the flow itself says what is done."""
    with serve.client(patience_s=60.0) as client:
        flow: Flow[documents_pb2.Document] = client._flows.list(2)
    busy = ServiceError(FakeCall(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.5))
    pages = [
        documents_pb2.ListDocumentsResponse(documents=[documents_pb2.Document(id="a")], next_page_token="after-1"),
        documents_pb2.ListDocumentsResponse(documents=[documents_pb2.Document(id="b")]),
    ]
    assert isinstance(flow.send(None), Send)
    assert isinstance(flow.throw(busy), Pause)
    assert isinstance(flow.send(None), Send)
    assert flow.send(pages[0]) == Give(documents_pb2.Document(id="a"))
    assert isinstance(flow.send(None), Send)
    assert isinstance(flow.throw(busy), Pause), "the second page has patience of its own"
    assert isinstance(flow.send(None), Send)
    assert flow.send(pages[1]) == Give(documents_pb2.Document(id="b"))
    with pytest.raises(StopIteration):
        flow.send(None)
