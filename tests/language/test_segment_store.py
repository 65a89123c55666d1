"""The store of document KV under any sequence of operations: nothing leaks, nothing is anyone else's, nothing exceeds its bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from glyph_rt.errors import InternalError, LimitError
from glyph_rt.identity import digest
from glyph_rt.language import KVShape, KVTail, Lease, SegmentStore
from glyph_rt.memory.arena import Arena

SHAPE = KVShape(layers=1, kv_heads=1, head_dim=2, dtype=torch.float32)
PER_TOKEN = SHAPE.bytes_per_token
BUDGET = 60 * PER_TOKEN


def chain(pages: tuple[int, ...]) -> list[str]:
    keys, key = [], "root"
    for page in pages:
        key = digest("test", key, page)
        keys.append(key)
    return keys


def tokens_of(page: int) -> int:
    return 1 + page % 4


def content(key: str) -> float:
    """What a page's KV holds, in this test: a number of its key."""
    return float(int(key[:6], 16))


def bring_in(store: SegmentStore, pages: tuple[int, ...]) -> Lease:
    """As PageReader does, with KV that says whose it is."""
    keys = chain(pages)
    lease = store.pin(keys)
    try:
        while (found := store.host_copy(keys[lease.pages :])) is not None:
            copy, ends = found
            room = store.arena.reserve(copy.nbytes, "a copy")
            lease = store.extend(lease, keys[lease.pages : lease.pages + len(ends)], ends, copy.copied_to("cpu"), room)
        new = range(lease.pages, len(pages))
        if new:
            counts = [tokens_of(pages[n]) for n in new]
            room = store.arena.reserve(sum(counts) * PER_TOKEN, "a test")
            tail = KVTail(SHAPE, sum(counts))
            for n, count in zip(new, counts, strict=True):
                tail.place(count).write(0, torch.full((2, SHAPE.kv_heads, count, SHAPE.head_dim), content(keys[n])))
                tail.advance(count)
            lease = store.extend(lease, keys[lease.pages :], np.cumsum(counts).tolist(), tail.seal(), room)
    except BaseException:
        lease.release()
        raise
    return lease


def check(lease: Lease, pages: tuple[int, ...]) -> None:
    """Every token of the lease is of the page that should stand there."""
    expected = [content(key) for key, page in zip(chain(pages), pages, strict=True) for _ in range(tokens_of(page))]
    found = torch.cat([segment.kv[0, 0, 0, :, 0] for segment in lease.segments]).tolist()
    assert found == expected and lease.tokens == len(expected) and lease.pages == len(pages)


