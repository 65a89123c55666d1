"""`glyph-rt serve`: the gRPC service, in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glyph_rt.cli.opening import Opening
from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import parse_size
from glyph_rt.memory.plan import Budget
from glyph_rt.service.address import Address
from glyph_rt.service.limits import ServiceLimits

if TYPE_CHECKING:
    from glyph_rt.runtime import Runtime
    from glyph_rt.service.auth import Security


@dataclass(frozen=True)
class ServeOptions:
    """The command line of `serve`; times are seconds."""

    address: str
    opening: Opening
    budget: str | None
    reserve: str
    pages: int | None
    documents: int
    streams: int
    tenant_documents: int | None
    tenant_streams: int | None
    upload_bytes: str
    long_bytes: str
    parts: int
    window: int | None
    open_text_bytes: str
    deadline: float
    idle: float
    drain: float
    tls_cert: Path | None
    tls_key: Path | None
    client_ca: Path | None
    tokens: Path | None
    insecure: bool
    audit: Path | None
    metrics: str | None
    traces: str | None
    log_json: bool


def run(options: ServeOptions) -> None:
    """Cheap checks first: a wrong address or limit is refused before torch is imported."""
    address = Address.parse(options.address)
    metrics = None if options.metrics is None else Address.parse(options.metrics)
    own = ServiceLimits(
        documents=options.documents,
        streams=options.streams,
        tenant_documents=options.tenant_documents,
        tenant_streams=options.tenant_streams,
        upload_bytes=parse_size(options.upload_bytes),
        long_bytes=parse_size(options.long_bytes),
        parts=options.parts,
        window=options.window,
        deadline_s=options.deadline,
        idle_s=options.idle,
        drain_s=options.drain,
    )
    start = time.perf_counter()
    from glyph_rt.service import logs
    from glyph_rt.service.telemetry import check_metrics

    security = _security(options)
    security.check(address)
    if metrics is not None:
        check_metrics(metrics)
    # Whether a page was drawn or encoded before can be told by the time it takes, so tenants share neither. (KV is kept by tenant.)
    kept = {"page_bytes": 0, "encoded_bytes": 0} if security.identifies else {}
    limits = options.opening.limits(open_text_bytes=parse_size(options.open_text_bytes), pages=options.pages, **kept)
    own.check_against(limits)
    budget = None if options.budget is None else Budget(parse_size(options.budget), parse_size(options.reserve))
    logs.configure(start, as_json=options.log_json)
    if missing := security.missing(address):
        logs.LOG.warning("serving other machines without %s", missing)

    asyncio.run(_serve(address, own, security, options, metrics, lambda: options.opening.open(limits, budget)))


async def _serve(
    address: Address,
    limits: ServiceLimits,
    security: Security,
    options: ServeOptions,
    metrics: Address | None,
    open_runtime: Callable[[], Runtime],
) -> None:
    from glyph_rt.service.logs import LOG
    from glyph_rt.service.server import Server, serve
    from glyph_rt.service.tracing import Tracing

    tracing = None if options.traces is None else Tracing.to(options.traces)
    server = Server(address, limits, security, options.audit, tracing)
    LOG.info("libraries loaded")
    with ExitStack() as cleanup:
        if metrics is not None:
            where, stop = server.desk.telemetry.serve(metrics)
            cleanup.callback(stop)
            LOG.info("metrics at http://%s/metrics", where)
        await serve(server, open_runtime, limits.drain_s)


def _security(options: ServeOptions) -> Security:
    """How the server is protected. Raises OptionError for half of a pair."""
    from glyph_rt.service.auth import Security
    from glyph_rt.service.tls import TlsFiles

    if (options.tls_cert is None) != (options.tls_key is None):
        raise OptionError("--tls-cert and --tls-key go together")
    if options.tls_cert is None or options.tls_key is None:
        if options.client_ca is not None:
            raise OptionError("--client-ca needs TLS: --tls-cert and --tls-key")
        return Security(None, options.tokens, options.insecure)
    return Security(TlsFiles(options.tls_cert, options.tls_key, options.client_ca), options.tokens, options.insecure)
