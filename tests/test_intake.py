"""Being let in, with a document that is there, on its way, or to be brought back: who waits holds nothing, and who comes along shares."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glyph_rt.intake import Admission, Effort, Intake, Work
from glyph_rt.language import KVTail, Lease, SegmentStore
from glyph_rt.memory.arena import Arena, _NoRoomError
from glyph_rt.reading import PageName, PageReader
from tests.language.test_segment_store import BUDGET, PER_TOKEN, SHAPE, chain, check, content, tokens_of

Pages = tuple[int, ...]
DOCUMENTS: list[Pages] = [(0,), (2, 0, 1), (2, 0, 1, 2, 2, 2), (2, 0, 2, 2, 0, 1), (1, 2, 2, 2, 2, 2, 2)]  # some begin alike


def named(pages: Pages) -> list[PageName]:
    return [PageName(n, 1, 1, key, key, 0, tokens_of(page), 0) for n, (key, page) in enumerate(zip(chain(pages), pages, strict=True), 1)]


class GatedReader(PageReader):
    """Pages whose KV says whose it is stand for a model's, and each waits at a gate until it may pass."""

    def __init__(self, store: SegmentStore) -> None:
        self.store, self.kv_shape, self._intakes = store, SHAPE, {}
        self.loop: Any = SimpleNamespace(model=SimpleNamespace(device="cpu"))
        self.gates: dict[Intake, threading.Event] = {}  # of the work that waits, with the lock held
        self.prefilled: list[str] = []
        self.broken = False

    def _prefill(self, intake: Intake, new: Sequence[PageName], layout: Any, priority: int) -> Work:
        before, tail = intake.lease.pages, KVTail(SHAPE, sum(name.tokens for name in new))
        for there, name in enumerate(new, before + 1):
            gate = threading.Event()
            with self.arena.lock:
                self.gates[intake] = gate
            assert gate.wait(30)
            if self.broken:
                raise ValueError("a page cannot be read")
            tail.place(name.tokens).write(0, torch.full((2, SHAPE.kv_heads, name.tokens, SHAPE.head_dim), content(name.key)))
            tail.advance(name.tokens)
            self.prefilled.append(name.key)
            intake.effort.prefilled_tokens += name.tokens
            yield there
        self._hand_over(intake, [name.key for name in new], np.cumsum([name.tokens for name in new]).tolist(), tail.seal())

    def pass_page(self, intake: Intake) -> None:
        """Let one page of it be read."""
        with self.arena.lock:
            gate = self.gates.pop(intake)
        gate.set()


class LeftError(Exception):
    """Nobody wants it any more."""


class Asker(threading.Thread):
    """Asks about a document, waits for it, and holds it until told to end."""

    def __init__(self, reader: GatedReader, pages: Pages, own: int) -> None:
        super().__init__(daemon=True)
        self.reader, self.pages, self.own = reader, pages, own * PER_TOKEN
        self.left = self.ended = False
        self.told: list[int] = []
        self.effort = Effort()
        self.admission: Admission | None = None
        self.lease: Lease | None = None
        self.error: BaseException | None = None

    def claim(self, take: Any) -> Admission:
        return self.reader.claim(named(self.pages), None, self.own, "a question", take)  # type: ignore[arg-type]

    def run(self) -> None:
        try:
            self.admission = self.reader.arena.admit(self.claim, lambda place: self.tell(-place))
            if not self.own:  # as a reading does
                self.admission.own.release()
            self.lease = self.admission.lease(self.tell, self.effort)
        except BaseException as error:
            self.error = error
            if self.admission is not None:
                self.admission.own.release()
        with self.reader.arena.lock:
            self.ended = True

    def tell(self, done: int) -> None:
        if self.left:
            raise LeftError
        if self.told[-1:] != [done]:  # it may be told again
            self.told.append(done)

    @property
    def holds(self) -> bool:
        return self.lease is not None and self.ended

    def leave(self) -> None:
        self.left = True
        self.reader.arena.recheck()

    def end(self) -> None:
        """Give back what was asked for and used."""
        assert self.lease is not None and self.admission is not None
        self.lease.release()
        self.lease = None
        self.admission.own.release()


