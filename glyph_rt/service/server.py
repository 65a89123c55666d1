"""One serving process: grpc.aio in front, a Runtime behind; starts in phases, ends by draining.

    bind (NOT_SERVING) -> open the model -> warm up with a question -> SERVING -> drain (NOT_SERVING) -> gone

The port is open from the first phase on, so that a probe sees NOT_SERVING rather than nothing while a large model loads.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from glyph_rt.errors import AddressError, ModelError
from glyph_rt.language import Sampling
from glyph_rt.memory.allocator import give_back_free_memory
from glyph_rt.runtime import Runtime
from glyph_rt.service.about import RuntimeService
from glyph_rt.service.address import Address
from glyph_rt.service.answers import AnswerService
from glyph_rt.service.audit import AuditLog
from glyph_rt.service.auth import Security, TokenAuthentication
from glyph_rt.service.calls import Desk
from glyph_rt.service.decoding import Registry
from glyph_rt.service.documents import DocumentService
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.logs import LOG, phase
from glyph_rt.service.tokens import TokenFile
from glyph_rt.service.tracing import Tracing
from glyph_rt.v1 import answers_pb2, answers_pb2_grpc, documents_pb2, documents_pb2_grpc, runtime_pb2, runtime_pb2_grpc

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((documents_pb2, "DocumentService"), (answers_pb2, "AnswerService"), (runtime_pb2, "RuntimeService"))
)
WARM_UP = "glyph-rt warms up.\nKEY: VALUE\n"
_FOR_EVER = 1e9  # seconds; without a limit gRPC would not shield what it waits for from our being cancelled
_TIDY_S = 60.0  # seconds between two times that free memory is given back
_REVIVALS = 50  # attempts to listen again, 0.1 s apart
_SPARE_CALLS = 64  # beside the limit on streams: unary calls, health watches, and calls about to be told that there is no room


class Server:
    """The gRPC server of one process. `start`, then `open`, then `stop`; all on one event loop."""

    def __init__(
        self,
        address: Address,
        limits: ServiceLimits,
        security: Security | None = None,
        audit: Path | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Raises AddressError for an address that is not safe to serve at, OptionError for files that cannot be used."""
        self._security = security or Security()
        self._security.check(address)
        self._credentials = self._security.tls.credentials() if self._security.tls is not None else None
        self._tokens = TokenFile(self._security.tokens) if self._security.tokens is not None else None
        self.desk = Desk(limits, AuditLog(audit) if audit is not None else None, tracing)
        self.health = health.aio.HealthServicer()
        self._address = address
        self._server = self._make()
        self._keeper: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()  # gRPC servers that ended by themselves, and still have calls

    async def start(self) -> str:
        """Listen, not serving yet. Returns the address to connect to. Raises AddressError."""
        await self._set_health(serving=False)
        self._address = self._bind()
        await self._server.start()
        self._keeper = asyncio.create_task(self._keep())
        return self._address.target

    async def failed(self) -> None:
        """Waits for ever, unless the server cannot be kept listening: raises AddressError then."""
        if self._keeper is not None:
            await asyncio.shield(self._keeper)

    async def open(self, runtime: Runtime) -> None:
        """Serve from here on, if the runtime answers a question."""
        await self.desk.workers.do(lambda: warm_up(runtime))
        self.desk.open(runtime)
        await self._set_health(serving=True)

    async def stop(self, drain_s: float) -> bool:
        """NOT_SERVING; wait up to `drain_s` seconds for calls under way, cancel the rest, free everything. False: some were cancelled."""
        await self._set_health(serving=False)
        drained = await self.desk.drain(drain_s)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await asyncio.gather(self._server.stop(None), *self._ending)
        # Cancelled handlers unwind on this loop; only then is there nothing that could still hand work to the pools.
        finished = await self.desk.drain(5.0)
        await asyncio.get_running_loop().run_in_executor(None, self.desk.close)
        return drained and finished

    def _make(self) -> grpc.aio.Server:
        """A gRPC server with all services, not listening yet."""
        limits = self.desk.limits
        interceptors: list[grpc.aio.ServerInterceptor] = []
        if self._tokens is not None:
            interceptors.append(TokenAuthentication(self._tokens, lambda: self.desk.telemetry.refused("UNKNOWN_CALLER")))
        server = grpc.aio.server(
            interceptors=interceptors,
            maximum_concurrent_rpcs=limits.streams + _SPARE_CALLS,
            options=[
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the calls
                ("grpc.max_concurrent_streams", limits.streams + _SPARE_CALLS),  # per connection
                ("grpc.keepalive_time_ms", int(limits.keepalive_s * 1e3)),  # finds clients that went without a word
                ("grpc.keepalive_timeout_ms", int(limits.keepalive_s * 1e3 / 3)),
                ("grpc.http2.ping_timeout_ms", int(limits.keepalive_s * 1e3 / 3)),  # also of a ping that measures bandwidth
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),  # clients may ping every 20 s
            ],
        )
        registry = Registry(server, lenient=True)
        documents_pb2_grpc.add_DocumentServiceServicer_to_server(DocumentService(self.desk), registry)
        answers_pb2_grpc.add_AnswerServiceServicer_to_server(AnswerService(self.desk), registry)
        runtime_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(self.desk), registry)
        others: Any = Registry(server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, others)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, others)  # type: ignore[no-untyped-call]
        return server

    def _bind(self) -> Address:
        """Listen; where that is. Raises AddressError."""
        self._address.claim()
        mask = os.umask(0o077)  # a socket file is for this user only
        try:
            port = (
                self._server.add_insecure_port(self._address.target)
                if self._credentials is None
                else self._server.add_secure_port(self._address.target, self._credentials)
            )
        except RuntimeError:
            raise AddressError(f"{self._address.target} cannot be listened at; is another process serving there?") from None
        finally:
            os.umask(mask)
        return self._address.at(port)

    async def _keep(self) -> None:
        """Listen again when gRPC has stopped by itself. Raises AddressError when that cannot be done.

        grpc.aio's accept loop ends, and the server with it, on a request whose method name is not UTF-8 (grpcio 1.85, `_server_main_loop`),
        and no interceptor comes before it. Calls that are under way are cut off; the model and the documents stay.
        """
        while True:
            with suppress(Exception):  # it raises what ended the loop
                await self._server.wait_for_termination(_FOR_EVER)
            LOG.error("a malformed request ended the listener, which is started anew; calls under way were cut off")
            self.desk.telemetry.revived()
            await self._lay_down(self._server)
            self._server = self._make()
            for attempt in range(_REVIVALS):
                try:
                    self._bind()
                except AddressError:
                    if attempt + 1 == _REVIVALS:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    break
            await self._server.start()

    async def _lay_down(self, ended: grpc.aio.Server) -> None:
        """Stop a gRPC server whose accept loop has ended: its calls are cancelled, and it is kept until the last of them is gone.

        grpc.aio raises what ended the loop from the first `stop`, before that cancels anything; a second one goes on.
        """
        with suppress(Exception):
            await ended.stop(None)
        ending = asyncio.create_task(ended.stop(None))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self.health.set(service, status)


