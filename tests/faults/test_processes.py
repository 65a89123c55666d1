"""Servers that are told to stop, or killed, under load, and start again in the same place."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import grpc
import pytest

from glyph_rt.service.client import Client, ServiceError
from tests.conftest import TEXT
from tests.faults.conftest import QUESTION, process
from tests.service.conftest import PATIENCE_S

Code = grpc.StatusCode
# What a client may be told by a server that stops or is gone; never that something is wrong with it or its request.
ENDINGS = {Code.UNAVAILABLE, Code.CANCELLED}


class Load:
    """Clients that read, ask and delete until they are told to stop, and keep what they got."""

    def __init__(self, address: str, clients: int) -> None:
        self._address = address
        self._stop = threading.Event()
        self.answers: list[str] = []
        self.errors: list[ServiceError] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        with Client(self._address, timeout_s=PATIENCE_S) as client:
            while not self._stop.is_set():
                try:
                    identity = client.read(TEXT).id
                    self.answers.append(client.ask(QUESTION, document=identity, max_new_tokens=12).text)
                    client.delete(identity)
                except ServiceError as error:
                    self.errors.append(error)
                    time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_stops_under_load_and_starts_again_in_its_place(random_model: Path, tmp_path: Path, number: int) -> None:
    """At a socket file, which a killed server leaves behind. Nobody gets a wrong answer, and the same clients go on."""
    address = f"unix:{tmp_path / 'glyph'}"
    with process(random_model, address) as first:
        load = Load(address, 4)
        while len(load.answers) < 8:
            time.sleep(0.05)
        code = first.stop(number)
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    failed = len(load.errors)
    with process(random_model, address) as second:
        done = len(load.answers)
        end = time.monotonic() + PATIENCE_S  # gRPC's clients try again less and less often
        while len(load.answers) < done + 8:
            assert time.monotonic() < end, "the clients did not find the new server"
            time.sleep(0.05)
        load.stop()
        assert len(load.errors) >= failed and {error.code for error in load.errors} <= ENDINGS
        assert len(set(load.answers)) == 1
        with Client(address) as client:
            assert list(client.list()) == []
        assert second.stop(signal.SIGTERM) == 0


def test_sigterm_lets_answers_that_are_under_way_end(random_model: Path) -> None:
    with process(random_model, "127.0.0.1:0") as server, Client(server.address) as client:
        identity = client.read(TEXT).id
        expected = client.ask(QUESTION, document=identity, max_new_tokens=300).text
        reply = client.ask(QUESTION, document=identity, max_new_tokens=300)
        pieces = iter(reply)
        first = next(pieces)
        server.process.send_signal(signal.SIGTERM)
        assert first + "".join(pieces) == expected
        assert server.process.wait(PATIENCE_S) == 0
