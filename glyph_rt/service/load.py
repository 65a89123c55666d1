"""Load on a server, and the figures of it under the names that vLLM and aiperf use.

TTFT   time to first token: from the request to the first piece of the answer
ITL    inter-token latency: between two pieces of an answer
TPOT   time per output token: from the first piece to the end, per token after the first
E2EL   end-to-end latency: from the request to the end of the answer

A request counts from the moment it was due: in an open loop that is when it should have been sent, however late it was.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from glyph_rt.service.access import Access
from glyph_rt.v1 import answers_pb2, answers_pb2_grpc, documents_pb2, documents_pb2_grpc

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Sample:
    """One request. Seconds; error: the status it failed with, else None."""

    ttft_s: float
    gaps_s: tuple[float, ...]
    e2el_s: float
    output_tokens: int
    error: str | None = None

    @property
    def tpot_s(self) -> float | None:
        return (self.e2el_s - self.ttft_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None


@dataclass(frozen=True)
class Pace:
    """How requests follow each other: from `clients` that each wait for their answer (closed loop), or at `rate` a second, at random
    and whatever the server does (open loop).
    """

    requests: int
    clients: int = 1
    rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Target:
    """What is asked of which server."""

    address: str
    access: Access
    text: str
    questions: Sequence[str]
    max_new_tokens: int | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Phase:
    """What was measured of one kind of requests. wall_s: from the first to the end of the last."""

    name: str
    samples: tuple[Sample, ...]
    wall_s: float
    objectives_s: dict[str, float] = field(default_factory=dict)  # ttft, tpot, e2el: the longest that still counts as good

    def summary(self) -> dict[str, Any]:
        """Milliseconds and rates per second, of the requests that were answered."""
        good = [sample for sample in self.samples if sample.error is None]
        errors: dict[str, int] = {}
        for sample in self.samples:
            if sample.error is not None:
                errors[sample.error] = errors.get(sample.error, 0) + 1
        figures: dict[str, Any] = {
            "completed": len(good),
            "failed": errors,
            "duration_s": self.wall_s,
            "request_throughput": len(good) / self.wall_s,
            "output_throughput": sum(sample.output_tokens for sample in good) / self.wall_s,
        }
        if self.objectives_s:
            figures["request_goodput"] = sum(map(self._meets, good)) / self.wall_s
        for name, values in self.series().items():
            figures |= {f"{statistic}_{name}_ms": 1e3 * value for statistic, value in statistics_of(values).items()}
        return figures

    def series(self) -> dict[str, list[float]]:
        """Seconds by metric, of the requests that were answered."""
        good = [sample for sample in self.samples if sample.error is None]
        return {
            "ttft": [sample.ttft_s for sample in good],
            "itl": [gap for sample in good for gap in sample.gaps_s],
            "tpot": [sample.tpot_s for sample in good if sample.tpot_s is not None],
            "e2el": [sample.e2el_s for sample in good],
        }

    def _meets(self, sample: Sample) -> bool:
        found = {"ttft": sample.ttft_s, "tpot": sample.tpot_s or 0.0, "e2el": sample.e2el_s}
        return all(found[name] <= limit for name, limit in self.objectives_s.items())


def statistics_of(values: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles by linear interpolation; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)

    def percentile(p: int) -> float:
        at = p / 100 * (len(ordered) - 1)
        low = int(at)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (at - low) * (ordered[high] - ordered[low])

    return {"mean": sum(ordered) / len(ordered), **{f"p{p}": percentile(p) for p in PERCENTILES}}


async def measure(target: Target, cold: Pace, warm: Pace, objectives_s: dict[str, float]) -> list[Phase]:
    """Cold: every request sends its text along, changed a little, so that nothing of it is in any cache. Warm: the document was read
    before. A pace of no requests leaves its phase out. Raises grpc.RpcError when the document cannot be read.
    """
    phases = []
    async with target.access.channel(target.address, aio=True) as channel:
        ask = answers_pb2_grpc.AnswerServiceStub(channel).Ask
        sampling = answers_pb2.SamplingOptions(max_new_tokens=target.max_new_tokens)

        async def run(name: str, pace: Pace, subject: Callable[[int], dict[str, Any]]) -> None:
            def request(number: int) -> answers_pb2.AskRequest:
                question = target.questions[number % len(target.questions)]
                return answers_pb2.AskRequest(question=question, sampling=sampling, **subject(number))

            start = time.perf_counter()
            samples = await _loop(pace, lambda number, due: _ask(ask, target, request(number), due))
            phases.append(Phase(name, tuple(samples), time.perf_counter() - start, objectives_s))

        if cold.requests:
            await run("cold", cold, lambda number: {"text": f"{number:x}{time.time_ns():x}\n{target.text}"})
        if warm.requests:
            documents: Any = documents_pb2_grpc.DocumentServiceStub(channel)
            identity = await _read(documents, target)
            try:
                await _ask(ask, target, answers_pb2.AskRequest(question=target.questions[0], document_id=identity), time.perf_counter())
                await run("warm", warm, lambda _: {"document_id": identity})
            finally:
                await documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=identity), metadata=target.access.metadata)
    return phases


async def _loop(pace: Pace, send: Callable[[int, float], Any]) -> list[Sample]:
    """Send `pace.requests` requests, each with its number and when it is due."""
    if pace.rate is None:
        numbers = iter(range(pace.requests))

        async def client() -> list[Sample]:
            return [await send(number, time.perf_counter()) for number in numbers]  # all clients draw from one series

        return [sample for some in await asyncio.gather(*(client() for _ in range(pace.clients))) for sample in some]
    chance = random.Random(pace.seed)
    due, tasks = time.perf_counter(), []
    for number in range(pace.requests):
        due += chance.expovariate(pace.rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(number, due)))
    return list(await asyncio.gather(*tasks))


async def _ask(ask: Any, target: Target, request: answers_pb2.AskRequest, due: float) -> Sample:
    first = last = 0.0
    gaps: list[float] = []
    tokens = 0
    try:
        async for event in ask(request, timeout=target.timeout_s, metadata=target.access.metadata):
            now = time.perf_counter()
            kind = event.WhichOneof("event")
            if kind == "piece":
                if first:
                    gaps.append(now - last)
                first, last = first or now, now
            elif kind == "done":
                tokens = event.done.usage.completion_tokens
    except grpc.RpcError as error:
        call: Any = error
        return Sample(0.0, (), 0.0, 0, call.code().name)
    end = time.perf_counter()
    return Sample((first or end) - due, tuple(gaps), end - due, tokens)


async def _read(documents: Any, target: Target) -> str:
    async def parts() -> AsyncIterator[documents_pb2.ReadDocumentRequest]:
        yield documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())
        data = target.text.encode()
        for start in range(0, len(data), 2**18):
            yield documents_pb2.ReadDocumentRequest(text=data[start : start + 2**18])

    identity = ""
    async for event in documents.ReadDocument(parts(), timeout=target.timeout_s, metadata=target.access.metadata):
        identity = event.document.id or identity
    return identity
