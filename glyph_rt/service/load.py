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
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from glyph_rt.service.access import Access
from glyph_rt.service.client import AsyncClient, ServiceError

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
    before. A pace of no requests leaves its phase out. Raises ServiceError when the document cannot be read.
    """
    phases = []
    async with AsyncClient(target.address, target.access, timeout_s=target.timeout_s) as client:

        async def run(name: str, pace: Pace, subject: Callable[[int], dict[str, str]]) -> None:
            def send(number: int, due: float) -> Coroutine[Any, Any, Sample]:
                return _ask(client, target, target.questions[number % len(target.questions)], subject(number), due)

            start = time.perf_counter()
            samples = await _loop(pace, send)
            phases.append(Phase(name, tuple(samples), time.perf_counter() - start, objectives_s))

        if cold.requests:
            await run("cold", cold, lambda number: {"text": f"{number:x}{time.time_ns():x}\n{target.text}"})
        if warm.requests:
            document = await client.read(target.text)
            try:
                subject = {"document": document.id}
                await _ask(client, target, target.questions[0], subject, time.perf_counter())
                await run("warm", warm, lambda _: subject)
            finally:
                await client.delete(document.id)
    return phases


async def _loop(pace: Pace, send: Callable[[int, float], Coroutine[Any, Any, Sample]]) -> list[Sample]:
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


async def _ask(client: AsyncClient, target: Target, question: str, subject: dict[str, str], due: float) -> Sample:
    first = last = 0.0
    gaps: list[float] = []
    try:
        reply = client.ask(question, document=subject.get("document"), text=subject.get("text"), max_new_tokens=target.max_new_tokens)
        async for _ in reply.pieces():
            now = time.perf_counter()
            if first:
                gaps.append(now - last)
            first, last = first or now, now
    except ServiceError as error:
        return Sample(0.0, (), 0.0, 0, error.code.name)
    end = time.perf_counter()
    assert reply.done is not None, "an answer ended without its figures"
    return Sample((first or end) - due, tuple(gaps), end - due, reply.done.usage.completion_tokens)
