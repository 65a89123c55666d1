"""The documents a server keeps: each its tenant's own, under random ids, bounded in number, forgotten when left idle."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from glyph_rt.documents import Answer, Document
from glyph_rt.errors import BusyError, ConflictError, InputError, NotFoundError
from glyph_rt.service.limits import ServiceLimits, Shares

MOST_ANSWERS, MOST_TOKENS = 16, 16_384  # kept of one document's answers, for questions that follow them
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Entry:
    """A document that is kept. `number` orders entries by when they came; `created_s` is Unix time."""

    id: str
    tenant: str
    number: int
    document: Document
    created_s: float


class Library:
    """Documents by id. Used from the event loop only, so it has no lock.

    At the limit a new document is refused rather than an old one dropped: an id that a client holds does not vanish because
    somebody else uploads. What clients leave behind goes after `idle_s` seconds without a question, when room is next asked for.
    """

    def __init__(self, limits: ServiceLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._idle_s, self._clock = limits.documents, limits.idle_s, clock
        self._shares = Shares(limits.tenant_documents, "documents")
        self._entries: dict[str, Entry] = {}  # oldest first
        self._used_at: dict[str, float] = {}
        # By document and conversation, oldest first, with the tokens of each; they hold no KV memory.
        self._answers: dict[str, dict[str, tuple[Answer, int]]] = {}
        self._promised = 0  # readings under way that will become entries
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, tenant: str) -> int:
        """Documents of one tenant."""
        self.expire()
        return sum(entry.tenant == tenant for entry in self._entries.values())

    @contextmanager
    def place(self, tenant: str) -> Iterator[Callable[[Document], Entry]]:
        """Room for one more document of the tenant's, held for the block; gives the function that puts it there. Raises BusyError."""
        self.expire()
        if len(self._entries) + self._promised >= self._limit:
            told = f"the server keeps at most {self._limit} documents; delete one"
            raise BusyError(told, public=told)
        self._shares.take(tenant)
        self._promised += 1
        kept = False

        def keep(document: Document) -> Entry:
            nonlocal kept
            kept = True
            return self._add(tenant, document)

        try:
            yield keep
        finally:
            self._promised -= 1
            if not kept:
                self._shares.give(tenant)

    def replace(self, entry: Entry, document: Document) -> Entry:
        """Put another document in an entry's place, under its id; answers that run on the former one keep its memory until they end.

        Raises NotFoundError when the entry is gone, and ConflictError when it was replaced meanwhile.
        """
        if self.get(entry.tenant, entry.id, use=True) is not entry:
            raise ConflictError("the document was replaced meanwhile")
        self._entries[entry.id] = replaced = replace(entry, document=document)
        self._answers.pop(entry.id, None)
        entry.document.close()
        return replaced

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

    def remember(self, entry: Entry, answer: Answer) -> str:
        """Keep an answer that has ended, and is closed, for a question that follows it; its id. Empty when the entry is gone."""
        if self._entries.get(entry.id) is not entry:
            return ""
        kept = self._answers.setdefault(entry.id, {})
        identity = secrets.token_hex(16)
        kept[identity] = answer, _turn_tokens(answer)
        while len(kept) > MOST_ANSWERS or sum(tokens for _, tokens in kept.values()) > MOST_TOKENS:
            del kept[next(iter(kept))]
        return identity if identity in kept else ""

    def answer(self, entry: Entry, conversation: str) -> Answer:
        """The answer of that conversation on the entry's document. Raises NotFoundError, and InputError for what is no id."""
        if not _ID.fullmatch(conversation):
            told = "a conversation_id is 32 hexadecimal digits"
            raise InputError(told, public=told, field="conversation_id")
        found = self._answers.get(entry.id, {}).get(conversation)
        if found is None:
            told = "no such conversation on this document: too long ago, or never made"
            raise NotFoundError(told, public=told)
        return found[0]

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
        if self._entries.keys() != self._used_at.keys() or not self._answers.keys() <= self._entries.keys():
            raise AssertionError("library: documents, their times of use and their answers differ")
        if not self._promised and any(self._shares[e.tenant] != self.count(e.tenant) for e in self._entries.values()):
            raise AssertionError("library: the tenants' shares are not their documents")

    def _add(self, tenant: str, document: Document) -> Entry:
        # Of the clock rather than counted: a page token must not tell one tenant how many documents others have.
        self._number = max(self._number + 1, time.monotonic_ns())
        entry = Entry(secrets.token_hex(16), tenant, self._number, document, time.time())
        self._entries[entry.id] = entry
        self._used_at[entry.id] = self._clock()
        return entry

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.id], self._used_at[entry.id]
        self._answers.pop(entry.id, None)
        self._shares.give(entry.tenant)
        entry.document.close()


def _turn_tokens(answer: Answer) -> int:
    """Tokens of an answer, its question, and what they followed."""
    return answer.usage.prompt_tokens - answer.document.tokens + answer.usage.completion_tokens