def warm_up(runtime: Runtime) -> None:
    """Read and answer once, so that the first client does not pay for what is built on first use. Raises ModelError if nothing comes."""
    with runtime.read(WARM_UP) as document:
        answer = document.ask("What is the value of KEY?", Sampling(max_new_tokens=8))
        _ = answer.text
        if answer.finish_reason not in ("stop", "length"):
            raise ModelError("the model did not answer the warm-up question")


async def serve(server: Server, open_runtime: Callable[[], Runtime], drain_s: float) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the drain. Raises what opening raised."""
    loop = asyncio.get_running_loop()
    asked, hurried = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurried if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    LOG.info("listening at %s, not serving yet", await server.start())
    opening = asyncio.create_task(_open(server, open_runtime))
    stop = asyncio.create_task(asked.wait())
    await asyncio.wait({opening, stop}, return_when=asyncio.FIRST_COMPLETED)
    failure: BaseException | None = None
    if opening.done() and (failure := opening.exception()) is None:
        LOG.info("serving")
        keeping, tidying = asyncio.create_task(server.failed()), asyncio.create_task(_tidy())
        await asyncio.wait({keeping, stop}, return_when=asyncio.FIRST_COMPLETED)
        failure = keeping.exception() if keeping.done() else None
        keeping.cancel()
        tidying.cancel()
    stop.cancel()
    drain_s = drain_s if opening.done() and failure is None else 0.0
    if failure is None:
        LOG.info("draining for up to %g s", drain_s)
    opening.cancel()
    ending = asyncio.create_task(server.stop(drain_s))
    hurry = asyncio.create_task(hurried.wait())
    await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not ending.done():
        LOG.info("stopping at once")
        server.desk.hurry()
    clean = await ending
    LOG.info("stopped" if clean else "stopped; calls under way were cancelled")
    if failure is not None:
        raise failure


async def _open(server: Server, open_runtime: Callable[[], Runtime]) -> None:
    with phase("model opened"):
        runtime = await server.desk.workers.do(open_runtime)
    with phase("warmed up"):
        await server.open(runtime)


async def _tidy() -> None:
    while True:
        await asyncio.sleep(_TIDY_S)
        await asyncio.to_thread(give_back_free_memory)
