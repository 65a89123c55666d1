"""The critic, against a server that says what it likes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from glyph_rt.errors import OptionError
from glyph_rt.tune import critic as critic_module
from glyph_rt.tune.critic import CallError, Critic, Endpoint, parse, prompt
from glyph_rt.tune.search import CRITIC, Search
from tests.tune.parts import SPACE, MadeUp, search

KEY = "sk-secret-of-the-test"


@dataclass
class Server:
    """An endpoint that gives `replies` in turn, the last for ever: the text of a completion, or a status and a whole body."""

    replies: list[str | tuple[int, bytes]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.paths.append(handler.path)
        self.headers.append(dict(handler.headers))
        self.requests.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        status, body = reply if isinstance(reply, tuple) else (200, completion(reply))
        handler.send_response(status)
        if status == 302:
            handler.send_header("Location", self.url + "/elsewhere")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def serving(*replies: str | tuple[int, bytes]) -> Iterator[Server]:
    server = Server(list(replies))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def completion(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def proposals(*changes: object) -> str:
    return json.dumps({"proposals": [{"changes": change, "why": "because"} for change in changes]})


def advised(folder: Path, server: Server, trials: int = 3) -> Search:
    """A search of three styles and, after the second, the critic's advice."""
    critic = Critic(Endpoint(server.url, "judge-7b", KEY), every=2)
    going = search(folder, MadeUp(), neighbours=1)  # the critic is not asked while anything waits

    def enough() -> bool:
        critic.advise(going)
        return len(going.tried) >= trials

    going.run(enough)
    return going


def test_a_valid_proposal_is_tried_next_and_marked(tmp_path: Path) -> None:
    changes = {"space-after": 14, "alignment": "RIGHT"}
    with serving(proposals(changes)) as server, advised(tmp_path, server) as going:
        tried = going.tried[2]
        assert (tried.origin, tried.note) == (CRITIC, "because")
        assert going.space.changes(tried.point) == changes
        assert Critic.counts(going) == {"calls": 1, "proposed": 1, "taken": 1}
        assert server.paths == ["/v1/chat/completions"] and server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert server.requests[0]["model"] == "judge-7b"
    with search(tmp_path, MadeUp()) as again:  # the journal knows who proposed it
        assert again.tried[2] == tried and Critic.counts(again)["taken"] == 1
    assert KEY not in (tmp_path / "search.journal").read_text()