class Room:
    """An arena, its store and reader, and those who ask; between two calls everybody waits for something."""

    def __init__(self, host_tokens: int = 0) -> None:
        self.arena = Arena(BUDGET, "KV memory", "--kv-bytes", waiting=64, wait_s=600)
        self.store = SegmentStore(self.arena, host_tokens * PER_TOKEN)
        self.reader = GatedReader(self.store)
        self.askers: list[Asker] = []  # in the order they came; those who have gone are taken out

    def ask(self, pages: Pages, own: int) -> Asker:
        asker = Asker(self.reader, pages, own)
        self.askers.append(asker)
        self.do(asker.start)
        return asker

    def do(self, action: Callable[[], object]) -> None:
        """Do it, and let everybody come to rest."""
        action()
        end = time.monotonic() + 30
        while not self.at_rest():
            assert time.monotonic() < end, "somebody goes on for ever"
            time.sleep(0.0005)
        self.check()

    def at_rest(self) -> bool:
        with self.arena.lock:  # who was notified has left `_waiters`, who passed a gate has left `gates`
            return len(self.arena.changed._waiters) + len(self.reader.gates) == len(self.active)  # type: ignore[attr-defined]

    def pass_page(self, asker: Asker) -> None:
        assert asker.admission is not None
        intake = asker.admission.intake
        self.do(lambda: self.reader.pass_page(intake))

    @property
    def active(self) -> list[Asker]:
        return [asker for asker in self.askers if not asker.ended]

    @property
    def waiting(self) -> list[Asker]:
        """For memory."""
        return [asker for asker in self.active if asker.admission is None]

    def check(self) -> None:
        """All bytes and pins are those of who was let in, so who waits has none; and the first waits since there is no room."""
        with self.arena.lock:
            self.store.settle()
            self.store.check_integrity()
            self.arena.check_integrity()
            on_the_way = [asker.admission for asker in self.active if asker.admission is not None]
            holding = [asker for asker in self.askers if asker.holds and asker.admission is not None and asker.lease is not None]
            members = Counter(admission.intake for admission in on_the_way)
            assert members == {intake: intake._members for intake in members} and set(self.reader._intakes.values()) <= set(members)
            pins = Counter(run for intake in members for run, _ in intake.lease._runs)
            pins.update(run for asker in holding if asker.lease is not None for run, _ in asker.lease._runs)
            assert pins == {run: run.pins for run in self.store._runs if run.pins}
            own = [*on_the_way, *(asker.admission for asker in holding if asker.admission is not None)]
            assert self.arena.used == (
                sum(run.segment.nbytes for run in self.store._runs)
                + sum(intake.room.size for intake in members)
                + sum(admission.own.size for admission in own)
            )
            for asker in holding:
                if asker.lease is not None:
                    check(asker.lease, asker.pages)
            assert len(self.arena._queue) == len(self.waiting)
            for first in self.waiting[:1]:
                with pytest.raises(_NoRoomError):
                    first.claim(self.arena._take)

    def finish(self) -> None:
        """Everybody is let in, one after the other, as those before end."""
        while self.askers:
            with self.arena.lock:
                gates = list(self.reader.gates)
            done = [asker for asker in self.askers if asker.ended]
            assert gates or done, "all wait for each other"
            for intake in gates:
                self.do(lambda intake=intake: self.reader.pass_page(intake))  # type: ignore[misc]
            for asker in done:
                self.askers.remove(asker)
                if asker.lease is not None:
                    self.do(asker.end)
                else:
                    assert isinstance(asker.error, LeftError), "nobody was refused"


class AdmissionMachine(RuleBasedStateMachine):
    """Documents are asked, evicted and closed; those who ask wait, read pages, leave and end, in any order, in
    little memory."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(host_tokens=10)
        self.open = list(DOCUMENTS)
        for document in self.open:
            self.room.store.want(chain(document))

    @rule(data=st.data(), own=st.integers(0, 35))
    def ask(self, data: st.DataObject, own: int) -> None:
        self.room.ask(data.draw(st.sampled_from(DOCUMENTS)), own)

    @precondition(lambda self: self.room.reader.gates)
    @rule(data=st.data(), pages=st.integers(1, 7))
    def read(self, data: st.DataObject, pages: int) -> None:
        """Some pages of what is on its way."""
        intake = data.draw(st.sampled_from(list(self.room.reader.gates)))
        while pages and intake in self.room.reader.gates:
            pages -= 1
            self.room.do(lambda: self.room.reader.pass_page(intake))

    @precondition(lambda self: self.room.active)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        asker = data.draw(st.sampled_from(self.room.active))
        at_work = asker.admission is not None and asker.admission.intake.effort is asker.effort
        self.room.do(asker.leave)
        assert asker.ended != at_work, "who waits, for memory or for another's work, leaves at once; who works, after its page"

    @precondition(lambda self: any(asker.holds for asker in self.room.askers))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        asker = data.draw(st.sampled_from([asker for asker in self.room.askers if asker.holds]))
        self.room.askers.remove(asker)
        self.room.do(asker.end)

    @rule(document=st.sampled_from(DOCUMENTS))
    def evict(self, document: Pages) -> None:
        self.room.do(lambda: self.room.store.evict(chain(document)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """Who waits with a question about it, or comes with one, is answered all the same."""
        document = data.draw(st.sampled_from(self.open))
        self.open.remove(document)
        self.room.do(lambda: self.room.store.unwant(chain(document)))

    @invariant()
    def holds(self) -> None:
        self.room.check()

    def teardown(self) -> None:
        self.room.finish()
        for document in self.open:
            self.room.store.unwant(chain(document))
        assert self.room.arena.used == self.room.store.host_used == 0 and not self.room.store._runs and not self.room.reader._intakes


class TestAdmission(AdmissionMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


D = DOCUMENTS[-1]  # seven pages, 20 of the arena's 60 tokens


@pytest.fixture
def room() -> Room:
    """D is open, and not there."""
    room = Room()
    room.store.want(chain(D))
    return room


def bring(room: Room, asker: Asker, pages: int) -> None:
    for _ in range(pages):
        room.pass_page(asker)


def test_who_waits_does_not_stand_in_the_way_of_who_waits_in_front(room: Room) -> None:
    """The first wants so much that the second's document has to go. With that pinned, they would wait for each other."""
    warm = room.ask(D, 0)
    bring(room, warm, 7)
    room.do(warm.end)
    holder = room.ask((0,), 35)
    bring(room, holder, 1)
    first, second = room.ask((2, 2, 2, 2, 2), 30), room.ask(D, 10)
    assert (first.told, second.told) == ([-1], [-2]) and room.store.idle_bytes == 20 * PER_TOKEN
    room.do(holder.end)
    assert first.admission is not None and second.told[-1] == -1 and room.store.idle_bytes == 0, "its document went"
    bring(room, first, 5)
    assert first.holds and room.waiting == [second]
    room.do(first.end)
    bring(room, second, 7)
    assert second.holds and second.effort.prefilled_tokens == 20, "and came back for it"


