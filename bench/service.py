"""What the service costs, and what it holds: the embedded reader behind `glyph-rt serve` in its own process, over loopback.

    python bench/service.py [--clients 32] [--questions 96]

1. One client: an answer over gRPC beside the same answer in this process, alternating; the difference is protocol, hops and the
   server's event loop. 2. Many clients at once on one document: every answer is checked against the one it gets alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glyph_rt.service.client import Client

CONTRACT = (Path(__file__).parents[1] / "examples" / "contract.txt").read_text()
KEYS = ("Pump type", "Hourly rate", "Notice period")
ROUNDS = 30  # answers on each side


def overhead(client: Client, identity: str) -> dict[str, float]:
    """Milliseconds of one answer, median: over gRPC and in this process."""
    from glyph_rt import Runtime

    served, local = [], []
    with Runtime.open() as runtime, runtime.read(CONTRACT) as document:
        for i in range(ROUNDS + 3):
            question = f"What is the value of {KEYS[i % len(KEYS)]}?"
            start = time.perf_counter()
            over = client.ask(question, document=identity).text
            middle = time.perf_counter()
            here = document.ask(question).text
            end = time.perf_counter()
            assert over == here
            if i >= 3:  # the first ones warm both sides up
                served.append(middle - start)
                local.append(end - middle)
    ratio = statistics.median(s / l for s, l in zip(served, local, strict=True))
    return {"grpc_ms": 1e3 * statistics.median(served), "local_ms": 1e3 * statistics.median(local), "ratio": ratio}


def crowd(address: str, identity: str, clients: int, questions: int) -> dict[str, float]:
    """`clients` connections asking at once; seconds of an answer from the question to its end."""
    connections = [Client(address) for _ in range(clients)]
    expected = {key: connections[0].ask(f"What is the value of {key}?", document=identity).text for key in KEYS}

    def ask(i: int) -> tuple[float, bool]:
        key = KEYS[i % len(KEYS)]
        start = time.perf_counter()
        text = connections[i % clients].ask(f"What is the value of {key}?", document=identity).text
        return time.perf_counter() - start, text == expected[key]

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(ask, range(questions)))
    wall = time.perf_counter() - start
    for connection in connections:
        connection.close()
    seconds = sorted(s for s, _ in found)
    return {
        "right": sum(right for _, right in found),
        "questions": questions,
        "answers_per_s": questions / wall,
        "p50_s": statistics.median(seconds),
        "p99_s": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--questions", type=int, default=96)
    options = parser.parse_args()
    # One thread per operation on both sides: OpenMP's waiting threads would otherwise burn the cores that the other process needs.
    os.environ["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", "from glyph_rt.cli import main; main()", "serve", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            address = next(line for line in lines if "listening at " in line).split("listening at ")[1].split(",")[0]
            next(line for line in lines if "] serving" in line)
            with Client(address) as client:
                identity = client.read(CONTRACT).id
                one = overhead(client, identity)
                print(json.dumps({"one client": one, "crowd": crowd(address, identity, options.clients, options.questions)}, indent=1))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
