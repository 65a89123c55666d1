"""Intake: a document's pages on their way into KV memory, once for all who need them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from glyph_rt.language import Lease
from glyph_rt.memory.arena import Reservation


@dataclass
class Effort:
    """Seconds that bringing pages in took the thread that asked for it; they add up to its wall time. And what was done."""

    typeset_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0  # prefilling, less what typesetting and encoding took beside it; and waiting for who does all of this for us
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


Work = Generator[int, None, None]  # gives the number of pages that are there, after each


class Intake:
    """The pages of one chain, of which some are there, and all that the others take is set aside. Thread-safe.

    Whoever needs the pages is a member. One member at a time does the work, a page after the other, on its own thread; when that one
    leaves, another goes on from there, and when the last one leaves, what was not done is dropped.

    lease: on the pages that are there, and room: for the others; both are the intake's own. The work extends the lease, and splits off the
    room what it hands over. Made with one member, and whole unless there is work to begin.
    """

    def __init__(self, changed: threading.Condition, lease: Lease, room: Reservation) -> None:
        self.lease, self.room = lease, room
        self.done = lease.pages
        self.whole = True  # all pages are there
        self.effort = Effort()  # of the member that does the work
        self._changed = changed
        self._work: Work | None = None
        self._shut: Callable[[], object] = lambda: None
        self._members = 1
        self._taken = False  # the work, by a member
        self._error: BaseException | None = None

    def begin(self, work: Work, shut: Callable[[], object]) -> None:
        """There are pages to come. shut: called once, with the lock held, as soon as nobody may join any more."""
        self.whole, self._work, self._shut = False, work, shut

    def join(self) -> None:
        """One member more, while it is not shut; with the lock held."""
        self._members += 1

    def complete(self, tell: Callable[[int], None], effort: Effort) -> Lease:
        """All the pages, once they are there, for a member, which does the work where nobody else does.

        tell: called with the number of pages that are there, at first if there are any or somebody else is at it, and then after each; what
        it raises ends the waiting, and leaves the work to the others. While somebody else is at it, it runs under the lock, so that it must
        not block. effort: of the caller. Raises what the work raised, in every member.
        """
        with self._changed:
            while self._taken and not self.whole:
                tell(self.done)
                self._changed.wait()
                effort.charge("prefill_s")
            if self._error is not None:
                raise self._error
            if self.whole:
                tell(self.done)
                return self.lease.share()
            self._taken, self.effort = True, effort
        try:
            if self.done:
                tell(self.done)
            while self._advance():
                tell(self.done)
            return self.lease.share()
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def leave(self) -> None:
        """To be called once by every member. The last one waits for the page under way, and gives back what is held."""
        with self._changed:
            self._members -= 1
            if self._members:
                return
            self._end()
        try:
            if self._work is not None:
                self._work.close()
        finally:
            self.lease.release()
            self.room.release()
            self._work = self._error = None  # an error knows the frames it came through, and with them the pages' KV

    def _advance(self) -> bool:
        """One page more; False when there is none to come."""
        assert self._work is not None, "what is whole has no work"
        try:
            done = next(self._work, None)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._end()
            raise
        with self._changed:
            if done is None:
                self.whole = True
                self._end()
            else:
                self.done = done
            self._changed.notify_all()
        return done is not None

    def _end(self) -> None:
        """Nobody may join any more; with the lock held."""
        shut, self._shut = self._shut, lambda: None
        shut()


@dataclass(frozen=True)
class Admission:
    """What somebody was let in with: a document's pages, there or on their way, and bytes of its own beside them."""

    own: Reservation
    intake: Intake

    def lease(self, tell: Callable[[int], None], effort: Effort) -> Lease:
        """The document's KV for whoever asked to release, as `Intake.complete`. To be called once, and in any case."""
        try:
            return self.intake.complete(tell, effort)
        finally:
            self.intake.leave()
