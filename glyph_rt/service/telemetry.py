"""Prometheus metrics of one server, all named glyph_rt_*: base units, bounded labels, and nothing of any text.

Labels are method, code, reason and stage, each out of a fixed set; tenants are none, since their number is not ours to bound.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glyph_rt.errors import AddressError
from glyph_rt.service.address import Address

if TYPE_CHECKING:
    from glyph_rt.service.calls import Desk

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)  # seconds
_BETWEEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5)  # seconds between tokens


@dataclass
class Tally:
    """What a server has done since it started."""

    readings: int = 0
    pages: int = 0
    visual_tokens: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    refusals: int = 0


class Telemetry:
    """The metrics. Written from the event loop, read from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tally = Tally()
        ProcessCollector(registry=self.registry)
        self._calls = Counter("glyph_rt_calls", "Calls that ended.", ("method", "code"), registry=self.registry)
        self._seconds = self._histogram("glyph_rt_call_seconds", "Whole calls, the client's own pace included.", ("method",))
        self._stages = self._histogram("glyph_rt_stage_seconds", "Stages of readings and answers.", ("stage",))
        self._first = self._histogram("glyph_rt_time_to_first_token_seconds", "From the question, document read, to the first piece.")
        self._between = self._histogram("glyph_rt_inter_token_latency_seconds", "Between two pieces of an answer.", buckets=_BETWEEN)
        self._each = self._histogram("glyph_rt_time_per_output_token_seconds", "Per token after the first, by answer.", buckets=_BETWEEN)
        self._rejections = Counter("glyph_rt_rejections", "Calls that were refused.", ("reason",), registry=self.registry)
        self._cancellations = Counter(
            "glyph_rt_cancellations",
            "Calls that the client or a deadline ended, by what was under way.",
            ("stage",),
            registry=self.registry,
        )
        # Finding a metric by its labels costs more than counting; all labels are out of fixed sets, so these stay few.
        self._calls_of, self._seconds_of = cache(self._calls.labels), cache(self._seconds.labels)
        self._stage_of = cache(self._stages.labels)
        self._revivals = Counter(
            "glyph_rt_listener_restarts", "Malformed requests that gRPC stopped listening over.", registry=self.registry
        )

    def revived(self) -> None:
        """The listener had to be started anew."""
        self._revivals.inc()

    def watch(self, desk: Desk) -> None:
        """Also tell what `desk` holds, at the time somebody asks."""
        self.registry.register(_State(desk, self.tally))

    def ended(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        self._calls_of(method, code).inc()
        self._seconds_of(method).observe(seconds)

    def refused(self, reason: str) -> None:
        """A call was refused."""
        self.tally.refusals += 1
        self._rejections.labels(reason).inc()

    def cancelled(self, stage: str) -> None:
        """A call was ended from outside while `stage` was under way."""
        self._cancellations.labels(stage).inc()

    def stage(self, name: str, seconds: float) -> None:
        """A stage has ended: queue, memory (waiting for KV), typeset, encode, read (the document's prefill), restore (bringing a document's
        KV back), prefill (the question's, restoring and waiting included) or decode."""
        self._stage_of(name).observe(seconds)

    def piece(self, seconds: float) -> None:
        """A piece came `seconds` after the one before."""
        self._between.observe(seconds)

    def read(self, pages: int, visual_tokens: int) -> None:
        """A document has been read."""
        self.tally.readings += 1
        self.tally.pages += pages
        self.tally.visual_tokens += visual_tokens

    def answered(self, prompt_tokens: int, cached_tokens: int, output_tokens: int, first_s: float, decode_s: float) -> None:
        """An answer has come to its end."""
        tally = self.tally
        tally.answers += 1
        tally.prompt_tokens += prompt_tokens
        tally.cached_tokens += cached_tokens
        tally.output_tokens += output_tokens
        self._first.observe(first_s)
        if output_tokens > 1:
            self._each.observe(decode_s / (output_tokens - 1))

    def serve(self, address: Address) -> tuple[str, Callable[[], None]]:
        """Answer scrapes at a loopback address, on threads of their own: where that is, and how to stop. Raises AddressError."""
        check_metrics(address)
        host, _, port = address.target.rpartition(":")
        try:
            server = make_server(host.strip("[]"), int(port), make_wsgi_app(self.registry), _Six if "[" in host else _Scrapes, _Silent)
        except OSError as error:
            raise AddressError(f"metrics cannot be served at {address.target} ({error.strerror})") from None
        thread = threading.Thread(target=server.serve_forever, name="glyph-metrics", daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return f"{host}:{server.server_port}", stop

    def _histogram(self, name: str, about: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _LATENCY) -> Histogram:
        return Histogram(name, about, labels, buckets=buckets, registry=self.registry)


class _State(Collector):
    """What a desk holds now, and what its server has done."""

    def __init__(self, desk: Desk, tally: Tally) -> None:
        self._desk, self._tally = desk, tally

    def collect(self) -> Iterator[Metric]:
        desk, tally = self._desk, self._tally
        runtime = desk.runtime
        gauges: list[tuple[str, str, float]] = [
            ("documents", "Documents kept.", len(desk.library)),
            ("documents_limit", "Documents that may be kept.", desk.limits.documents),
            ("streams", "Readings and answers under way.", desk.streams.used),
            ("streams_limit", "Readings and answers that may be under way.", desk.streams.limit),
            ("upload_bytes", "Texts being uploaded or read.", desk.uploads.used),
            ("upload_limit_bytes", "Texts that may be uploaded or read at once.", desk.uploads.limit),
            ("threads", "Threads of this process.", threading.active_count()),
        ]
        counters: list[tuple[str, str, float]] = [
            ("readings", "Documents read.", tally.readings),
            ("pages", "Pages read.", tally.pages),
            ("visual_tokens", "Visual tokens read.", tally.visual_tokens),
            ("answers", "Answers that came to their end.", tally.answers),
            ("prompt_tokens", "Tokens answers were conditioned on.", tally.prompt_tokens),
            ("cached_tokens", "Of these, the ones whose KV was there.", tally.cached_tokens),
            ("generation_tokens", "Tokens of answers.", tally.output_tokens),
        ]
        if runtime is not None:
            cache = runtime.typesetter.cache
            gauges += [
                ("kv_bytes", "KV memory set aside.", runtime.arena.used),
                ("kv_limit_bytes", "KV memory there is.", runtime.arena.budget),
                ("kv_idle_bytes", "Of the memory set aside, what documents give to whoever needs it.", runtime.store.idle_bytes),
                ("kv_host_bytes", "KV of idle documents in host memory.", runtime.store.host_used),
                ("text_bytes", "Texts of the documents kept, with their layouts.", runtime.texts.used),
                ("text_limit_bytes", "Texts of documents that may be kept.", runtime.texts.budget),
                ("weight_bytes", "The decoder's weights.", runtime.plan().weights),
            ]
            if cache is not None:
                gauges.append(("page_cache_bytes", "Drawn pages kept.", cache.bytes))
                counters += [
                    ("page_cache_hits", "Pages that were kept.", cache.hits),
                    ("page_cache_misses", "Pages that had to be drawn.", cache.misses),
                ]
        for name, about, value in gauges:
            yield GaugeMetricFamily(f"glyph_rt_{name}", about, value)
        for name, about, value in counters:
            yield CounterMetricFamily(f"glyph_rt_{name}", about, value)


def check_metrics(address: Address) -> None:
    """Raises AddressError unless metrics may be served there."""
    if address.path is not None or not address.local:
        raise AddressError(f"metrics are served on loopback only, not at {address.target}; let an agent on this machine collect them")


class _Scrapes(ThreadingMixIn, WSGIServer):
    """Answers scrapes; one that hangs holds up neither others nor the end of the process."""

    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own would ask the resolver for this machine's name
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()


class _Six(_Scrapes):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    timeout = 10.0  # seconds for a request to arrive

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line each."""
