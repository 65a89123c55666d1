"""The documents a server keeps: under random ids, bounded in number, forgotten when left idle."""

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

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Entry:
    """A document that is kept. `number` orders entries by when they came; `created_s` is Unix time."""

    id: str
    number: int
    document: Document
    created_s: float


class Library:
    """Documents by id. Used from the event loop only, so it has no lock.

    At the limit a new document is refused rather than an old one dropped: an id that a client holds does not vanish because
    somebody else uploads. What clients leave behind goes after `idle_s` seconds without a question, when room is next asked for.
    """

    def __init__(self, limit: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._idle_s, self._clock = limit, idle_s, clock
        self._entries: dict[str, Entry] = {}  # oldest first
        self._used_at: dict[str, float] = {}
        self._promised = 0  # readings under way that will become entries
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def place(self) -> Iterator[Callable[[Document], Entry]]:
        """Room for one more document, held for the block; gives the function that puts it there. Raises BusyError."""
        self.expire()
        if len(self._entries) + self._promised >= self._limit:
            told = f"the server keeps at most {self._limit} documents; delete one"
            raise BusyError(told, public=told)
        self._promised += 1
        try:
            yield self._add
        finally:
            self._promised -= 1

    def get(self, identity: str, *, use: bool = False) -> Entry:
        """The entry of that id; `use` counts as a question. Raises NotFoundError, and InputError for what is no id."""
        if not _ID.fullmatch(identity):
            told = "an id is 32 hexadecimal digits"
            raise InputError(told, public=told, field="document_id" if use else "id")
        self.expire()
        entry = self._entries.get(identity)
        if entry is None:
            raise NotFoundError("no document of that id")
        if use:
            self._used_at[identity] = self._clock()
        return entry

    def page(self, after: int, size: int) -> tuple[list[Entry], int | None]:
        """At most `size` entries with a number above `after`, and the `after` of the next page, None behind the last."""
        self.expire()
        found = list(islice((e for e in self._entries.values() if e.number > after), size + 1))
        return found[:size], found[size - 1].number if len(found) > size else None

    def remove(self, identity: str) -> None:
        """Forget a document; answers that run on it keep its memory until they end. Raises as `get`."""
        self._drop(self.get(identity))

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

    def _add(self, document: Document) -> Entry:
        self._number += 1
        entry = Entry(secrets.token_hex(16), self._number, document, time.time())
        self._entries[entry.id] = entry
        self._used_at[entry.id] = self._clock()
        return entry

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.id], self._used_at[entry.id]
        entry.document.close()
