"""The documents a server keeps: each its tenant's own, under random ids, bounded in number, forgotten when left idle."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from glyph_rt.documents import Document
from glyph_rt.errors import BusyError, InputError, NotFoundError
from glyph_rt.service.limits import Quota, ServiceLimits, Shares
from glyph_rt.service.source import Source

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Entry:
    """A document that is kept. `number` orders entries by when they came; `created_s` is Unix time."""

    id: str
    tenant: str
    number: int
    document: Document
    source: Source
    created_s: float


class Place:
    """Room for one more document, and for its text once its size is known."""

    def __init__(self, texts: Quota, add: Callable[[Document, Source], Entry]) -> None:
        self._texts, self._add = texts, add
        self._held = 0

    def reserve(self, size: int) -> None:
        """Room for a text of `size` bytes. Raises BusyError."""
        self._texts.take(size)
        self._held = size

    def keep(self, document: Document, source: Source) -> Entry:
        """Put the document there; the room for its text is the entry's from here on."""
        entry = self._add(document, source)
        self._texts.give(self._held - source.size)  # a byte order mark was dropped
        self._held = 0
        return entry

    def release(self) -> None:
        self._texts.give(self._held)
        self._held = 0


class Library:
    """Documents by id. Used from the event loop only, so it has no lock.

    At the limit a new document is refused rather than an old one dropped: an id that a client holds does not vanish because
    somebody else uploads. What clients leave behind goes after `idle_s` seconds without a question, when room is next asked for.
    """

    def __init__(self, limits: ServiceLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._idle_s, self._clock = limits.documents, limits.idle_s, clock
        self.texts = Quota(limits.kept_bytes, f"the server keeps at most {limits.kept_bytes:,} bytes of texts; delete a document")
        self._shares = Shares(limits.tenant_documents, "documents")
        self._entries: dict[str, Entry] = {}  # oldest first
        self._used_at: dict[str, float] = {}
        self._promised = 0  # readings under way that will become entries
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, tenant: str) -> int:
        """Documents of one tenant."""
        self.expire()
        return sum(entry.tenant == tenant for entry in self._entries.values())

    @contextmanager
    def place(self, tenant: str) -> Iterator[Place]:
        """Room for one more document of the tenant's, held for the block. Raises BusyError."""
        self.expire()
        if len(self._entries) + self._promised >= self._limit:
            told = f"the server keeps at most {self._limit} documents; delete one"
            raise BusyError(told, public=told)
        self._shares.take(tenant)
        self._promised += 1
        kept = False

        def add(document: Document, source: Source) -> Entry:
            nonlocal kept
            kept = True
            return self._add(tenant, document, source)

        place = Place(self.texts, add)
        try:
            yield place
        finally:
            self._promised -= 1
            place.release()
            if not kept:
                self._shares.give(tenant)

    def get(self, tenant: str, identity: str, *, use: bool = False) -> Entry:
        """The tenant's entry of that id; `use` counts as a question. Raises NotFoundError, and InputError for what is no id.

        Another tenant's document is not found, by the same words and the same way as one that never was.
        """
        if not _ID.fullmatch(identity):
            told = "an id is 32 hexadecimal digits"
            raise InputError(told, public=told, field="document_id" if use else "id")
        self.expire()
        entry = self._entries.get(identity)
        if entry is None or entry.tenant != tenant:
            raise NotFoundError("no document of that id")
        if use:
            self._used_at[identity] = self._clock()
        return entry

    def page(self, tenant: str, after: int, size: int) -> tuple[list[Entry], int | None]:
        """At most `size` of the tenant's entries with a number above `after`, and the `after` of the next page, None behind the last."""
        self.expire()
        found = list(islice((e for e in self._entries.values() if e.tenant == tenant and e.number > after), size + 1))
        return found[:size], found[size - 1].number if len(found) > size else None

    def remove(self, tenant: str, identity: str) -> None:
        """Forget a document; answers that run on it keep its memory until they end. Raises as `get`."""
        self._drop(self.get(tenant, identity))

    def discard(self, entry: Entry) -> None:
        """Forget an entry that may be gone already."""
        if entry.id in self._entries:
            self._drop(entry)

    def expire(self) -> None:
        """Forget what has been idle for too long."""
        before = self._clock() - self._idle_s
        for identity in [i for i, used in self._used_at.items() if used <= before]:
            self._drop(self._entries[identity])

    def close(self) -> None:
        """Forget everything."""
        for entry in list(self._entries.values()):
            self._drop(entry)

    def check_integrity(self) -> None:
        """Raise AssertionError unless the accounts add up; readings under way aside."""
        entries = self._entries.values()
        held = sum(entry.source.size for entry in entries)
        if self._entries.keys() != self._used_at.keys() or (not self._promised and held != self.texts.used):
            raise AssertionError(f"library: {len(self._entries)} documents, {held} bytes of texts, {self.texts.used} counted")
        if not self._promised and any(self._shares[e.tenant] != self.count(e.tenant) for e in entries):
            raise AssertionError("library: the tenants' shares are not their documents")

    def _add(self, tenant: str, document: Document, source: Source) -> Entry:
        # Of the clock rather than counted: a page token must not tell one tenant how many documents others have.
        self._number = max(self._number + 1, time.monotonic_ns())
        entry = Entry(secrets.token_hex(16), tenant, self._number, document, source, time.time())
        self._entries[entry.id] = entry
        self._used_at[entry.id] = self._clock()
        return entry

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.id], self._used_at[entry.id]
        self._shares.give(entry.tenant)
        self.texts.give(entry.source.size)
        entry.document.close()
