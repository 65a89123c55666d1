"""What the service costs, and what it holds.

    python bench/service.py [--rounds 7] [--clients 32] [--questions 96]

1. Protocol: our server with a model that answers at once (a fake Runtime at its seam), beside a bare grpc.aio server that only echoes
   the same messages. Each in a process of its own, one client, alternating rounds; a ratio is taken within a round. Goal: at most 1.3.
   `call`, `piece` and `stream` are the client's seconds, so half of them are the client's own work; `cpu_call` is the processor time of
   the server alone, which also means something on a box that others use. It is not what the goal is about.
2. Crowd: the embedded reader behind `glyph-rt serve`, many clients at once on one document, every answer checked against the one
   it gets alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from glyph_rt.language import Channel, Piece
from glyph_rt.quotes import Quoting
from glyph_rt.service.access import Access
from glyph_rt.service.client import Client
from glyph_rt.v1 import answers_pb2, answers_pb2_grpc

CONTRACT = (Path(__file__).parents[1] / "examples" / "contract.txt").read_text()
KEYS = ("Pump type", "Monthly fee", "Notice period")
PIECES = 200  # of an answer whose pieces are timed
CALLS = 100  # answers of one piece, by which calls are timed
GOAL = 1.3


# -- the two servers that do no work


class InstantAnswer:
    """An answer whose pieces are there at once."""

    finish_reason = "stop"

    def __init__(self, document: InstantDocument, pieces: int) -> None:
        self.document = document
        self.pieces = pieces
        one = dict.fromkeys(("prompt_tokens", "cached_tokens", "visual_tokens", "text_tokens", "pages", "characters"), 1)
        self.usage = SimpleNamespace(**one, completion_tokens=pieces, drafted_tokens=0, accepted_tokens=0)
        self.timings = SimpleNamespace(prefill_s=0.0, ttft_s=0.0, decode_s=0.0, tokens_per_s=0.0, restore_s=0.0)
        self.text, self.quotes, self.quoting = "", (), Quoting.MARK

    def steps(self) -> Iterator[list[Piece]]:
        return iter([[Piece(Channel.ANSWER, "piece")]] * self.pieces)

    def __enter__(self) -> InstantAnswer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


class InstantDocument:
    """A document about which everything is known at once."""

    layout = SimpleNamespace(text="")
    tokens = 1

    def ask(self, _: str, sampling: Any, **_more: Any) -> InstantAnswer:
        return InstantAnswer(self, sampling.max_new_tokens)

    def close(self) -> None:
        """Nothing is held."""


async def serve_instantly() -> None:
    """Our whole server over a runtime that is not there. Prints its address and its one document's id."""
    from glyph_rt.memory.limits import Limits
    from glyph_rt.service.address import Address
    from glyph_rt.service.limits import ServiceLimits
    from glyph_rt.service.server import Server

    server = Server(Address.parse("127.0.0.1:0"), ServiceLimits())
    address = await server.start()
    server.desk.open(SimpleNamespace(limits=Limits()))  # type: ignore[arg-type]
    with server.desk.library.place("") as keep:
        entry = keep(InstantDocument())  # type: ignore[arg-type]
    print(address, entry.id, flush=True)
    await asyncio.Event().wait()


class Echo(answers_pb2_grpc.AnswerServiceServicer):
    """As little as a grpc.aio server can do with the same messages."""

    async def Ask(self, request: answers_pb2.AskRequest, context: Any) -> None:
        await context.write(answers_pb2.AskResponse(accepted=answers_pb2.AnswerAccepted()))
        for _ in range(request.sampling.max_new_tokens):
            await context.write(answers_pb2.AskResponse(piece=answers_pb2.AnswerPiece(text="piece")))
        await context.write(answers_pb2.AskResponse(done=answers_pb2.AnswerDone()))


async def serve_echo() -> None:
    server = grpc.aio.server()
    answers_pb2_grpc.add_AnswerServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", "0" * 32, flush=True)
    await server.wait_for_termination()


# -- measuring


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process with one thread per operation: OpenMP's waiting threads would burn the cores that the client needs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


