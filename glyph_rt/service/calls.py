"""What every call passes: is the server serving, is there room, how long may it take, and what is told when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

from glyph_rt.errors import DeadlineError, InputError, UnavailableError
from glyph_rt.runtime import Runtime
from glyph_rt.service.failures import DETAILS, to_status
from glyph_rt.service.library import Library
from glyph_rt.service.limits import Quota, ServiceLimits
from glyph_rt.service.work import Workers

Context = Any  # grpc.aio.ServicerContext of some request and response


class Phase(Enum):
    """Where a server stands in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Desk:
    """What the services share. Used from the event loop only.

    Calls are refused as UNAVAILABLE until `open` and again from `drain` on.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self.phase = Phase.STARTING
        self.workers = Workers(limits.readers, limits.answerers)
        self.library = Library(limits.documents, limits.idle_s)
        self.streams = Quota(limits.streams, f"the server runs at most {limits.streams} readings and answers at once")
        self.uploads = Quota(limits.upload_bytes, f"the server takes at most {limits.upload_bytes:,} bytes of texts at once")
        self._runtime: Runtime | None = None
        self._calls = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining: asyncio.Timeout | None = None

    def open(self, runtime: Runtime) -> None:
        """Serve from here on. Raises OptionError when one text could not be uploaded within the limit on all of them."""
        self.limits.check_against(runtime.limits)
        self._runtime, self.phase = runtime, Phase.SERVING

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
        """Forget the documents and stop the workers; waits for the page or token each is at."""
        self.library.close()
        self.workers.close()

    @asynccontextmanager
    async def call(self, context: Context, *, stream: bool) -> AsyncIterator[Runtime]:
        """The frame of every call: gives the runtime, and turns errors into the status that the table names.

        stream: the call counts against the limit on streams. Cancellation passes through untouched.
        """
        self._calls += 1
        self._quiet.clear()
        clock = asyncio.timeout(self.limits.deadline_s)
        try:
            if self._runtime is None or self.phase is not Phase.SERVING:
                told = f"the server is {self.phase.value}"
                raise UnavailableError(told, public=told)
            if stream:
                with self.streams.held():
                    async with clock:
                        yield self._runtime
            else:
                async with clock:
                    yield self._runtime
        except Exception as error:
            expired = isinstance(error, TimeoutError) and clock.expired()
            code, status = to_status(DeadlineError("server deadline") if expired else error)
            await context.abort(code, status.message, ((DETAILS, status.SerializeToString()),))
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._quiet.set()


def well_formed(request: object) -> None:
    """Raises InputError for a message that was no message of its kind (see `decoding.py`)."""
    if request is None:
        told = "the request is not a valid message; text fields must be UTF-8"
        raise InputError(told, public=told)
