"""SegmentStore: the KV of documents by what they show, shared, and given up by least recent use.

A document is a chain of pages, and a page's key is a digest over all pages up to it: two texts that begin alike have equal keys up to the
last page they share, whatever comes behind. The store keeps *runs*, neighbouring pages that were prefilled in one go; the runs that hold
the first pages of a chain are its past.

A run is pinned while somebody computes on it, and wanted while an open document has its keys. What is neither is freed at once. What is
wanted but not pinned may be reclaimed for others: it goes to host memory if there is a budget for that (of use on a GPU only), else it is
gone, and is prefilled again when the document is asked next.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from glyph_rt.errors import InternalError
from glyph_rt.language.segments import KVSegment
from glyph_rt.memory.arena import Arena, Reservation


@dataclass(eq=False)
class Run:
    """Pages prefilled in one go. keys[i] and ends[i]: the digest of its page i, and the run's tokens up to that page's end."""

    keys: tuple[str, ...]
    ends: tuple[int, ...]
    segment: KVSegment
    reservation: Reservation | None  # None: in host memory
    pins: int = 0
    used: int = 0  # the store's clock when it was last unpinned
    parts: dict[int, KVSegment] = field(default_factory=dict)  # by pages: documents that share a part share the object too

    def first(self, pages: int) -> KVSegment:
        tokens = self.ends[pages - 1]
        return self.segment if tokens == self.segment.tokens else self.parts.setdefault(pages, self.segment.first(tokens))


class Lease:
    """Pinned runs that hold the first pages of a chain. Releasing or dropping it twice does nothing."""

    def __init__(self, store: SegmentStore, runs: tuple[tuple[Run, int], ...]) -> None:
        self._store, self._runs = store, runs
        self._released = False
        self.segments = tuple(run.first(pages) for run, pages in runs)
        self.pages = sum(pages for _, pages in runs)
        self.tokens = sum(segment.tokens for segment in self.segments)

    @property
    def bytes(self) -> int:
        """KV memory that is kept from others by this lease; more than its tokens take where only the beginning of a run is shared."""
        return sum(run.reservation.size for run, _ in self._runs if run.reservation is not None)

    def share(self) -> Lease:
        """Another lease on the same runs."""
        return self._store._pin(self._runs)

    def release(self) -> None:
        self._store._unpin(self, used=True)

    def drop(self) -> None:
        """Release it unused: what it pinned is as idle as it was before."""
        self._store._unpin(self, used=False)


class SegmentStore:
    """All runs of a runtime. Thread-safe; shares the lock of the arena whose bytes it holds."""

    def __init__(self, arena: Arena, host_bytes: int = 0) -> None:
        self.arena, self.host_bytes = arena, host_bytes
        arena.reclaim = self._reclaim
        self._index: dict[str, tuple[Run, int]] = {}  # key -> the run on the device that holds it, and its pages up to there
        self._runs: set[Run] = set()  # on the device
        self._host: dict[str, Run] = {}  # first key -> run in host memory, least recently used first
        self._wanted: Counter[str] = Counter()
        self._clock = 0
        self._later: deque[Callable[[], None]] = deque()

    def later(self, action: Callable[[], None]) -> None:
        """Do it when memory is next needed, or at `settle`. For finalizers, which may run in the middle of anything."""
        self._later.append(action)

    def settle(self) -> None:
        """Do what was put off."""
        with self.arena.lock:
            while self._later:
                self._later.popleft()()

    def pin(self, keys: Sequence[str]) -> Lease:
        """The longest beginning of a chain that is on the device; it stays there until the lease is released."""
        with self.arena.lock:
            runs: list[tuple[Run, int]] = []
            for key in keys:
                found = self._index.get(key)
                if found is None:
                    break
                run, pages = found
                if runs and runs[-1][0] is run:
                    runs[-1] = found
                elif pages == 1:
                    runs.append(found)
                else:
                    break  # a run whose beginning was prefilled anew since
            return self._pin(tuple(runs))

    def extend(self, lease: Lease, keys: Sequence[str], ends: Sequence[int], segment: KVSegment, reservation: Reservation) -> Lease:
        """Take over the KV of the chain's pages behind `lease`; gives a lease on all, and releases the one that was given.

        keys, ends: of the new pages. What somebody else prefilled meanwhile is used instead, and this segment dropped.
        """
        with self.arena.lock:
            known = self.pin([*(key for run, pages in lease._runs for key in run.keys[:pages]), *keys])
            if known.pages == lease.pages + len(keys):
                reservation.release()
                lease.release()
                return known
            known.release()
            run = Run(tuple(keys), tuple(ends), segment, reservation)
            self._runs.add(run)
            replaced = {self._index[key][0] for key in keys if key in self._index}
            self._index.update((key, (run, n)) for n, key in enumerate(keys, 1))
            whole = self._pin((*lease._runs, (run, len(keys))))
            lease.release()
            for other in replaced:
                self._free_unless_needed(other)
            return whole

    def want(self, keys: Sequence[str]) -> None:
        """An open document has these keys: what it left behind is kept while there is room."""
        with self.arena.lock:
            self._wanted.update(keys)

    def unwant(self, keys: Sequence[str]) -> None:
        with self.arena.lock:
            self._wanted.subtract(keys)
            for key in [key for key in keys if self._wanted[key] <= 0]:
                del self._wanted[key]
            for run in {self._index[key][0] for key in keys if key in self._index}:
                self._free_unless_needed(run)
            for key in [key for key in keys if key in self._host and not self._needed(self._host[key])]:
                del self._host[key]

    def evict(self, keys: Sequence[str]) -> None:
        """Give up what is idle of a chain."""
        with self.arena.lock:
            for run in {self._index[key][0] for key in keys if key in self._index}:
                if run.pins == 0:
                    self._give_up(run)

    def host_copy(self, keys: Sequence[str]) -> tuple[KVSegment, tuple[int, ...]] | None:
        """The beginning of these pages in host memory, and its ends; None when there is none."""
        with self.arena.lock:
            run = self._host.get(keys[0]) if keys else None
            if run is None:
                return None
            pages = sum(a == b for a, b in zip(run.keys, keys, strict=False))
            return run.first(pages), run.ends[:pages]

    @property
    def idle_bytes(self) -> int:
        """What could be reclaimed now."""
        with self.arena.lock:
            return sum(self._size(run) for run in self._runs if run.pins == 0)

    @property
    def host_used(self) -> int:
        """Bytes of KV in host memory."""
        with self.arena.lock:
            return sum(run.segment.nbytes for run in self._host.values())

    def check_integrity(self) -> None:
        """Raise InternalError unless index, runs, reservations and bounds agree."""
        with self.arena.lock:
            for key, (run, pages) in self._index.items():
                if run not in self._runs or run.keys[pages - 1] != key:
                    raise InternalError("the index names a run that is not kept, or not the page it names")
            for run in self._runs:
                if run.pins < 0 or (run.pins == 0 and not self._needed(run)):
                    raise InternalError(f"a run has {run.pins} pins and nobody wants it")
                if run.segment.nbytes != self._size(run) or run.ends[-1] != run.segment.tokens:
                    raise InternalError("a run's bytes are not those that are reserved for it")
            if any(n <= 0 for n in self._wanted.values()) or self.host_used > self.host_bytes:
                raise InternalError("a key is wanted by nobody, or host memory holds more than its budget")

    # -- with the lock held

    def _pin(self, runs: tuple[tuple[Run, int], ...]) -> Lease:
        with self.arena.lock:
            lease = Lease(self, runs)
            for run, _ in runs:
                run.pins += 1
            return lease

    def _unpin(self, lease: Lease, used: bool) -> None:
        with self.arena.lock:
            if lease._released:
                return
            lease._released = True
            for run, _ in reversed(lease._runs):  # the beginning of a chain last, so that its end is given up first
                run.pins -= 1
                if used:
                    self._clock += 1
                    run.used = self._clock
                self._free_unless_needed(run)
            lease._runs, lease.segments = (), ()  # whoever keeps the lease must not keep what it gave back
            if used:
                self.arena.recheck()

    def _needed(self, run: Run) -> bool:
        if run.reservation is None:
            return any(self._wanted[key] for key in run.keys)
        return any(self._wanted[key] and self._index[key][0] is run for key in run.keys if key in self._index)

    def _free_unless_needed(self, run: Run) -> None:
        if run.pins == 0 and run in self._runs and not self._needed(run):
            self._free(run)

    def _free(self, run: Run) -> None:
        self._runs.discard(run)
        for key in run.keys:
            if key in self._index and self._index[key][0] is run:
                del self._index[key]
        assert run.reservation is not None, "only runs on the device are freed"
        run.reservation.release()

    def _reclaim(self, size: int) -> None:
        """Free at least `size` bytes of what is idle, the least recently used first; nothing when that is not to be had."""
        free = self.arena.budget - self.arena.used + size
        self.settle()
        size = free - (self.arena.budget - self.arena.used)
        idle = sorted((run for run in self._runs if run.pins == 0), key=lambda run: run.used)
        if sum(map(self._size, idle)) < size:
            return
        for run in idle:
            if size <= 0:
                return
            size -= self._size(run)
            self._give_up(run)

    def _give_up(self, run: Run) -> None:
        self._to_host(run)
        self._free(run)

    def _to_host(self, run: Run) -> None:
        size = run.segment.nbytes
        if size > self.host_bytes:
            return
        self._host.pop(run.keys[0], None)
        while self.host_used + size > self.host_bytes:
            del self._host[next(iter(self._host))]
        try:
            copy = run.segment.copied_to("cpu", pinned=run.segment.kv.is_cuda)
        except (MemoryError, RuntimeError):  # no memory for it: the tier below has to do
            return
        self._host[run.keys[0]] = Run(run.keys, run.ends, copy, None)

    @staticmethod
    def _size(run: Run) -> int:
        assert run.reservation is not None, "runs in host memory have no reservation"
        return run.reservation.size