async def ask(stub: Any, identity: str, pieces: int) -> tuple[float, list[float]]:
    """One answer of so many pieces: its seconds, and those between its pieces."""
    request = answers_pb2.AskRequest(document_id=identity, question="?", sampling=answers_pb2.SamplingOptions(max_new_tokens=pieces))
    start = last = time.perf_counter()
    gaps = []
    async for event in stub.Ask(request):
        now = time.perf_counter()
        if event.WhichOneof("event") == "piece":
            gaps.append(now - last)
        last = now
    return time.perf_counter() - start, gaps[1:]


def cpu_us(process: int) -> float:
    """Processor time of all its threads so far; 0 where Linux does not tell."""
    counters = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(counter.read_text().split()[0]) for counter in counters) / 1e3


async def protocol(rounds: int) -> dict[str, Any]:
    """Microseconds at the median, of both servers, and the ratio of each round."""
    script = str(Path(__file__).resolve())
    with child([sys.executable, script, "--side", "glyph-rt"]) as ours, child([sys.executable, script, "--side", "echo"]) as bare:
        sides = {}
        for name, process in (("glyph-rt", ours), ("echo", bare)):
            assert process.stdout is not None
            address, identity = process.stdout.readline().split()
            sides[name] = answers_pb2_grpc.AnswerServiceStub(Access().channel(address, aio=True)), identity, process.pid
        measures = ("call", "piece", "stream", "cpu_call")
        found: dict[str, dict[str, list[float]]] = {name: {what: [] for what in measures} for name in sides}
        for number in range(rounds + 1):
            for name, (stub, identity, pid) in sides.items():
                before = cpu_us(pid)
                calls = [(await ask(stub, identity, 1))[0] for _ in range(CALLS)]
                worked = cpu_us(pid) - before
                streams = [await ask(stub, identity, PIECES) for _ in range(10)]
                if number:  # the first round warms both up
                    found[name]["call"].append(1e6 * statistics.median(calls))
                    found[name]["cpu_call"].append(worked / CALLS)
                    found[name]["piece"].append(1e6 * statistics.median(gap for _, gaps in streams for gap in gaps))
                    found[name]["stream"].append(1e6 * statistics.median(seconds for seconds, _ in streams) / PIECES)
    report: dict[str, Any] = {"goal": GOAL}
    for what in measures:
        ratios = [o / e for o, e in zip(found["glyph-rt"][what], found["echo"][what], strict=True)]
        report[what] = {
            **{f"{name}_us": round(statistics.median(values[what]), 1) for name, values in found.items()},
            "ratio": round(statistics.median(ratios), 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return report


def crowd(address: str, identity: str, clients: int, questions: int) -> dict[str, float]:
    """`clients` connections asking at once; seconds of an answer from the question to its end."""
    connections = [Client(address) for _ in range(clients)]
    expected = {key: connections[0].ask(f"What is the value of {key}?", document=identity).text for key in KEYS}

    def one(i: int) -> tuple[float, bool]:
        key = KEYS[i % len(KEYS)]
        start = time.perf_counter()
        text = connections[i % clients].ask(f"What is the value of {key}?", document=identity).text
        return time.perf_counter() - start, text == expected[key]

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(one, range(questions)))
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


def with_reader(clients: int, questions: int) -> dict[str, float]:
    """The crowd at the embedded reader."""
    with child([sys.executable, "-c", "from glyph_rt.cli import main; main()", "serve", "--address", "127.0.0.1:0"]) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next(line for line in lines if "listening at " in line).split("listening at ")[1].split(",")[0]
        next(line for line in lines if "] serving" in line)
        with Client(address) as client:
            return crowd(address, client.read(CONTRACT).id, clients, questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--side", choices=("glyph-rt", "echo"), help="be one of the servers that do no work")
    options = parser.parse_args()
    if options.side:
        asyncio.run(serve_instantly() if options.side == "glyph-rt" else serve_echo())
        return
    print(json.dumps({"protocol": asyncio.run(protocol(options.rounds))}, indent=1), flush=True)
    print(json.dumps({"crowd": with_reader(options.clients, options.questions)}, indent=1))


if __name__ == "__main__":
    main()
