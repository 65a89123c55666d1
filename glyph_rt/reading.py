"""PageReader: brings the pages of a text into KV memory, doing only what has not been done: reading, appending and restoring alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from glyph_rt.identity import digest
from glyph_rt.intake import Admission, Effort, Intake, Work
from glyph_rt.language import PAGES_AHEAD, KVSegment, KVShape, KVTail, Lease, Past, PromptTemplate, SegmentStore, StepLoop
from glyph_rt.memory.arena import Arena, PlaceCallback, Take
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


@dataclass(frozen=True)
class Progress:
    """Where a reading stands, or a question: `done` of `total` through `stage`. A callback that raises stops the one or the other there."""

    # "layout", of long texts only, in code points; "wait", for KV memory, of which `total` is the place in the queue, from 1; "read",
    # drawn, encoded and prefilled, in pages; "restore", the same of a document that has to be brought back for a question.
    stage: str
    done: int
    total: int


ProgressCallback = Callable[[Progress], None]  # must not block: it may be called under the arena's lock


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
        self._intakes: dict[str, Intake] = {}  # by the last page's key; with the arena's lock held

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
        """A lease on the KV of all these pages, for whoever asked to release.

        advance: called with the number of pages that are there; see `Intake.complete`. on_wait: see `Arena.admit`. What either raises stops
        the reading. Raises LimitError and BusyError when KV memory does not suffice.
        """
        admission = self.arena.admit(lambda take: self.claim(names, layout, 0, purpose, take, priority), on_wait)
        admission.own.release()
        effort.charge("wait_s")
        return admission.lease(advance, effort)

    def claim(self, names: Sequence[PageName], layout: Layout, own: int, purpose: str, take: Take, priority: int = 0) -> Admission:
        """For `Arena.admit`: these pages, and `own` bytes beside them, of which `purpose` says what for.

        What is not there will be copied back from host memory, or prefilled: from encoded pages where they are kept, else from pages drawn
        anew. Who comes while somebody else has these pages brought in joins that.
        """
        keys = [name.key for name in names]
        under_way = self._intakes.get(keys[-1])
        if under_way is not None:
            room = take(own, purpose)
            under_way.join()
            return Admission(room, under_way)
        lease = self.store.pin(keys)
        if lease.bytes + self._bytes(names[lease.pages :]) + own > self.arena.budget:
            lease.drop()  # what is shared is part of something too large to stay beside the rest: it must be free to go
            lease = self.store.pin(())
        gone = names[lease.pages :]
        with ExitStack() as undo:
            undo.callback(lease.drop)
            room = take(self._bytes(gone) + own, f"bringing {len(gone):,} pages back for {purpose}" if gone and own else purpose)
            undo.callback(room.release)
            admission = Admission(room.split(own), Intake(self.arena.changed, lease, room))
            undo.pop_all()
        if gone:
            self._intakes[keys[-1]] = admission.intake
            admission.intake.begin(self._bring(admission.intake, names, layout, priority), lambda: self._intakes.pop(keys[-1]))
        return admission

    def _bytes(self, names: Iterable[PageName]) -> int:
        return sum(name.tokens for name in names) * self.kv_shape.bytes_per_token

    def _bring(self, intake: Intake, names: Sequence[PageName], layout: Layout, priority: int) -> Work:
        """The pages that an intake does not have yet."""
        keys = [name.key for name in names]
        while (found := self.store.host_copy(keys[intake.lease.pages :])) is not None:
            copy, ends = found
            there = intake.lease.pages
            self._hand_over(intake, keys[there : there + len(ends)], ends, copy.copied_to(self.loop.model.device))
            intake.effort.charge("prefill_s")
            yield intake.lease.pages
        if intake.lease.pages < len(names):
            yield from self._prefill(intake, names[intake.lease.pages :], layout, priority)

    def _prefill(self, intake: Intake, new: Sequence[PageName], layout: Layout, priority: int) -> Work:
        """The pages behind those that an intake has."""
        before = intake.lease.pages
        tail = KVTail(self.kv_shape, sum(name.tokens for name in new))
        with closing(self.loop.reading(Past(intake.lease.segments, tail), priority)) as reading:
            for ahead, (name, visual) in enumerate(self._visual_tokens(new, layout, intake), 1 - PAGES_AHEAD):
                if ahead > 0:
                    reading.wait_for(ahead)
                    intake.effort.charge("prefill_s")
                    yield before + ahead
                reading.add(self.template.page(name.number, name.position, name.columns, name.rows), visual)
                intake.effort.prefilled_tokens += name.tokens
                intake.effort.charge("prefill_s")
            for done in range(max(1, len(new) - PAGES_AHEAD + 1), len(new) + 1):
                reading.wait_for(done)
                intake.effort.charge("prefill_s")
                yield before + done
        self._hand_over(intake, [name.key for name in new], np.cumsum([name.tokens for name in new]).tolist(), tail.seal())

    def _hand_over(self, intake: Intake, keys: Sequence[str], ends: Sequence[int], segment: KVSegment) -> None:
        """The store takes over the KV of pages that an intake now has."""
        room = intake.room.split(segment.nbytes)
        try:
            intake.lease = self.store.extend(intake.lease, keys, ends, segment, room)
        except BaseException:
            room.release()
            raise

    def _visual_tokens(self, names: Sequence[PageName], layout: Layout, intake: Intake) -> Iterator[tuple[PageName, Tensor]]:
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
            intake.effort.charge("typeset_s")
            tokens = self.encoder.encode(np.stack([page.patches for page in pages]), pages[0].width, pages[0].height)
            intake.effort.charge("encode_s")
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
