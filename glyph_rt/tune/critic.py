"""The critic: a language model that reads the history of a search and proposes what to try next, as in the Glyph paper.

It is asked through any endpoint that speaks OpenAI's chat completions, and told the space and the figures, never a word of a document.
What it replies is data: a proposal counts only as values that the space has, and everything else is counted and thrown away.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glyph_rt.errors import OptionError
from glyph_rt.tune.search import Search, Tried
from glyph_rt.tune.space import Space, Value

PROPOSALS = 4  # asked for at a time, and at most taken
EVERY = 12  # styles tried between two calls
HISTORY = 40  # styles told: the front, and the latest
MOST_BYTES = 1 << 20  # of a reply
DEADLINE_S = 120.0  # for a whole call
_SOCKET_S = 60.0  # for each wait on the socket
_COUNTS, _ASKED_AT = "critic", "critic asked at"  # kept in the journal


class Proposal(BaseModel):
    """Changes to the reference style, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    changes: Annotated[dict[str, str | bool | int | float], Field(min_length=1, max_length=64)]
    why: Annotated[str, Field(max_length=2000)] = ""


class Reply(BaseModel):
    """What a critic has to answer. Each proposal is parsed by itself, so that one bad one spoils no other."""

    model_config = ConfigDict(extra="forbid", strict=True)

    proposals: Annotated[list[Any], Field(max_length=64)]


class CallError(Exception):
    """The endpoint gave nothing that could be read; the search goes on without it. The message is one line, and holds nothing it sent."""


@dataclass(frozen=True)
class Endpoint:
    """Where a critic answers. Redirects are not followed, and proxies not used, so the key goes nowhere else.

    Raises OptionError for an address that is none, and for a key that would cross a network unprotected.
    """

    url: str  # the base, such as https://host/v1
    model: str
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
            raise OptionError(f"--critic-url takes the base of an endpoint such as https://host/v1, not {self.url!r}")
        if self.key and parts.scheme == "http" and not _is_loopback(host):
            raise OptionError("the critic's key would cross the network in the clear; use an https --critic-url")

    def complete(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of one completion. Raises CallError."""
        body = json.dumps({"model": self.model, "messages": list(messages), "temperature": 1.0, "stream": False}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            whole = self._post(body, headers)
            text = json.loads(whole)["choices"][0]["message"]["content"]
        except (OSError, http.client.HTTPException) as error:
            raise CallError(f"the call failed ({type(error).__name__})") from None
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise CallError("the reply is no chat completion") from None
        if not isinstance(text, str):
            raise CallError("the reply holds no text")
        return text

    def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=_SOCKET_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SOCKET_S)
        end = time.monotonic() + DEADLINE_S
        try:
            connection.request("POST", parts.path.rstrip("/") + "/chat/completions", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise CallError(f"the endpoint answered {response.status}")
            out = bytearray()
            while chunk := response.read1(1 << 16):
                out += chunk
                if len(out) > MOST_BYTES:
                    raise CallError(f"the reply is longer than {MOST_BYTES:,} bytes")
                if time.monotonic() > end:
                    raise CallError(f"the reply took longer than {DEADLINE_S:g} s")
            return bytes(out)
        finally:
            connection.close()


@dataclass
class Critic:
    """Asks the endpoint every so often and hands what is valid to the search. `counts` is kept in the search's journal."""

    endpoint: Endpoint
    every: int = EVERY

    def advise(self, search: Search) -> None:
        """Ask, if it is time to and nothing is waiting to be tried. Never raises for what the endpoint does."""
        if search.waiting or len(search.tried) < self.every + (search.kept(_ASKED_AT) or 0):
            return
        counts = Counter(self.counts(search))
        counts["calls"] += 1
        search.keep(_ASKED_AT, len(search.tried))  # before the call: one that kills the process is not repeated
        try:
            proposals = parse(self.endpoint.complete(prompt(search.space, search.tried, search.front())))
        except CallError as error:
            counts[str(error)] += 1
            proposals = []
        for proposal in proposals[:PROPOSALS]:
            counts["proposed"] += 1
            counts[_offer(search, proposal)] += 1
        search.keep(_COUNTS, dict(counts))

    @staticmethod
    def counts(search: Search) -> dict[str, int]:
        """Calls, proposals, and what became of these: `taken`, `malformed`, `not of the space`, `forbidden`; and calls that failed, by
        how."""
        return dict(search.kept(_COUNTS) or {})


def _offer(search: Search, raw: object) -> str:
    """What becomes of a proposal."""
    try:
        proposal = Proposal.model_validate(raw)
    except ValidationError:
        return "malformed"
    point = search.space.origin
    for key, value in proposal.changes.items():
        known = next((v for v in search.space.values.get(key, ()) if _same(v, value)), None)
        if known is None:
            return "not of the space"
        point[key] = known
    note = " ".join("".join(c for c in proposal.why if c.isprintable() or c.isspace()).split())[:200]
    return "forbidden" if search.propose(point, note) else "taken"


def _same(a: Value, b: Value) -> bool:
    """Equal, and both truth values or both not: in JSON 1 is not true. 14 and 14.0 are one number."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def parse(text: str) -> list[Any]:
    """The proposals in a reply: one JSON object, alone or in one code fence. Raises CallError."""
    first, _, rest = text.strip().partition("\n")
    fenced = first.rstrip() in ("```", "```json") and rest.endswith("```")
    try:
        return Reply.model_validate_json(rest[:-3] if fenced else text).proposals
    except ValidationError:
        raise CallError("the reply is not the JSON object that was asked for") from None


def prompt(space: Space, tried: Sequence[Tried], front: Sequence[Tried]) -> list[dict[str, str]]:
    """What the critic is told: the space and the figures."""
    example = {"proposals": [{"changes": {"KEY": "VALUE"}, "why": "one sentence"}]}
    task = (
        "You tune how text is drawn as page images for a vision-language model that reads them. Every style is measured by accuracy "
        "(share of right answers, more is better), compression (text tokens per visual token, more is better) and time (multiple of the "
        "reference's, less is better). You propose styles that should move the Pareto front. A style is a set of changes to the "
        "reference; use only the keys and values you are given, several keys at once where that helps, and nothing that was tried. "
        f"Reply with one JSON object and nothing else: {json.dumps(example)}, with {PROPOSALS} proposals."
    )
    shown = {t.number: t for t in (*front, *tried[-HISTORY:])}
    best = {t.number for t in front}
    lines = [
        json.dumps({"changes": space.changes(t.point), **_figures(t), "front": t.number in best}, ensure_ascii=False)
        for t in sorted(shown.values(), key=lambda t: t.number)
    ]
    told = "Keys and values, the reference's first:\n" + json.dumps(space.values, ensure_ascii=False)
    return [
        {"role": "system", "content": task},
        {"role": "user", "content": told + "\n\nTried so far:\n" + "\n".join(lines)},
    ]


def _figures(tried: Tried) -> dict[str, float | int]:
    finding = tried.finding
    return {
        "accuracy": round(finding.accuracy.share, 3),
        "questions": len(finding.right),
        "compression": round(finding.compression, 2),
        "time": finding.time,
    }


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
