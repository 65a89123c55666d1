"""What every call passes: who calls, is the server serving, is there room, how long may it take, and what is told and noted of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc

from glyph_rt.errors import BusyError, DeadlineError, InputError, LimitError, UnavailableError
from glyph_rt.runtime import Runtime
from glyph_rt.service.audit import AuditLog, Fact
from glyph_rt.service.auth import tenant_of
from glyph_rt.service.failures import DETAILS, to_status
from glyph_rt.service.library import Library
from glyph_rt.service.limits import Quota, ServiceLimits, Shares
from glyph_rt.service.telemetry import Telemetry
from glyph_rt.service.tracing import Tracing
from glyph_rt.service.work import Workers

Context = Any  # grpc.aio.ServicerContext of some request and response


class Phase(Enum):
    """Where a server stands in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass
class Call:
    """A call that was let in."""

    runtime: Runtime
    tenant: str
    stage: str = "request"  # what is under way, in case it is cancelled: request, upload, queue, read, prefill, decode or send
    facts: dict[str, Fact] = field(default_factory=dict)  # for the audit log and the trace; never a text


class Desk:
    """What the services share. Used from the event loop only.

    Calls are refused as UNAVAILABLE until `open` and again from `drain` on.
    """

    def __init__(self, limits: ServiceLimits, audit: AuditLog | None = None, tracing: Tracing | None = None) -> None:
        self.limits = limits
        self.phase = Phase.STARTING
        self.started = time.monotonic()
        self.workers = Workers(limits.readers, limits.streams)
        self.library = Library(limits)
        self.streams = Quota(limits.streams, f"the server runs at most {limits.streams} readings and answers at once")
        self.uploads = Quota(limits.upload_bytes, f"the server takes at most {limits.upload_bytes:,} bytes of texts at once")
        self.long_texts = Quota(limits.long_bytes, f"the server reads at most {limits.long_bytes:,} bytes of long texts at once")
        self.telemetry = Telemetry()
        self.runtime: Runtime | None = None  # once it serves
        self._shares = Shares(limits.tenant_streams, "readings and answers")
        self._audit, self._tracing = audit, tracing
        self._calls = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining: asyncio.Timeout | None = None
        self.telemetry.watch(self)

    def open(self, runtime: Runtime) -> None:
        """Serve from here on. Raises OptionError when one text could not be uploaded within the limit on all of them."""
        self.limits.check_against(runtime.limits)
        self.runtime, self.phase = runtime, Phase.SERVING

    async def drain(self, seconds: float) -> bool:
        """Take no more calls, and wait for those under way. False when some were still there after `seconds`."""
        self.phase = Phase.DRAINING
        try:
            async with asyncio.timeout(seconds) as self._draining:
                await self._quiet.wait()
        except TimeoutError:
            return False
        finally:
            self._draining = None
        return True

    def hurry(self) -> None:
        """End a drain now."""
        if self._draining is not None:
            self._draining.reschedule(0.0)

    def close(self) -> None:
        """Forget the documents, stop the workers, end the records; waits for the page or token each worker is at."""
        self.library.close()
        self.workers.close()
        for record in (self._audit, self._tracing):
            if record is not None:
                record.close()

    def check_integrity(self) -> None:
        """Raise AssertionError unless the accounts of documents and KV memory add up."""
        self.library.check_integrity()
        if self.runtime is not None:
            self.runtime.arena.check_integrity()

    @asynccontextmanager
    async def call(self, method: str, context: Context, *, stream: bool) -> AsyncIterator[Call]:
        """The frame of every call: gives what it works with, and turns errors into the status that the table names.

        stream: the call counts against the limits on streams. Cancellation passes through untouched.
        """
        self._calls += 1
        self._quiet.clear()
        start = time.perf_counter()
        code, reason = grpc.StatusCode.OK, ""
        call: Call | None = None
        clock = asyncio.timeout(self.limits.deadline_s)
        span = None if self._tracing is None else self._tracing.begin(method, dict(context.invocation_metadata() or ()))
        try:
            call = Call(self._ready(), tenant_of(context))
            if stream:
                self._take_stream(call.tenant)
            try:
                async with clock:
                    yield call
            finally:
                if stream:
                    self.streams.give()
                    self._shares.give(call.tenant)
        except (asyncio.CancelledError, grpc.aio.InternalError):  # the latter: a write found nobody there any more
            left = context.time_remaining()
            code = grpc.StatusCode.CANCELLED if left is None or left > 0 else grpc.StatusCode.DEADLINE_EXCEEDED
            self.telemetry.cancelled("request" if call is None else call.stage)
            raise
        except Exception as error:
            expired = isinstance(error, TimeoutError) and clock.expired()
            code, reason, status = to_status(DeadlineError("server deadline") if expired else error)
            if expired and call is not None:
                self.telemetry.cancelled(call.stage)
            else:
                self.telemetry.refused(reason)
            await context.abort(code, status.message, ((DETAILS, status.SerializeToString()),))
        finally:
            if call is not None and code != grpc.StatusCode.OK:
                call.runtime.arena.recheck()  # work of this call that waits for memory notices that nobody wants it
            seconds = time.perf_counter() - start
            self.telemetry.ended(method, code.name, seconds)
            facts = {} if call is None else {"tenant": call.tenant, **call.facts}
            facts |= {"reason": reason} if reason else {}
            if self._tracing is not None and span is not None:
                self._tracing.end(span, code.name, facts)
            if self._audit is not None:
                self._audit.record(method=method, peer=context.peer(), **facts, code=code.name, seconds=round(seconds, 4))
            self._calls -= 1
            if self._calls == 0:
                self._quiet.set()

    def _take_stream(self, tenant: str) -> None:
        """Raises BusyError, with nothing taken, when the tenant or the server has enough under way."""
        self._shares.take(tenant)
        try:
            self.streams.take()
        except BusyError:
            self._shares.give(tenant)
            raise

    def _ready(self) -> Runtime:
        """Raises UnavailableError while no call can be taken."""
        if self.runtime is None or self.phase is not Phase.SERVING:
            told = f"the server is {self.phase.value}"
            raise UnavailableError(told, public=told)
        if self._audit is not None:
            self._audit.check()
        return self.runtime


def check_data(text: str, field: str, name: str, limit: int) -> None:
    """Raises LimitError for a `text`, called `name`, of more than `limit` bytes of UTF-8, InputError for one with NUL characters."""
    size = len(text.encode())
    if size > limit:
        told = f"the {name} has {size:,} bytes and the limit is {limit:,}"
        raise LimitError(told, public=told, field=field)
    if "\0" in text:
        told = f"the {name} holds NUL characters"
        raise InputError(told, public=told, field=field)


def well_formed(request: object) -> None:
    """Raises InputError for a message that was no message of its kind (see `decoding.py`)."""
    if request is None:
        told = "the request is not a valid message; text fields must be UTF-8"
        raise InputError(told, public=told)
