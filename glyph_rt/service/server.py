"""One serving process: grpc.aio in front, a Runtime behind; starts in phases, ends by draining.

    bind (NOT_SERVING) -> open the model -> warm up with a question -> SERVING -> drain (NOT_SERVING) -> gone

The port is open from the first phase on, so that a probe sees NOT_SERVING rather than nothing while a large model loads.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from glyph_rt import __version__
from glyph_rt.errors import AddressError, ModelError
from glyph_rt.language import Sampling
from glyph_rt.runtime import Runtime
from glyph_rt.service.address import Address
from glyph_rt.service.answers import AnswerService
from glyph_rt.service.calls import Context, Desk, well_formed
from glyph_rt.service.decoding import LenientDecoding
from glyph_rt.service.documents import DocumentService, pages_limit
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.v1 import answers_pb2, answers_pb2_grpc, documents_pb2, documents_pb2_grpc, runtime_pb2_grpc
from glyph_rt.v1 import runtime_pb2 as pb

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((documents_pb2, "DocumentService"), (answers_pb2, "AnswerService"), (pb, "RuntimeService"))
)
WARM_UP = "glyph-rt warms up.\nKEY: VALUE\n"
_SPARE_CALLS = 64  # beside the limit on streams: unary calls, health watches, and calls about to be told that there is no room


class RuntimeService(runtime_pb2_grpc.RuntimeServiceServicer):
    """See proto/glyph_rt/v1/runtime.proto, which is the reference."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetRuntime(self, request: pb.GetRuntimeRequest, context: Context) -> pb.GetRuntimeResponse:
        desk, own = self._desk, self._desk.limits
        async with desk.call(context, stream=False) as runtime:
            well_formed(request)
            plan = runtime.plan()
            limits = pb.RuntimeLimits(
                text_bytes=runtime.limits.text_bytes,
                pages=pages_limit(runtime),
                question_bytes=own.question_bytes,
                message_bytes=own.message_bytes,
                documents=own.documents,
                streams=own.streams,
                upload_bytes=own.upload_bytes,
                deadline_s=own.deadline_s,
                idle_s=own.idle_s,
            )
            memory = pb.RuntimeMemory(
                weight_bytes=plan.weights,
                kv_budget_bytes=plan.kv_budget,
                kv_used_bytes=runtime.arena.used,
                kv_bytes_per_token=plan.kv_per_token,
            )
            return pb.GetRuntimeResponse(
                version=__version__,
                model_digest=runtime.checkpoint.digest,
                style=runtime.style.name,
                encoder=runtime.encoder.name,
                context_tokens=plan.context,
                limits=limits,
                memory=memory,
                documents=len(desk.library),
            )


@dataclass(frozen=True)
class Phases:
    """Says on standard error what happens when: one line each, with seconds since the start (of `time.perf_counter`)."""

    start: float

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase that takes time; its line comes when it is over."""
        before = time.perf_counter()
        yield
        self.note(f"{name} in {time.perf_counter() - before:.2f} s")

    def note(self, text: str) -> None:
        """Something that happened."""
        print(f"glyph-rt: [{time.perf_counter() - self.start:7.2f} s] {text}", file=sys.stderr, flush=True)


class Server:
    """The gRPC server of one process. `start`, then `open`, then `stop`; all on one event loop."""

    def __init__(self, address: Address, limits: ServiceLimits) -> None:
        self.desk = Desk(limits)
        self.health = health.aio.HealthServicer()
        self._address = address
        self._server = grpc.aio.server(
            interceptors=[LenientDecoding()],
            maximum_concurrent_rpcs=limits.streams + _SPARE_CALLS,
            options=[
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the calls
                ("grpc.max_concurrent_streams", limits.streams + _SPARE_CALLS),  # per connection
                ("grpc.keepalive_time_ms", 60_000),  # finds clients that went without a word
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),  # clients may ping every 20 s
            ],
        )
        documents_pb2_grpc.add_DocumentServiceServicer_to_server(DocumentService(self.desk), self._server)
        answers_pb2_grpc.add_AnswerServiceServicer_to_server(AnswerService(self.desk), self._server)
        runtime_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(self.desk), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self) -> str:
        """Listen, not serving yet. Returns the address to connect to. Raises AddressError."""
        await self._set_health(serving=False)
        self._address.claim()
        mask = os.umask(0o077)  # a socket file is for this user only
        try:
            port = self._server.add_insecure_port(self._address.target)
        except RuntimeError:
            raise AddressError(f"{self._address.target} cannot be listened at; is another process serving there?") from None
        finally:
            os.umask(mask)
        await self._server.start()
        return self._address.target if self._address.path else f"{self._address.target.rpartition(':')[0]}:{port}"

    async def open(self, runtime: Runtime) -> None:
        """Serve from here on, if the runtime answers a question."""
        await asyncio.get_running_loop().run_in_executor(self.desk.workers.answerers, warm_up, runtime)
        self.desk.open(runtime)
        await self._set_health(serving=True)

    async def stop(self, drain_s: float) -> bool:
        """NOT_SERVING; wait up to `drain_s` seconds for calls under way, cancel the rest, free everything. False: some were cancelled."""
        await self._set_health(serving=False)
        drained = await self.desk.drain(drain_s)
        await self._server.stop(None)
        # Cancelled handlers unwind on this loop; only then is there nothing that could still hand work to the pools.
        finished = await self.desk.drain(5.0)
        await asyncio.get_running_loop().run_in_executor(None, self.desk.close)
        return drained and finished

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


async def serve(address: Address, limits: ServiceLimits, open_runtime: Callable[[], Runtime], phases: Phases) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the drain. Raises what opening raised."""
    loop = asyncio.get_running_loop()
    asked, hurried = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurried if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    server = Server(address, limits)
    phases.note(f"listening at {await server.start()}, not serving yet")
    opening = asyncio.create_task(_open(server, open_runtime, phases))
    stop = asyncio.create_task(asked.wait())
    await asyncio.wait({opening, stop}, return_when=asyncio.FIRST_COMPLETED)
    failure: BaseException | None = None
    if opening.done() and (failure := opening.exception()) is None:
        phases.note("serving")
        await stop
    stop.cancel()
    drain_s = limits.drain_s if opening.done() and failure is None else 0.0
    if failure is None:
        phases.note(f"draining for up to {drain_s:g} s")
    opening.cancel()
    ending = asyncio.create_task(server.stop(drain_s))
    hurry = asyncio.create_task(hurried.wait())
    await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not ending.done():
        phases.note("stopping at once")
        server.desk.hurry()
    clean = await ending
    phases.note("stopped" if clean else "stopped; calls under way were cancelled")
    if failure is not None:
        raise failure


async def _open(server: Server, open_runtime: Callable[[], Runtime], phases: Phases) -> None:
    with phases.phase("model opened"):
        runtime = await asyncio.get_running_loop().run_in_executor(server.desk.workers.readers, open_runtime)
    with phases.phase("warmed up"):
        await server.open(runtime)
