"""How long to fuzz: seconds by default, `--fuzz-seconds 600` for the long run."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import grpc
import pytest

from glyph_rt import Runtime
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.limits import ServiceLimits
from tests.conftest import TEXT
from tests.faults.test_processes import ENDINGS
from tests.service.conftest import Served, eventually, served

Code = grpc.StatusCode
# What a request may be answered with, however it looks. Never UNKNOWN or INTERNAL, which would be defects of the server.
ANSWERS = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.RESOURCE_EXHAUSTED,
    Code.DEADLINE_EXCEEDED,
    Code.UNIMPLEMENTED,
    Code.CANCELLED,
}
QUESTION = "What is the value of order number?"


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--fuzz-seconds"))


@pytest.fixture
def target(runtime: Runtime) -> Iterator[Served]:
    """A server that still answers afterwards, holds nothing of what it was sent, and has not grown by more than what it may hold."""
    with served(runtime, ServiceLimits(deadline_s=60.0, window=3)) as at:
        with at.client() as client:
            identity = client.read(TEXT).id
            expected = client.ask(QUESTION, document=identity, max_new_tokens=8).text
            client.delete(identity)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield at
        desk = at.server.desk
        eventually(lambda: desk.streams.used == desk.uploads.used == desk.long_texts.used == 0)
        eventually(lambda: is_well(at, expected))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown < 400, f"{grown:.0f} MiB more than before"


def reaches(client: Client) -> bool:
    """Whether somebody listens."""
    try:
        return bool(client.runtime().version)
    except ServiceError as error:
        assert error.code in ENDINGS  # refused, or cut off while the listener was started anew
        return False


def is_well(at: Served, expected: str) -> bool:
    """Emptied, the server holds nothing, and it answers as before. False while its listener comes back: what came last may end it."""
    try:
        with at.client() as client:
            for document in list(client.list()):
                client.delete(document.id)
            eventually(lambda: at.runtime.arena.used == 0)
            at.server.desk.check_integrity()
            assert client.ask(QUESTION, document=client.read(TEXT).id, max_new_tokens=8).text == expected
    except ServiceError as error:
        assert error.code in ENDINGS
        return False
    return True
