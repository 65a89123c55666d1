"""Calls that wait, for KV memory or for a thread that reads: their clients are told where, and one that leaves makes room."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from glyph_rt import Limits, Runtime
from glyph_rt.cli import main
from glyph_rt.memory.arena import Reservation
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.v1 import answers_pb2, documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Gate, eventually, overrun, served
from tests.test_documents import LONGER

QUESTION = "What is the value of order number?"
WAIT = documents_pb2.READ_STAGE_WAIT


@pytest.fixture
def tight(random_model: Path, tmp_path: Path) -> Any:
    """A runtime on which one call can hold all KV memory, and others wait for long."""
    limits = Limits(kv_bytes=2**20, waiting=8, wait_s=2 * PATIENCE_S)
    with Runtime.open(random_model, encoder="torch", store=tmp_path, limits=limits) as runtime:
        yield runtime


def take_all(runtime: Runtime) -> Reservation:
    """What idle documents hold included."""
    return runtime.arena.reserve(runtime.arena.budget, "somebody who does not give way")


class Asking(threading.Thread):
    """A client that asks, notes the places it is told, and what came in the end."""

    def __init__(self, client: Client, **subject: str) -> None:
        super().__init__()
        self.places: list[int] = []
        self.read: list[tuple[int, int]] = []  # pages, and of how many
        self.answer: str | ServiceError = ""
        self.reply = client.ask(QUESTION, max_new_tokens=4, on_wait=self.places.append, progress=self.progress, **subject)  # type: ignore[arg-type]
        self.start()

    def progress(self, where: documents_pb2.ReadProgress) -> None:
        assert where.stage == documents_pb2.READ_STAGE_READ
        self.read.append((where.done, where.total))

    def run(self) -> None:
        try:
            self.answer = self.reply.text
        except ServiceError as error:
            self.answer = error


def test_a_question_is_told_its_place_in_the_queue_for_memory(tight: Runtime) -> None:
    with served(tight) as at, at.client() as client:
        identity = client.read(TEXT).id
        quiet = Asking(client, document=identity)
        quiet.join(PATIENCE_S)
        assert quiet.places == [] and isinstance(quiet.answer, str), "who need not wait hears nothing of it"
        held = take_all(tight)
        first = Asking(client, document=identity)
        eventually(lambda: first.places == [1])
        # The document has to be brought back for the first; a text sent along waits for memory of its own.
        second = Asking(client, text="b: c\n")
        eventually(lambda: second.places == [2])
        third = Asking(client, text="d: e\n")
        eventually(lambda: len(tight.arena._queue) == 3 or third.places != [])
        second.reply.close()
        eventually(lambda: third.places[-1:] == [2])
        assert isinstance(first.answer, str) and first.is_alive()
        held.release()
        for thread in (first, second, third):
            thread.join(PATIENCE_S)
        assert first.answer == quiet.answer and isinstance(second.answer, ServiceError) and isinstance(third.answer, str)
        assert third.places == sorted(third.places, reverse=True)
        client.delete(identity)


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
@pytest.mark.parametrize("kind", ["ask", "upload"])
def test_who_stops_waiting_leaves_the_queue_at_once(tight: Runtime, kind: str, ending: str) -> None:
    """Not after the minutes that it might have waited: its place is the next one's."""
    with served(tight) as at:
        with at.client() as client:
            identity = client.read(TEXT).id
        held = take_all(tight)

        def left(timeout_s: float | None = None) -> bool:
            with at.client(timeout_s=timeout_s) as client:
                try:
                    call = wait_in_line(client, kind, identity)
                except grpc.RpcError as early:
                    assert timeout_s is not None and early.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
                    return False
                if ending == "cancel":
                    assert len(tight.arena._queue) == 1
                    call.cancel()
                eventually(lambda: not tight.arena._queue)
                return True

        if ending == "cancel":
            assert left()
        else:
            overrun(left)
        held.release()


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
def test_questions_behind_a_document_that_is_brought_back_are_told_and_leave_alone(
    tight: Runtime, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """One of them leaves, then the one that has it brought back: the others get it all the same, and what was read is not read again."""
    with served(tight) as at, at.client() as client, at.client(timeout_s=60.0 if ending == "cancel" else 8.0) as leaving:
        document = client.read(LONGER)
        assert document.pages >= 4
        expected = client.ask(QUESTION, document=document.id, max_new_tokens=4).text
        [entry] = at.server.desk.library._entries.values()
        entry.document.evict()
        askers: list[Asking] = []
        gate = Gate(tight, monkeypatch)
        with gate.hold(after=1):
            for number, asks in enumerate((client, client, client, leaving), 1):
                askers.append(Asking(asks, document=document.id))
                eventually(lambda number=number: gate.held and [i._members for i in tight._reader._intakes.values()] == [number])
            [intake] = tight._reader._intakes.values()
            leads, *stay, leaves = askers
            eventually(lambda: all(asker.read == [(1, document.pages)] for asker in askers))
            assert not any(asker.places for asker in askers)
            if ending == "cancel":
                leaves.reply.close()
            eventually(lambda: intake._members == 3)  # while the step is held
            leads.reply.close()
            for asker in (leads, leaves):
                asker.join(PATIENCE_S)
                assert isinstance(asker.answer, ServiceError)
            eventually(lambda: at.server.desk.streams.used == 2)
            assert intake._members == 3, "the thread that reads is at its page"
        for asker in stay:
            asker.join(PATIENCE_S)
            assert asker.answer == expected and asker.read[-1] == (document.pages, document.pages)
        eventually(lambda: intake._members == 0)
        usages = [asker.reply.done.usage for asker in stay if asker.reply.done is not None]
        assert sum(usage.prompt_tokens - usage.cached_tokens for usage in usages) < document.visual_tokens
        client.delete(document.id)


def wait_in_line(client: Client, kind: str, identity: str) -> Any:
    """A call that was told that it waits for memory, at the first place."""
    if kind == "ask":
        call = client._flows.stream(client._answers.Ask, answers_pb2.AskRequest(document_id=identity, question=QUESTION))
        assert next(call).waiting.place == 1
        return call
    parts = [
        documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions()),
        documents_pb2.ReadDocumentRequest(text=b"b: c\n"),
    ]
    call = client._flows.stream(client._documents.ReadDocument, iter(parts))
    assert next(call).progress.stage == documents_pb2.READ_STAGE_RECEIVED
    assert next(call).progress == documents_pb2.ReadProgress(stage=WAIT, total=1)
    return call


