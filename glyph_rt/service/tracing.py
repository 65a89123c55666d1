"""A span per call, for OpenTelemetry: who took how long over what, below the caller's own span. Never a text. Needs the `otel` extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from glyph_rt.errors import OptionError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanProcessor
    from opentelemetry.trace import Span

Fact = str | int | float


class Tracing:
    """Makes spans, and hands them to a processor that exports them on a thread of its own."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._provider = TracerProvider(resource=Resource.create({"service.name": "glyph-rt"}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("glyph_rt")

    @classmethod
    def to(cls, endpoint: str) -> Tracing:
        """Export by OTLP over gRPC to http://HOST:PORT or https://HOST:PORT. Raises OptionError without the `otel` extra."""
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise OptionError("tracing needs OpenTelemetry; install glyph-rt[otel]") from None
        if not endpoint.startswith(("http://", "https://")):
            raise OptionError(f"{endpoint!r} is no endpoint; write http://127.0.0.1:4317")
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"))))

    def begin(self, service_method: str, metadata: Mapping[str, Any]) -> Span:
        """A span that begins now, below the one that the caller's metadata names, if any."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(service_method, extract(dict(metadata)), SpanKind.SERVER, {"rpc.system": "grpc"})

    @staticmethod
    def end(span: Span, code: str, facts: Mapping[str, Fact]) -> None:
        """The call is over."""
        from opentelemetry.trace import StatusCode

        span.set_attributes({"rpc.grpc.status": code, **{f"glyph_rt.{name}": value for name, value in facts.items()}})
        if code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Export what is waiting."""
        self._provider.shutdown()
