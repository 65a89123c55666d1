"""Metrics and logs: what is counted is what happened, and the dashboard asks for what is there."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from glyph_rt import Runtime
from glyph_rt.errors import AddressError, OptionError
from glyph_rt.service import logs
from glyph_rt.service.address import Address
from glyph_rt.service.calls import Desk
from glyph_rt.service.client import ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.tracing import Tracing
from glyph_rt.v1 import documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Gate, Served, eventually, overrun, served

QUESTION = "What is the value of order number?"
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def value(at: Served, name: str, **labels: str) -> float:
    return at.server.desk.telemetry.registry.get_sample_value(f"glyph_rt_{name}", labels) or 0.0


def names(at: Served) -> set[str]:
    """Of every sample, whether or not it has been seen yet."""
    found = set()
    for family in at.server.desk.telemetry.registry.collect():
        suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}.get(family.type, ("",))
        found |= {family.name + suffix for suffix in suffixes}
    return found


def test_counts_follow_what_happens(serve: Served) -> None:
    with serve.client() as client:
        document = client.read(TEXT)
        reply = client.ask(QUESTION, document=document.id, max_new_tokens=12)
        assert reply.text and reply.done is not None
        with pytest.raises(ServiceError):
            client.get("0" * 32)
        # A call is counted once it is over, which its client may know a moment before.
        eventually(lambda: value(serve, "calls_total", method="GetDocument", code="NOT_FOUND") == 1)
        eventually(lambda: value(serve, "calls_total", method="ReadDocument", code="OK") == 1)
        eventually(lambda: value(serve, "calls_total", method="Ask", code="OK") == 1)
        assert value(serve, "rejections_total", reason="NO_DOCUMENT") == 1
        assert value(serve, "documents") == 1 and value(serve, "kv_bytes") == document.kv_bytes == serve.runtime.arena.used
        assert value(serve, "text_bytes") == serve.runtime.texts.used > len(TEXT.encode())
        assert (value(serve, "pages_total"), value(serve, "visual_tokens_total")) == (document.pages, document.visual_tokens)
        usage = reply.done.usage
        assert value(serve, "generation_tokens_total") == usage.completion_tokens == 12
        assert value(serve, "cached_tokens_total") == usage.cached_tokens < value(serve, "prompt_tokens_total") == usage.prompt_tokens
        for stage in ("queue", "memory", "typeset", "encode", "read", "prefill", "decode"):
            assert value(serve, "stage_seconds_count", stage=stage) == 1, stage
        assert value(serve, "time_to_first_token_seconds_count") == value(serve, "time_per_output_token_seconds_count") == 1
        assert value(serve, "inter_token_latency_seconds_count") >= 1
        load = client.runtime().load
        assert (load.documents, load.readings, load.answers, load.generation_tokens, load.refusals) == (1, 1, 1, 12, 1)
        assert load.kept_bytes == serve.runtime.texts.used and load.uptime_s > 0


def test_cancellations_are_counted_by_what_was_under_way(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()

    def stalled() -> Iterator[documents_pb2.ReadDocumentRequest]:
        yield documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())
        gone.wait(PATIENCE_S)

    with served(runtime) as at, at.client() as client:
        desk = at.server.desk
        upload = client._documents.ReadDocument(stalled())
        eventually(lambda: desk.streams.used == 1)
        upload.cancel()
        gone.set()
        eventually(lambda: value(at, "cancellations_total", stage="upload") == 1)
        identity = client.read(TEXT).id
        gate = Gate(runtime, monkeypatch)
        with gate.hold(after=3):
            reply = client.ask(QUESTION, document=identity, max_new_tokens=200)
            next(iter(reply))
            reply.close()
            eventually(lambda: value(at, "cancellations_total", stage="decode") == 1)
        eventually(lambda: value(at, "calls_total", method="Ask", code="CANCELLED") == 1)

        def overran(timeout_s: float) -> bool:
            with gate.hold(), at.client(timeout_s=timeout_s) as hurried:
                with pytest.raises(ServiceError):
                    _ = hurried.ask(QUESTION, text=TEXT * 3).text
                came_so_far = gate.held
                eventually(lambda: desk.streams.used == 0)
            return came_so_far

        overrun(overran)
        eventually(lambda: value(at, "cancellations_total", stage="read") >= 1)


@pytest.mark.parametrize(("left", "code"), [(None, "CANCELLED"), (0.5, "CANCELLED"), (-0.001, "DEADLINE_EXCEEDED")])
def test_a_call_that_was_ended_from_outside_is_counted_by_the_time_it_had_left(runtime: Runtime, left: float | None, code: str) -> None:
    """On a context that says what is left: over a wire, the client's own clock may be ahead of the server's."""
    context: Any = SimpleNamespace(time_remaining=lambda: left, auth_context=dict)

    async def counted() -> dict[str, float]:
        desk = Desk(ServiceLimits())
        desk.open(runtime)
        with pytest.raises(asyncio.CancelledError):
            async with desk.call("Ask", context, stream=True):
                raise asyncio.CancelledError
        desk.close()
        codes = ("OK", "CANCELLED", "DEADLINE_EXCEEDED")
        return {c: desk.telemetry.registry.get_sample_value("glyph_rt_calls_total", {"method": "Ask", "code": c}) or 0.0 for c in codes}

    assert asyncio.run(counted()) == {"OK": 0.0, "CANCELLED": 0.0, "DEADLINE_EXCEEDED": 0.0} | {code: 1.0}


def test_metrics_are_scraped_over_http_on_loopback_only(serve: Served) -> None:
    telemetry = serve.server.desk.telemetry
    for host in ("127.0.0.1", "[::1]"):
        where, stop = telemetry.serve(Address.parse(f"{host}:0"))
        with pytest.raises(AddressError, match="cannot be served"):
            telemetry.serve(Address.parse(where))
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE_S) as response:
            page = response.read().decode()
        stop()
        assert "# TYPE glyph_rt_kv_bytes gauge" in page and "process_resident_memory_bytes" in page
    for address in ("0.0.0.0:0", "192.0.2.1:0", "unix:/tmp/metrics"):
        with pytest.raises(AddressError, match="loopback only"):
            telemetry.serve(Address.parse(address))


def test_every_metric_is_named_and_explained_alike(serve: Served) -> None:
    for family in serve.server.desk.telemetry.registry.collect():
        assert re.fullmatch(r"glyph_rt_[a-z_]+|process_[a-z_]+", family.name) and family.documentation.endswith("."), family.name
        assert family.type != "histogram" or family.name.endswith("_seconds")


def test_the_dashboard_asks_for_metrics_that_are_there(serve: Served) -> None:
    """And for every one of ours."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"\b(?:glyph_rt|process)_[a-z_]+", expression)}
    there = names(serve)
    assert asked <= there, asked - there
    plain = {name for name in there if name.startswith("glyph_rt_") and not name.endswith(("_count", "_sum"))}
    assert plain <= asked, plain - asked
    for expression in expressions:
        assert expression.count("(") == expression.count(")")
    labels = {label for expression in expressions for group in re.findall(r"by \(([a-z, ]+)\)", expression) for label in group.split(", ")}
    assert labels == {"le", "stage", "method", "code", "reason"}