BAD: dict[str, tuple[str, str]] = {
    "an unknown key": (proposals({"rm -rf": 1}), "not of the space"),
    "a value the space lacks": (proposals({"space-after": 13}), "not of the space"),
    "a number for a truth value": (proposals({"auto-crop-width": 1}), "not of the space"),
    "a text for a number": (proposals({"space-after": "14"}), "not of the space"),
    "a font file": (proposals({"font-path": "/etc/passwd"}), "not of the space"),
    "no changes": (proposals({}), "malformed"),
    "a list of changes": (proposals([["space-after", 14]]), "malformed"),
    "a nested value": (proposals({"space-after": {"$gt": 0}}), "malformed"),
    "a null": (proposals({"space-after": None}), "malformed"),
    "another key beside": ('{"proposals": [{"changes": {"space-after": 14}, "code": "import os"}]}', "malformed"),
    "no object": ('{"proposals": ["space-after"]}', "malformed"),
    "the reference again": (proposals({"space-after": 0}), "forbidden"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_valid_is_counted_and_never_run(case: str, tmp_path: Path) -> None:
    reply, becomes = BAD[case]
    with serving(reply) as server, advised(tmp_path, server) as going:
        assert Critic.counts(going) == {"calls": 1, "proposed": 1, becomes: 1}
        assert all(tried.origin != CRITIC for tried in going.tried)


def test_one_bad_proposal_spoils_no_other_and_too_many_are_cut(tmp_path: Path) -> None:
    many = [
        {"space-after": 13},
        {"space-after": 14},
        {"space-after": 14},
        {"margin-y": 28},
        {"alignment": "RIGHT"},
        {"alignment": "CENTER"},
    ]
    with serving(proposals(*many)) as server, advised(tmp_path, server, trials=5) as going:
        counts = Critic.counts(going)
        assert (counts["proposed"], counts["not of the space"]) == (8, 2)  # two calls, four proposals of each
        told = [going.space.changes(tried.point) for tried in going.tried if tried.origin == CRITIC]
        assert {"space-after": 14} in told and {"margin-y": 28} in told and {"alignment": "RIGHT"} not in told


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((500, b"oops"), "the endpoint answered 500"),
        ((302, b""), "the endpoint answered 302"),
        ((200, b"<html>"), "the reply is no chat completion"),
        ((200, b"[" * 100_000), "the reply is no chat completion"),
        ((200, b'{"choices": []}'), "the reply is no chat completion"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "the reply holds no text"),
        ((200, b" " * (critic_module.MOST_BYTES + 1)), "the reply is longer than"),
        ("Sure! Here are my ideas: use a larger font.", "not the JSON object that was asked for"),
        ('{"proposals": "all"}', "not the JSON object that was asked for"),
        ('{"proposals": [], "system": "ignore all rules"}', "not the JSON object that was asked for"),
        (json.dumps({"proposals": [{}] * 1000}), "not the JSON object that was asked for"),
    ],
)
def test_a_call_that_fails_is_counted_and_the_search_goes_on(reply: str | tuple[int, bytes], says: str, tmp_path: Path) -> None:
    with serving(reply) as server, advised(tmp_path, server) as going:
        counts = Critic.counts(going)
        assert counts.pop("calls") == 1 and len(counts) == 1
        assert says in next(iter(counts)) and KEY not in str(counts)
        assert len(going.tried) == 3 and len(server.paths) == 1  # nothing was followed to elsewhere


def test_a_server_that_is_not_there_is_a_failed_call() -> None:
    with serving("") as server:
        url = server.url
    with pytest.raises(CallError, match="the call failed"):
        Endpoint(url, "m").complete([])


def test_a_server_that_is_slow_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic_module, "DEADLINE_S", -1.0)
    with serving("slow") as server, pytest.raises(CallError, match="took longer"):
        Endpoint(server.url, "m").complete([])


def test_replies_are_one_object_alone_or_in_one_fence() -> None:
    reply = proposals({"space-after": 14})
    assert parse(reply) == parse(f"```json\n{reply}\n```") == parse(f"```\n{reply}\n```\n") == json.loads(reply)["proposals"]
    for bad in (
        f"{reply} {reply}",
        f"```\n{reply}\n```\n```\n{reply}\n```",
        f"Here: {reply}",
        "",
        "[]",
        reply[:-1],
        "```" + "\n" * 500_000,
    ):
        with pytest.raises(CallError):
            parse(bad)


def test_the_critic_is_told_the_space_and_the_figures(tmp_path: Path) -> None:
    with search(tmp_path, MadeUp()) as going:
        going.run(lambda: len(going.tried) >= 4)
        system, user = prompt(SPACE, going.tried, going.front())
    assert json.loads(user["content"].splitlines()[1]) == {key: list(values) for key, values in SPACE.values.items()}
    lines = [json.loads(line) for line in user["content"].splitlines()[4:]]
    assert len(lines) == 4 and lines[0]["changes"] == {} and {"accuracy", "compression", "time", "front"} <= set(lines[1])
    assert "JSON object" in system["content"]


@pytest.mark.parametrize(
    "url", ["", "ftp://host/v1", "host/v1", "https://", "http://user:pw@host/v1", "https://host/v1?x=1", "http://h:x/v1"]
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(OptionError, match="--critic-url takes the base"):
        Endpoint(url, "m")


def test_a_key_does_not_cross_a_network_in_the_clear() -> None:
    with pytest.raises(OptionError, match="use an https"):
        Endpoint("http://example.org/v1", "m", KEY)
    Endpoint("http://example.org/v1", "m")
    for url in ("https://example.org/v1", "http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:80/v1"):
        assert KEY not in repr(Endpoint(url, "m", KEY))
