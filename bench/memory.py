"""Memory under churn: documents read, appended to, asked, cancelled, evicted, closed and dropped in random order, in a small budget.

    python bench/memory.py [--requests 2000] [--kv-bytes 6MiB] [--seed 0] [--json FILE]

Prints the resident memory's slope over the second half of the requests, in KiB per 1,000 requests with its standard error, and the most KV
memory that was reserved at any sample, taken by a thread of its own every 2 ms. Exits 1 when the bound was exceeded, when the books of any
store do not balance, or when memory is left when everything is closed.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from glyph_rt.export.reader.held_out import questions

from glyph_rt import Answer, Document, Limits, Runtime, Sampling
from glyph_rt.errors import BusyError, LimitError
from glyph_rt.memory.limits import MIB, parse_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kv-bytes", default="6MiB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    limits = Limits(
        kv_bytes=parse_size(options.kv_bytes), page_bytes=4 * MIB, encoded_bytes=2 * MIB, host_kv_bytes=2 * MIB, waiting=4, wait_s=0.05
    )
    with Runtime.open(encoder="torch", limits=limits) as runtime:
        churn = Churn(runtime, options.seed)
        watch = Watch(runtime)
        for _ in range(options.requests):
            churn.request()
            watch.sample()
        churn.close()
        watch.stop()
        failures = check(runtime, watch, limits)
        figures: dict[str, Any] = {
            "requests": dict(churn.counts),
            "resident MiB": {"first": watch.resident[0] / MIB, "last": watch.resident[-1] / MIB, "most": max(watch.resident) / MIB},
            "slope KiB per 1000 requests": slope(watch.resident[len(watch.resident) // 2 :]),
            "KV budget MiB": limits.kv_bytes / MIB,
            "most KV reserved MiB": watch.most / MIB,
            "samples of KV": watch.samples,
            "failures": failures,
        }
    for name, value in figures.items():
        print(f"{name}: {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if failures else 0


class Churn:
    """Random requests on a runtime; every choice from one seed."""

    def __init__(self, runtime: Runtime, seed: int) -> None:
        self.runtime, self.random = runtime, random.Random(seed)
        self.texts = [q.text for q in questions(runtime.typesetter, 24, [1, 2, 3, 5, 8])]
        self.documents: list[Document] = []
        self.answers: list[Answer] = []
        self.counts: Counter[str] = Counter()

    def request(self) -> None:
        kinds = {"read": 4, "append": 1, "ask": 8, "follow": 2, "read out": 6, "cancel": 2, "drop": 1, "evict": 1, "close": 3}
        kind = self.random.choices(list(kinds), list(kinds.values()))[0]
        try:
            self._do(kind)
        except BusyError:
            kind = f"{kind}, no room"
        except LimitError:
            kind = f"{kind}, too large"
        self.counts[kind] += 1
        while len(self.answers) > 12:
            self.answers.pop(0).close()
        while len(self.documents) > 24:
            self.documents.pop(0).close()

    def _do(self, kind: str) -> None:
        pick = self.random
        if kind == "read" or not self.documents:
            self.documents.append(self.runtime.read(pick.choice(self.texts)))
        elif kind == "append":
            self.documents.append(pick.choice(self.documents).append("\nAppended: nothing of note.\n" * pick.randint(1, 20)))
        elif kind in ("ask", "follow"):
            ended = [answer for answer in self.answers if answer.finish_reason in ("stop", "length")]
            after = pick.choice(ended) if kind == "follow" and ended else None
            document = after.document if after else pick.choice(self.documents)
            if document in self.documents:
                sampling = Sampling(
                    max_new_tokens=pick.choice([4, 16, 64, 200]), temperature=pick.choice([0.0, 1.0]), seed=pick.randint(0, 9)
                )
                self.answers.append(document.ask("Transcribe page 1.", sampling, after=after, keep=pick.random() < 0.3))
        elif self.answers and kind == "read out":
            _ = pick.choice(self.answers).text
        elif self.answers and kind == "cancel":
            answer = self.answers.pop(pick.randrange(len(self.answers)))
            next(answer.steps(), None)
            answer.close()
        elif self.answers and kind == "drop":
            self.answers.pop(pick.randrange(len(self.answers)))
        elif kind == "evict":
            pick.choice(self.documents).evict()
        elif kind == "close":
            self.documents.pop(pick.randrange(len(self.documents))).close()

    def close(self) -> None:
        for answer in self.answers:
            answer.close()
        for document in self.documents:
            document.close()
        self.answers.clear()
        self.documents.clear()


class Watch:
    """Resident memory after each request, and reserved KV memory all the time."""

    def __init__(self, runtime: Runtime) -> None:
        self.resident: list[int] = []
        self.most = self.samples = 0
        self._arena, self._stop = runtime.arena, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def sample(self) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        self.resident.append(pages * 4096)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.most = max(self.most, self._arena.used)
            self.samples += 1


def check(runtime: Runtime, watch: Watch, limits: Limits) -> list[str]:
    """What went wrong."""
    gc.collect()
    runtime.store.settle()
    end = time.monotonic() + 5
    while runtime.arena.used and time.monotonic() < end:
        time.sleep(0.01)
    failures = [] if watch.most <= limits.kv_bytes else ["the KV bound was exceeded"]
    for name, books in (("store", runtime.store), ("arena", runtime.arena), ("encoded", runtime._reader.encoded)):
        try:
            books.check_integrity()  # type: ignore[attr-defined]
        except Exception as error:
            failures.append(f"{name}: {error}")
    if runtime.arena.used or runtime.store.host_used or runtime.texts.used:
        failures.append(f"left: KV {runtime.arena.used}, host {runtime.store.host_used}, texts {runtime.texts.used} bytes")
    return failures


def slope(resident: list[int]) -> dict[str, float]:
    """Least squares, KiB per 1,000 requests, and its standard error."""
    x = np.arange(len(resident)) / 1000
    y = np.array(resident) / 1024
    design = np.stack([x, np.ones_like(x)], 1)
    (gradient, offset), *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ np.array([gradient, offset])
    error = np.sqrt(residual @ residual / max(1, len(x) - 2) / ((x - x.mean()) ** 2).sum())
    return {"slope": round(float(gradient), 1), "standard error": round(float(error), 1)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