def test_a_question_that_waited_too_long_is_told_to_come_back(tight: Runtime) -> None:
    tight.arena._wait_s = 0.2
    with served(tight) as at, at.client() as client:
        identity = client.read(TEXT).id
        held = take_all(tight)
        late = Asking(client, document=identity)
        late.join(PATIENCE_S)
        assert late.places == [1] and isinstance(late.answer, ServiceError) and late.answer.retry_s == 1.0
        held.release()
        assert client.ask(QUESTION, document=identity, max_new_tokens=4).text


def test_a_reading_is_told_its_place_in_the_queue_for_a_thread(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    layout = runtime.typesetter.layout
    with served(runtime, ServiceLimits(readers=1)) as at, at.client() as client:
        monkeypatch.setattr(runtime.typesetter, "layout", lambda *arguments, **more: go_on.wait(PATIENCE_S) and layout(*arguments, **more))
        told: list[list[tuple[int, int]]] = [[], [], []]

        def read(number: int) -> None:
            note = told[number].append
            client.delete(client.read(f"number: {number}\n", lambda p: note((p.stage, p.total)) if p.stage == WAIT else None).id)

        threads = []
        for number in range(3):
            threads.append(threading.Thread(target=read, args=(number,)))
            threads[-1].start()
            eventually(lambda number=number: len(at.server.desk.workers.readers._members) == number + 1)
        eventually(lambda: told == [[], [(WAIT, 1)], [(WAIT, 2)]])
        go_on.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert told == [[], [(WAIT, 1)], [(WAIT, 2), (WAIT, 1)]]


def test_the_command_line_says_that_it_waits(
    tight: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text(TEXT)
    with served(tight) as at:
        held = take_all(tight)

        def release() -> None:
            eventually(lambda: len(tight.arena._queue) == 1)
            held.release()  # who waits is told before it lets go of the lock that this takes

        releasing = threading.Thread(target=release)
        releasing.start()
        monkeypatch.setattr(sys, "argv", ["glyph-rt", "ask", str(note), QUESTION, "--server", at.address, "--max-new-tokens", "4"])
        with pytest.raises(SystemExit) as ended:
            main()
        releasing.join()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == 0 and printed.out.strip()
        assert printed.err == "the server is busy: place 1 in its queue\n"