def test_what_waits_leaves_what_is_idle_as_it_was(room: Room) -> None:
    """A look for room that finds none is no use of a document: others that were used later still outlive it."""
    room.store.want(chain((0, 0)))
    for document, pages in ((D, 7), ((0, 0), 2)):
        asker = room.ask(document, 0)
        bring(room, asker, pages)
        room.do(asker.end)
    holder = room.ask((7, 7), 29)  # 37 of 60, and 22 idle
    bring(room, holder, 2)
    late = room.ask(D, 30)
    room.do(room.arena.recheck)
    room.do(late.leave)
    other = room.ask((5,), 10)
    assert other.admission is not None and room.store.pin(chain(D)).pages == 0 and room.store.pin(chain((0, 0))).pages == 2


def test_what_a_document_shares_does_not_keep_its_own_question_out(room: Room) -> None:
    """It begins like one that fills most of the budget; both are there, and beside them is no room for the question."""
    large, small = (3,) * 11, (3, 0)
    for document, pages in ((large, 11), (small, 1)):
        room.store.want(chain(document))
        asker = room.ask(document, 0)
        bring(room, asker, pages)
        room.do(asker.end)
    assert room.arena.used == 45 * PER_TOKEN
    asker = room.ask(small, 20)
    assert asker.told == [] and room.arena.used == 25 * PER_TOKEN, "the large one went"
    bring(room, asker, 2)
    assert asker.holds


def test_who_comes_along_goes_on_where_who_read_has_left(room: Room) -> None:
    first, second, third, fourth = (room.ask(D, own) for own in (0, 5, 0, 0))
    assert room.arena.used == 25 * PER_TOKEN, "the pages are paid for once"
    bring(room, first, 2)
    assert [asker.told for asker in (first, second, third)] == [[1, 2], [0, 1, 2], [0, 1, 2]]
    room.do(third.leave)
    assert third.ended and not first.ended, "at once, whatever the page under way takes"
    room.do(first.leave)
    assert not first.ended and second.told[-1] == 2
    bring(room, first, 1)
    assert first.ended and room.reader.gates.keys() == {second.admission.intake}  # type: ignore[union-attr]
    bring(room, second, 4)
    assert second.holds and fourth.holds and second.told[-1] == fourth.told[-1] == 7
    assert room.reader.prefilled == chain(D), "every page once"
    efforts = [asker.effort.prefilled_tokens for asker in (first, second, third, fourth)]
    assert sum(efforts) == 20 and efforts[0] > 0 and efforts[2] == 0
    assert isinstance(first.error, LeftError) and isinstance(third.error, LeftError)


def test_what_nobody_waits_for_any_more_is_dropped(room: Room) -> None:
    askers = [room.ask(D, 5) for _ in range(3)]
    bring(room, askers[0], 3)
    for asker in askers[1:]:
        room.do(asker.leave)
    room.do(askers[0].leave)
    assert not askers[0].ended and room.arena.used == 25 * PER_TOKEN
    bring(room, askers[0], 1)
    assert room.arena.used == 0 and not room.reader._intakes and all(asker.ended for asker in askers)


def test_pages_that_cannot_be_read_fail_all_who_wait_for_them_and_nobody_after(room: Room) -> None:
    askers = [room.ask(D, own) for own in (0, 5)]
    room.reader.broken = True
    bring(room, askers[0], 1)
    assert [str(asker.error) for asker in askers] == ["a page cannot be read"] * 2 and room.arena.used == 0
    room.reader.broken = False
    again = room.ask(D, 0)
    bring(room, again, 7)
    assert again.holds