def test_logs_are_lines_for_people_or_json(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        logs.configure(time.perf_counter(), as_json=True)
        with logs.phase("model opened"):
            pass
        logs.LOG.error('a "quoted" name\nand a break')
        opened, broken = (json.loads(line) for line in capfd.readouterr().err.splitlines())
        assert opened["message"].startswith("model opened in") and opened["level"] == "info" and opened["seconds"] >= 0
        assert broken["message"] == 'a "quoted" name\nand a break' and broken["time"].endswith("+00:00")
        monkeypatch.setattr(logs, "time", SimpleNamespace(perf_counter=lambda: 101.234))
        logs.configure(100.0, as_json=False)
        logs.LOG.info("serving")
        assert capfd.readouterr().err == "glyph-rt: [   1.23 s] serving\n"
    finally:
        import logging

        logging.basicConfig(force=True)
        logs.LOG.setLevel(logging.NOTSET)


def test_a_client_with_patience_comes_back_when_there_is_room(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """What found no room is repeated when the server says; what can never be served is not."""
    with served(runtime, ServiceLimits(documents=1)) as at, at.client(patience_s=PATIENCE_S) as client:
        first = client.read("a\n").id
        refused = at.server.desk.telemetry.refused

        def make_room(reason: str) -> None:
            refused(reason)
            if reason == "BUSY":
                at.server.desk.library.remove("", first)

        monkeypatch.setattr(at.server.desk.telemetry, "refused", make_room)
        assert client.read("b\n").pages == 1
        assert value(at, "rejections_total", reason="BUSY") == 1
        before = value(at, "calls_total", method="Ask", code="INVALID_ARGUMENT")
        with pytest.raises(ServiceError):
            _ = client.ask(" ", text="a\n").text
        eventually(lambda: value(at, "calls_total", method="Ask", code="INVALID_ARGUMENT") == before + 1)
    with served(runtime, ServiceLimits(documents=1)) as at, at.client(patience_s=0.5) as client:
        client.read("a\n")
        with pytest.raises(ServiceError) as caught:
            client.read("b\n")
        assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_every_call_is_a_span_below_its_callers(runtime: Runtime) -> None:
    exporter = InMemorySpanExporter()
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with served(runtime, tracing=Tracing(SimpleSpanProcessor(exporter))) as at, at.client() as client:
        identity = client.read("SECRET\n" + TEXT).id
        request = documents_pb2.GetDocumentRequest(id=identity)
        client._documents.GetDocument(request, metadata=(("traceparent", f"00-{trace}-{parent}-01"),), timeout=PATIENCE_S)
        with pytest.raises(ServiceError):
            client.get("0" * 32)
        eventually(lambda: len(exporter.get_finished_spans()) == 3)
    read, get, missing = exporter.get_finished_spans()
    assert [span.name for span in (read, get, missing)] == ["ReadDocument", "GetDocument", "GetDocument"]
    assert read.attributes["glyph_rt.document"] == identity and read.attributes["glyph_rt.pages"] == 2
    assert (f"{get.context.trace_id:032x}", f"{get.parent.span_id:016x}") == (trace, parent)
    assert missing.attributes["rpc.grpc.status"] == "NOT_FOUND" and missing.attributes["glyph_rt.reason"] == "NO_DOCUMENT"
    assert "SECRET" not in "".join(span.to_json() for span in (read, get, missing))


def test_traces_need_an_endpoint() -> None:
    with pytest.raises(OptionError, match="no endpoint"):
        Tracing.to("127.0.0.1:4317")