class StoreMachine(RuleBasedStateMachine):
    """Documents are opened (from few pages, so that many begin alike), asked, evicted and closed; leases live on beside them."""

    documents = Bundle("documents")
    leases = Bundle("leases")

    def __init__(self, host_tokens: int = 20) -> None:
        super().__init__()
        self.store = SegmentStore(Arena(BUDGET, "KV memory", "--kv-bytes"), host_tokens * PER_TOKEN)
        self.open: list[tuple[int, ...]] = []
        self.held: list[tuple[Lease, tuple[int, ...]]] = []

    @rule(target=documents, pages=st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple))
    def read(self, pages: tuple[int, ...]) -> tuple[int, ...] | None:
        try:
            lease = bring_in(self.store, pages)
        except LimitError:
            return None
        check(lease, pages)
        self.store.want(chain(pages))
        lease.release()
        self.open.append(pages)
        return pages

    @rule(target=leases, document=documents)
    def ask(self, document: tuple[int, ...] | None) -> tuple[Lease, tuple[int, ...]] | None:
        if document not in self.open:
            return None
        try:
            lease = bring_in(self.store, document)
        except LimitError:
            return None
        check(lease, document)
        self.held.append((lease, document))
        return lease, document

    @rule(target=leases, entry=leases)
    def share(self, entry: tuple[Lease, tuple[int, ...]] | None) -> tuple[Lease, tuple[int, ...]] | None:
        if entry not in self.held:
            return None
        shared = (entry[0].share(), entry[1])
        self.held.append(shared)
        return shared

    @rule(document=documents)
    def look(self, document: tuple[int, ...] | None) -> None:
        """What was pinned and not used is as it was."""
        before = [(run, run.pins, run.used) for run in self.store._runs]
        if document is not None:
            lease = self.store.pin(chain(document))
            lease.drop()
            lease.release()
        assert [(run, run.pins, run.used) for run in self.store._runs] == before

    @rule(entry=consumes(leases))
    def end(self, entry: tuple[Lease, tuple[int, ...]] | None) -> None:
        if entry in self.held:
            check(*entry)
            self.held.remove(entry)
            entry[0].release()
            entry[0].release()

    @rule(document=documents)
    def evict(self, document: tuple[int, ...] | None) -> None:
        if document is not None:
            self.store.evict(chain(document))

    @rule(document=consumes(documents), later=st.booleans())
    def close(self, document: tuple[int, ...] | None, later: bool) -> None:
        if document in self.open:
            self.open.remove(document)
            if later:
                self.store.later(lambda: self.store.unwant(chain(document)))
            else:
                self.store.unwant(chain(document))

    @invariant()
    def holds(self) -> None:
        self.store.settle()
        self.store.check_integrity()
        self.store.arena.check_integrity()
        for lease, pages in self.held:
            check(lease, pages)
        if not self.held:
            assert self.store.idle_bytes == self.store.arena.used, "what is not pinned can be reclaimed"
        if not self.held and not self.open:
            assert self.store.arena.used == self.store.host_used == 0 and not self.store._index and not self.store._wanted

    def teardown(self) -> None:
        for lease, _ in self.held:
            lease.release()
        for document in self.open:
            self.store.unwant(chain(document))
        assert self.store.arena.used == self.store.host_used == 0


class TestStore(StoreMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_least_recently_used_document_goes_first_and_its_end_before_its_beginning() -> None:
    store = SegmentStore(Arena(12 * PER_TOKEN, "KV memory", "--kv-bytes"))
    first, longer, other = (3,), (3, 0, 0), (7,)  # 4, 4 + 1 + 1 and 4 tokens
    for document in (first, longer, other):
        lease = bring_in(store, document)
        store.want(chain(document))
        lease.release()
    assert store.arena.used == 10 * PER_TOKEN, "the page they begin with is there once"
    bring_in(store, first).release()
    bring_in(store, (11,)).release()  # wants 4: the end of the longer document goes, the page that was asked for stays
    assert store.pin(chain(longer)).pages == 1 and store.pin(chain(other)).pages == 1


def test_a_run_read_twice_at_once_is_kept_once() -> None:
    store = SegmentStore(Arena(BUDGET, "KV memory", "--kv-bytes"))
    empty = store.pin(chain((1, 2)))
    tails = [KVTail(SHAPE, 5) for _ in range(2)]
    leases = []
    for tail in tails:
        tail.place(5).write(0, torch.zeros(2, SHAPE.kv_heads, 5, SHAPE.head_dim))
        tail.advance(5)
        room = store.arena.reserve(5 * PER_TOKEN, "a test")
        leases.append(store.extend(empty.share(), chain((1, 2)), [2, 5], tail.seal(), room))
    assert leases[0].segments == leases[1].segments and store.arena.used == 5 * PER_TOKEN
    for lease in leases:
        lease.release()
    assert store.arena.used == 0, "nobody wanted it"


def test_broken_books_are_noticed() -> None:
    store = SegmentStore(Arena(BUDGET, "KV memory", "--kv-bytes"))
    lease = bring_in(store, (1, 2))
    run = next(iter(store._runs))
    run.pins = 0
    with pytest.raises(InternalError, match="nobody wants it"):
        store.check_integrity()
    run.pins = 1
    store._index[chain((1,))[0]] = (run, 2)
    with pytest.raises(InternalError, match="not the page it names"):
        store.check_integrity()
    del lease
