"""Mixed load for many minutes: does memory grow, does an answer get lost?

    python bench/soak.py [--minutes 30] [--clients 8] [--json bench/results/soak.json]

The embedded reader behind `glyph-rt serve --tokens` in its own process: with known callers no drawn or encoded pages are kept between
readings, so that no cache, however bounded, fills for half an hour and looks like a leak. Clients read documents, ask, cancel answers and
uploads in the middle, send texts along, look at pages, list and delete. Every answer that is waited for is checked against the one it got
at first. Resident memory is sampled every second. The first third is warm-up, while pools fill, and is left out; the rest is averaged by
the minute, since neighbouring seconds say nearly the same, and the slope is the least-squares line through these averages, with a 95 %
interval from their scatter about it. At the end everything is deleted, and the accounts must be at zero. Exit code 1 when an answer was
lost or wrong, or something was left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from glyph_rt.service.access import Access
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.tokens import add_token
from glyph_rt.v1 import documents_pb2

CONTRACT = (Path(__file__).parents[1] / "examples" / "contract.txt").read_text()
KEYS = ("Pump type", "Monthly fee", "Notice period", "Supplier")
MIB = 2**20
# Student's t at 97.5 % for 1, 2, ... degrees of freedom; the last for all above.
_T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09)


class Load:
    """Clients at work. `lost`: answers that should have come and did not, or came wrong."""

    def __init__(self, address: str, access: Access, clients: int) -> None:
        self._address, self._access = address, access
        self._stop = threading.Event()
        self._lock = threading.Lock()
        with self._client() as client:
            self._expected = {key: client.ask(f"What is the value of {key}?", text=CONTRACT).text for key in KEYS}
        self.done: Counter[str] = Counter()
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> Client:
        return Client(self._address, self._access, timeout_s=120.0, patience_s=120.0)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(300)

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        kept: list[str] = []
        work = (
            self._read,
            self._ask,
            self._ask,
            self._ask,
            self._send_along,
            self._cancel_answer,
            self._cancel_upload,
            self._look,
            self._delete,
        )
        with self._client() as client:
            while not self._stop.is_set():
                task = chance.choice(work)
                try:
                    task(client, chance, kept)
                except ServiceError as error:
                    self._lose(f"{task.__name__}: {error.code.name} {error}")
                with self._lock:
                    self.done[task.__name__.removeprefix("_")] += 1
            for identity in kept:
                client.delete(identity)

    def _lose(self, what: str) -> None:
        with self._lock:
            self.lost.append(what)

    def _check(self, key: str, answer: str) -> None:
        if answer != self._expected[key]:
            self._lose(f"{key}: {answer!r}")

    def _read(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        if len(kept) < 4:
            kept.append(client.read(CONTRACT).id)

    def _ask(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        if kept:
            key = chance.choice(KEYS)
            self._check(key, client.ask(f"What is the value of {key}?", document=chance.choice(kept)).text)

    def _send_along(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        key = chance.choice(KEYS)
        self._check(key, client.ask(f"What is the value of {key}?", text=CONTRACT).text)

    def _cancel_answer(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        if kept:
            with client.ask("Transcribe page 1.", document=chance.choice(kept)) as reply:
                for number, _ in enumerate(reply):
                    if number >= chance.randrange(20):
                        break

    def _cancel_upload(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        mark = CONTRACT + "x" * (1 + threading.get_ident() % 1000) + f"{chance.random()}\n" * 60  # pages that nobody has read before

        def parts() -> Iterator[documents_pb2.ReadDocumentRequest]:
            yield documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())
            yield documents_pb2.ReadDocumentRequest(text=mark.encode())

        call = client._documents.ReadDocument(parts(), timeout=60, metadata=self._access.metadata)
        time.sleep(chance.random() * 0.05)
        call.cancel()
        with suppress(grpc.RpcError):
            list(call)
        # It may have been read before the cancel arrived: then it is there, and this client never saw its id.
        for document in list(client.list()):
            if document.characters == len(mark):
                with suppress(ServiceError):  # another client's of the same length, which that one deletes
                    client.delete(document.id)

    def _look(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        if kept:
            identity = chance.choice(kept)
            if [page.page for page in client.pages(identity)] != [1, 2, 3] or identity not in {d.id for d in client.list()}:
                self._lose("a document's pages or its place in the list")

    def _delete(self, client: Client, chance: random.Random, kept: list[str]) -> None:
        if kept:
            client.delete(kept.pop(chance.randrange(len(kept))))


def _pass_on(lines: Iterator[str]) -> None:
    with suppress(ValueError):  # the pipe was closed: the server is gone
        for line in lines:
            print(line, file=sys.stderr, end="")


@contextmanager
def server(tokens: Path) -> Iterator[tuple[str, int, Access]]:
    """`glyph-rt serve`: its address, its process id, and what it lets in."""
    access = Access(token=add_token(tokens, "soak"))
    command = [sys.executable, "-c", "from glyph_rt.cli import main; main()", "serve", "--address", "127.0.0.1:0", "--tokens", str(tokens)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next(line for line in lines if "listening at " in line).split("listening at ")[1].split(",")[0]
        next(line for line in lines if "] serving" in line)
        threading.Thread(target=_pass_on, args=(lines,), daemon=True).start()
        try:
            yield address, process.pid, access
        finally:
            process.send_signal(signal.SIGTERM)


def slope(times: NDArray[np.float64], resident: NDArray[np.float64]) -> dict[str, Any]:
    """MiB per hour through the averages of minutes, with the ends of its 95 % interval; None where there are too few minutes for one."""
    of_minute = ((times - times[0]) // 60).astype(int)
    minutes = np.array([times[of_minute == m].mean() for m in np.unique(of_minute)]) / 3600
    averages = np.array([resident[of_minute == m].mean() for m in np.unique(of_minute)])
    found: dict[str, Any] = {"from_minute": round(float(times[0]) / 60, 1), "slope": None, "low": None, "high": None}
    if len(minutes) > 3:
        (steep, _), covariance = np.polyfit(minutes, averages, 1, cov=True)
        margin = _T_95[min(len(minutes) - 2, len(_T_95)) - 1] * float(np.sqrt(covariance[0, 0]))
        found |= {"slope": round(float(steep), 2), "low": round(float(steep) - margin, 2), "high": round(float(steep) + margin, 2)}
    return found


def soak(minutes: float, clients: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder, server(Path(folder) / "tokens") as (address, pid, access):
        load = Load(address, access, clients)
        start = time.monotonic()
        times, resident = [], []
        while (now := time.monotonic() - start) < 60 * minutes:
            times.append(now)
            resident.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB)
            time.sleep(1.0)
        load.stop()
        with Client(address, access) as client:
            for document in list(client.list()):  # uploads that ended in the moment they were cancelled
                client.delete(document.id)
            time.sleep(2.0)
            left = client.runtime()
    warm = len(times) // 3
    at = {"start": resident[0], "warm": resident[warm], "end": resident[-1], "most": max(resident)}
    held = {name: getattr(left.load, name) for name in ("documents", "streams", "upload_bytes", "kept_bytes")}
    return {
        "minutes": minutes,
        "clients": clients,
        "calls": dict(sorted(load.done.items())),
        "lost": len(load.lost),
        "lost_examples": load.lost[:10],
        "resident_mib": {name: round(value, 1) for name, value in at.items()},
        "slope_mib_per_hour": slope(np.array(times[warm:]), np.array(resident[warm:])),
        "left": {"kv_bytes": left.memory.kv_used_bytes, **held},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "soak.json")
    options = parser.parse_args()
    found = soak(options.minutes, options.clients)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["lost"] or any(found["left"].values()) else 0)


if __name__ == "__main__":
    main()
