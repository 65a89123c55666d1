"""PageReader: brings the pages of a text into KV memory, doing only what has not been done: reading, appending and restoring alike."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from glyph_rt.identity import digest
from glyph_rt.language import PAGES_AHEAD, KVSegment, KVShape, KVTail, Lease, Past, PromptTemplate, SegmentStore, StepLoop
from glyph_rt.memory.arena import Arena, PlaceCallback, Reservation
from glyph_rt.memory.byte_cache import ByteCache
from glyph_rt.typeset import BLOCK, Layout, Page, Typesetter
from glyph_rt.vision import MAX_BATCH, VisionEncoder


@dataclass(frozen=True)
class PageName:
    """A page of a chain, known without its pixels."""

    number: int  # from 1
    columns: int  # visual tokens
    rows: int
    content: str  # the page's own digest
    key: str  # of this page and all before it, the model, the encoder and the tenant
    position: int  # rope position of its first token
    tokens: int  # cache slots, marks included
    patch_bytes: int  # of one patch: pages with colour have more


@dataclass
class Effort:
    """Seconds that bringing pages in took the thread that asked for it; they add up to its wall time. And what was done."""

    typeset_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0  # prefilling, less what typesetting and encoding took beside it
    wait_s: float = 0.0  # for KV memory
    prefilled_tokens: int = 0
    _clock: float = field(default_factory=time.perf_counter)

    @property
    def wall_s(self) -> float:
        return self.typeset_s + self.encode_s + self.prefill_s + self.wait_s

    def charge(self, stage: str) -> None:
        """The time since the last charge went into `stage`."""
        now = time.perf_counter()
        setattr(self, stage, getattr(self, stage) + now - self._clock)
        self._clock = now


class PageReader:
    """What reading needs, shared by all documents of a runtime. Thread-safe."""

    def __init__(
        self,
        typesetter: Typesetter,
        encoder: VisionEncoder,
        template: PromptTemplate,
        loop: StepLoop,
        store: SegmentStore,
        kv_shape: KVShape,
        encoded_bytes: int,
        model_digest: str,
    ) -> None:
        self.typesetter, self.encoder, self.template, self.loop, self.store = typesetter, encoder, template, loop, store
        self.encoded: ByteCache[Tensor] = ByteCache(encoded_bytes)
        self.kv_shape = kv_shape  # of documents; turns have the model's own
        weights = loop.model.quant.value if loop.model.quant else str(loop.model.dtype)
        self._root = digest("document-kv/3", model_digest, weights, str(kv_shape), encoder.name)

    @property
    def arena(self) -> Arena:
        return self.store.arena

    def with_system(self, text: str) -> PageReader:
        """A reader of pages behind a system text, which shares everything with this one. Raises ModelError if the model takes none."""
        changed = copy.copy(self)
        changed.template = self.template.with_system(text)
        changed._root = digest("system/1", self._root, text)
        return changed

    def name_pages(self, layout: Layout, tenant: str) -> tuple[PageName, ...]:
        """The layout's pages by name. Draws them, which costs little beside encoding, and the typesetter keeps what fits its cache."""
        names: list[PageName] = []
        key, position = digest("chain/1", self._root, tenant), 0
        for page in self.typesetter.draw(layout):
            columns, rows = page.width // BLOCK, page.height // BLOCK
            key = digest("chain/1", key, page.digest, columns, rows)
            piece = self.template.page(page.number, position, columns, rows)
            names.append(PageName(page.number, columns, rows, page.digest, key, position, len(piece.tokens), page.patches.shape[1]))
            position = piece.end
        return tuple(names)

    def end_position(self, names: Sequence[PageName]) -> int:
        """The rope position behind the pages."""
        last = names[-1]
        return self.template.page(last.number, last.position, last.columns, last.rows).end

    def bring_in(
        self,
        names: Sequence[PageName],
        layout: Layout,
        purpose: str,
        effort: Effort,
        priority: int = 0,
        advance: Callable[[int], None] = lambda done: None,
        on_wait: PlaceCallback = lambda place: None,
    ) -> Lease:
        """A lease on the KV of all these pages. What is not there is copied back from host memory, or prefilled: from encoded pages where
        they are kept, else from pages drawn anew.

        advance: called with the number of pages that are there; what it raises stops the reading. on_wait: see `Arena.reserve`. Raises
        LimitError and BusyError when KV memory does not suffice.
        """

        def reserve(size: int) -> Reservation:
            reservation = self.arena.reserve(size, purpose, on_wait)
            effort.charge("wait_s")
            return reservation

        keys = [name.key for name in names]
        lease = self.store.pin(keys)
        try:
            if lease.bytes + self._bytes(names[lease.pages :]) > self.arena.budget:
                lease.release()  # what is shared is part of something too large to stay beside the rest: it must be free to go
                lease = self.store.pin(())
            while (found := self.store.host_copy(keys[lease.pages :])) is not None:
                lease = self._copy_back(lease, names, *found, reserve, effort)
            if lease.pages:
                advance(lease.pages)
            if lease.pages < len(names):
                lease = self._prefill(lease, names, layout, reserve, effort, priority, advance)
            return lease
        except BaseException:
            lease.release()
            raise

    def _bytes(self, names: Iterable[PageName]) -> int:
        return sum(name.tokens for name in names) * self.kv_shape.bytes_per_token

    def _copy_back(
        self,
        lease: Lease,
        names: Sequence[PageName],
        copy: KVSegment,
        ends: tuple[int, ...],
        reserve: Callable[[int], Reservation],
        effort: Effort,
    ) -> Lease:
        """`lease`, extended by pages that host memory holds."""
        reservation = reserve(copy.nbytes)
        try:
            keys = [name.key for name in names[lease.pages : lease.pages + len(ends)]]
            lease = self.store.extend(lease, keys, ends, copy.copied_to(self.loop.model.device), reservation)
        except BaseException:
            reservation.release()
            raise
        effort.charge("prefill_s")
        return lease

    def _prefill(
        self,
        lease: Lease,
        names: Sequence[PageName],
        layout: Layout,
        reserve: Callable[[int], Reservation],
        effort: Effort,
        priority: int,
        advance: Callable[[int], None],
    ) -> Lease:
        """`lease`, extended by the pages behind it."""
        new, before = names[lease.pages :], lease.pages
        reservation = reserve(self._bytes(new))
        try:
            tail = KVTail(self.kv_shape, sum(name.tokens for name in new))
            with closing(self.loop.reading(Past(lease.segments, tail), priority)) as reading:
                for ahead, (name, visual) in enumerate(self._visual_tokens(new, layout, effort), 1 - PAGES_AHEAD):
                    if ahead > 0:
                        reading.wait_for(ahead)
                        advance(before + ahead)
                    reading.add(self.template.page(name.number, name.position, name.columns, name.rows), visual)
                    effort.charge("prefill_s")
                for done in range(max(1, len(new) - PAGES_AHEAD + 1), len(new) + 1):
                    reading.wait_for(done)
                    advance(before + done)
                effort.charge("prefill_s")
            effort.prefilled_tokens += tail.length
            ends = np.cumsum([name.tokens for name in new]).tolist()
            return self.store.extend(lease, [name.key for name in new], ends, tail.seal(), reservation)
        except BaseException:
            reservation.release()
            raise

    def _visual_tokens(self, names: Sequence[PageName], layout: Layout, effort: Effort) -> Iterator[tuple[PageName, Tensor]]:
        """Pages with their visual tokens [tokens, hidden], in order; neighbours that are not kept are encoded together."""
        drawn: Iterator[Page] | None = None
        dtype = self.loop.model.dtype
        for batch in _batches(names, lambda name: self.encoded.get(name.content)):
            if batch[0][1] is not None:
                yield from ((name, visual) for name, visual in batch if visual is not None)
                continue
            wanted = {name.number for name, _ in batch}
            drawn = drawn or self.typesetter.draw(layout)
            pages: list[Page] = []
            while len(pages) < len(batch):
                page = next(drawn)
                if page.number in wanted:
                    pages.append(page)
            effort.charge("typeset_s")
            tokens = self.encoder.encode(np.stack([page.patches for page in pages]), pages[0].width, pages[0].height)
            effort.charge("encode_s")
            for (name, _), visual in zip(batch, tokens, strict=True):
                kept = visual.to(dtype, copy=True)  # a tensor of its own: a view would keep the whole batch in memory
                self.encoded.put(name.content, kept)
                yield name, kept


def _shape(name: PageName) -> tuple[int, int, int]:
    return name.columns, name.rows, name.patch_bytes


def _batches(names: Sequence[PageName], kept: Callable[[PageName], Tensor | None]) -> Iterator[list[tuple[PageName, Tensor | None]]]:
    """Neighbours of one size that are all kept, or all have to be encoded, at most MAX_BATCH at a time."""
    batch: list[tuple[PageName, Tensor | None]] = []
    for name in names:
        visual = kept(name)
        if batch:
            last, last_visual = batch[-1]
            alike = _shape(name) == _shape(last) and (visual is None) == (last_visual is None)
            if len(batch) == MAX_BATCH or not alike:
                yield batch
                batch = []
        batch.append((name, visual))
    if batch:
        yield batch
