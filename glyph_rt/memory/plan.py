"""MemoryPlan: how a memory budget is spent. What weights and workspaces leave becomes keys and values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glyph_rt.errors import OptionError, PlanError
from glyph_rt.memory.limits import GIB, MIB

TURN_TOKENS = 1024  # of a question and its answer, where the plan counts what fits
DOCUMENT_PAGES = 64  # of a long document, where the plan counts how many fit


@dataclass(frozen=True)
class Share:
    """A part of the budget. `how` says where the figure comes from: counted, measured, estimated or set by an option."""

    name: str
    size: int  # bytes
    how: str


@dataclass(frozen=True)
class Budget:
    """Memory that a runtime may take, in bytes: on a CPU resident memory of the process, else memory of the decoder's GPU.

    reserve: of these, what the plan leaves alone, for what no dry run shows.
    """

    size: int
    reserve: int = GIB

    def __post_init__(self) -> None:
        if self.size < 1 or self.reserve < 0:
            raise OptionError("budget must be at least 1 byte, and reserve not negative")


@dataclass(frozen=True)
class MemoryPlan:
    """How one runtime spends the memory of the decoder's device. `host`: on a GPU, what the host has to have as well."""

    shares: tuple[Share, ...]
    kv_budget: int  # bytes for keys and values
    kv_per_token: int  # of documents, in bytes
    turn_per_token: int  # of questions and answers
    page_tokens: int  # cache slots of a full page
    context: int  # tokens of one prompt and answer
    host: tuple[Share, ...] = ()

    @classmethod
    def within(
        cls,
        budget: Budget,
        shares: Iterable[Share],
        *,
        kv_per_token: int,
        turn_per_token: int,
        page_tokens: int,
        context: int,
        host: Iterable[Share] = (),
    ) -> MemoryPlan:
        """Give what `shares` and the reserve leave to keys and values. The plan may turn out not to hold: see `check`."""
        taken = (*shares, Share("reserve", budget.reserve, "set by --reserve"))
        left = budget.size - sum(share.size for share in taken)
        return cls(taken, left, kv_per_token, turn_per_token, page_tokens, context, tuple(host))

    @property
    def budget(self) -> int:
        return sum(share.size for share in self.shares) + self.kv_budget

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return sum(share.size for share in self.shares if share.name.endswith("weights"))

    @property
    def kv_tokens(self) -> int:
        """Tokens of documents the KV budget holds."""
        return max(0, self.kv_budget // self.kv_per_token)

    @property
    def pages(self) -> int:
        """Full pages the KV budget holds, beside one turn."""
        return max(0, self.kv_budget - TURN_TOKENS * self.turn_per_token) // (self.page_tokens * self.kv_per_token)

    @property
    def document_pages(self) -> int:
        """Pages of a long document: 64, or what the context holds if that is less."""
        return max(1, min(DOCUMENT_PAGES, (self.context - TURN_TOKENS) // self.page_tokens))

    @property
    def documents(self) -> int:
        """Long documents the KV budget holds, each beside a turn of its own."""
        document = self.document_pages * self.page_tokens * self.kv_per_token
        return max(0, self.kv_budget) // (document + TURN_TOKENS * self.turn_per_token)

    def check(self) -> MemoryPlan:
        """This plan. Raises PlanError unless it holds one page and one turn."""
        needed = self.page_tokens * self.kv_per_token + TURN_TOKENS * self.turn_per_token
        if self.kv_budget >= needed:
            return self
        figures = ", ".join(f"{share.name} {_gib(share.size)}" for share in self.shares)
        least = self.budget - self.kv_budget + needed
        raise PlanError(
            f"a memory budget of {_gib(self.budget)} does not hold {figures}, and {_gib(needed)} of keys and values for one page; "
            f"at least {_gib(least)} would: raise --budget, lower --reserve, or use --quant or --kv-dtype",
            public="the server's memory budget does not hold its model",
        )

    def table(self) -> str:
        """For people, a line per share."""
        left = f"what is left: {self.kv_tokens:,} tokens of {self.kv_per_token:,} bytes" if self.kv_budget > 0 else "nothing is left"
        rows = [*self.shares, Share("keys and values", self.kv_budget, left), Share("budget", self.budget, "set by --budget")]
        lines = [f"{row.name:32} {_gib(row.size):>12}  {row.how}" for row in rows]
        lines.append(
            f"room for {self.pages:,} pages of {self.page_tokens:,} tokens, "
            f"or {self.documents:,} documents of {self.document_pages} pages, each with a question"
        )
        if self.host:
            lines.append("host memory, not of this budget:")
            lines += [f"  {row.name:30} {_gib(row.size):>12}  {row.how}" for row in self.host]
        return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB" if abs(size) >= GIB / 10 else f"{size / MIB:,.1f} MiB"
