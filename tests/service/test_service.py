"""Documents and answers over a real channel: the happy paths, and everything that is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from glyph_rt import Limits, Runtime, Sampling
from glyph_rt.checkpoint import EMBEDDED_READER
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.v1 import answers_pb2, documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Served, served

CONTRACT = (Path(__file__).parents[2] / "examples" / "contract.txt").read_text()
QUESTION = "What is the value of order number?"
Code = grpc.StatusCode


def upload(client: Client, *messages: documents_pb2.ReadDocumentRequest) -> list[documents_pb2.ReadDocumentResponse]:
    return list(client._documents.ReadDocument(iter(messages), timeout=PATIENCE_S))


def options(**fields: int) -> documents_pb2.ReadDocumentRequest:
    return documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions(**fields))


def text(data: bytes) -> documents_pb2.ReadDocumentRequest:
    return documents_pb2.ReadDocumentRequest(text=data)


def refused(call: object, *arguments: object, **keywords: object) -> ServiceError:
    with pytest.raises((ServiceError, grpc.RpcError)) as caught:
        call(*arguments, **keywords)  # type: ignore[operator]
    return caught.value if isinstance(caught.value, ServiceError) else ServiceError(caught.value)


def test_the_reader_answers_about_the_bundled_contract() -> None:
    """Upload, progress, three questions with their figures, an inline text, and the list, with the real weights."""
    progress: list[tuple[int, int, int]] = []
    with Runtime.open(EMBEDDED_READER, encoder="torch") as runtime, served(runtime) as at, at.client() as client:
        document = client.read(CONTRACT, lambda p: progress.append((p.stage, p.done, p.total)))
        assert progress == [(1, len(CONTRACT.encode()), len(CONTRACT.encode())), (3, 1, 3), (3, 2, 3), (3, 3, 3)]
        assert (document.pages, document.visual_tokens, document.characters) == (3, 225, len(CONTRACT))
        assert document.compression == pytest.approx(3.61, abs=0.01) and document.kv_bytes == runtime.arena.used
        assert len(document.id) == 32 and len(document.digest) == 64
        for key, value in (("Pump type", "KV-330"), ("Monthly fee", "EUR 2,450"), ("Notice period", "90 days")):
            reply = client.ask(f"What is the value of {key}?", document=document.id)
            assert reply.text == value
            assert reply.accepted is not None and reply.done is not None
            assert reply.accepted.cached_tokens == reply.done.usage.cached_tokens == 235
            assert reply.done.finish_reason == answers_pb2.FINISH_REASON_STOP
            assert reply.done.usage.completion_tokens > 0 < reply.done.timings.first_piece_s
        inline = client.ask("What is the value of Notice period?", text=CONTRACT)
        assert inline.text == "90 days"
        assert inline.done is not None and inline.done.usage.cached_tokens == 0 and inline.done.timings.read.typeset_s > 0
        assert runtime.arena.used == document.kv_bytes
        assert list(client.list()) == [client.get(document.id)] == [document]
        assert client.runtime().model_digest == runtime.checkpoint.digest


def test_ask_on_the_command_line_is_answered_by_a_server(serve: Served, tmp_path: Path) -> None:
    """The same words as a local `ask`, without loading torch; a refusal is one line and an exit code."""
    note = tmp_path / "note.txt"
    note.write_text(TEXT)
    script = (
        "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); from glyph_rt.cli import main; main()"
    )

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, "ask", str(note), *arguments, "--server", serve.address]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    with serve.runtime.read(TEXT) as document:
        answer = document.ask(QUESTION, Sampling(max_new_tokens=8))
        expected = answer.text
        usage = answer.usage
    plain = ask(QUESTION, "--max-new-tokens", "8")
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, expected + "\n", "False\n")
    figures = json.loads(ask(QUESTION, "--max-new-tokens", "8", "--json").stdout)
    assert (figures["answer"], figures["usage"]["prompt_tokens"]) == (expected, usage.prompt_tokens)
    refused = ask(" ")
    assert refused.returncode == 2 and refused.stderr.splitlines()[0] == "glyph-rt: the server: the question shows nothing to answer"
    assert ask(QUESTION, "--style", "web").returncode == 2
    assert len(serve.server.desk.library) == 0, "it deletes what it uploaded"


def test_concurrent_questions_get_the_answers_they_get_alone(serve: Served) -> None:
    questions = [f"What is the value of {key}?" for key in ("order number", "weight", "carrier", "door code")] * 4
    with serve.runtime.read(TEXT) as document:
        alone = [document.ask(question, Sampling(max_new_tokens=12)).text for question in questions[:4]] * 4
    with serve.client() as client, ThreadPoolExecutor(16) as pool:
        identity = client.read(TEXT).id
        together = pool.map(lambda question: client.ask(question, document=identity, max_new_tokens=12).text, questions)
        assert list(together) == alone


def test_a_deleted_document_is_gone_and_running_answers_end_well(serve: Served) -> None:
    with serve.client() as client:
        identity = client.read(TEXT).id
        alone = client.ask(QUESTION, document=identity, max_new_tokens=24).text
        running = client.ask(QUESTION, document=identity, max_new_tokens=24)
        pieces = iter(running)
        first = next(pieces)
        client.delete(identity)
        assert first + "".join(pieces) == alone
        for call in (client.get, client.delete, lambda i: client.ask(QUESTION, document=i).text):
            error = refused(call, identity)
            assert (error.code, error.reason, error.retry_s) == (Code.NOT_FOUND, "NO_DOCUMENT", None)
        assert serve.runtime.arena.used == 0


def test_characters_may_be_cut_between_messages(serve: Served) -> None:
    data = "\ufeffcafé: naïve €5\n".encode()
    with serve.client() as client:
        whole = client.read(data.decode())
        cut = upload(client, options(), *(text(data[i : i + 1]) for i in range(len(data))))[-1].document
        assert whole.digest == cut.digest and cut.characters == len(data.decode()) - 1


@pytest.mark.parametrize(
    ("messages", "field", "words"),
    [
        ([options(), text(b"caf\xe9\n")], "text", "not valid UTF-8 (byte 3, line 1)"),
        ([options(), text(b"a\0b")], "text", "NUL bytes"),
        ([options()], "text", "empty"),
        ([options(), text(b" \n\t")], "text", "nothing to read"),
        ([], "content", "begins with the options"),
        ([text(b"abc")], "content", "first message"),
        ([options(), options()], "content", "first message"),
        ([options(), documents_pb2.ReadDocumentRequest()], "content", "first message"),
        ([options(size_bytes=2), text(b"abc")], "options.size_bytes", "3 bytes so far and 2 were announced"),
        ([options(size_bytes=4), text(b"abc")], "options.size_bytes", "3 bytes so far and 4 were announced"),
    ],
)
def test_what_is_no_text_is_refused(serve: Served, messages: list[documents_pb2.ReadDocumentRequest], field: str, words: str) -> None:
    with serve.client() as client:
        error = refused(upload, client, *messages)
        assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, "BAD_INPUT", field)
        assert words in str(error) and error.retry_s is None


def test_a_text_over_the_limit_is_refused_before_it_is_kept(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(runtime.typesetter), "draw", lambda *_: pytest.fail("a page was drawn"))
    runtime.limits = Limits(text_bytes=1000, pages=3)
    with served(runtime, ready=False) as at, at.client() as client:
        at.server.desk.open(runtime)
        declared = refused(upload, client, options(size_bytes=2**40))
        sent = refused(upload, client, options(), text(b"a" * 600), text(b"a" * 600))
        inline = refused(lambda: client.ask(QUESTION, text="a" * 1001).text)
        pages = refused(client.read, "\n".join("line" for _ in range(100)))
        for error, field in ((declared, "options.size_bytes"), (sent, "text"), (inline, "text"), (pages, "text")):
            assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, "OVER_LIMIT", field)
            assert "--" not in str(error), "options of the command line are no business of a client"
        assert "pages and the limit is 3" in str(pages)
        assert at.server.desk.uploads.used == 0
        huge = refused(lambda: client.ask(QUESTION, text="a" * (5 * 2**20)).text)
        assert huge.code == Code.RESOURCE_EXHAUSTED, "gRPC's own refusal of a message over the limit"


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        ({"question": "q", "document_id": "0" * 32}, Code.NOT_FOUND, ""),
        ({"question": "q", "document_id": "../x"}, Code.INVALID_ARGUMENT, "document_id"),
        ({"question": "q"}, Code.INVALID_ARGUMENT, "subject"),
        ({"question": " \n", "text": TEXT}, Code.INVALID_ARGUMENT, "question"),
        ({"question": "a\0b", "text": TEXT}, Code.INVALID_ARGUMENT, "question"),
        ({"question": "a" * 16385, "text": TEXT}, Code.INVALID_ARGUMENT, "question"),
        ({"question": "q", "text": "a\0b"}, Code.INVALID_ARGUMENT, "text"),
        ({"question": "q", "text": ""}, Code.INVALID_ARGUMENT, "text"),
        ({"question": "q", "text": TEXT, "sampling": {"max_new_tokens": 0}}, Code.INVALID_ARGUMENT, "sampling.max_new_tokens"),
        ({"question": "q", "text": TEXT, "sampling": {"max_new_tokens": 2**32 - 1}}, Code.INVALID_ARGUMENT, "sampling.max_new_tokens"),
        ({"question": "q", "text": TEXT, "sampling": {"temperature": float("nan")}}, Code.INVALID_ARGUMENT, "sampling.temperature"),
        ({"question": "q", "text": TEXT, "sampling": {"seed": 2**64 - 1}}, Code.INVALID_ARGUMENT, "sampling.seed"),
    ],
)
def test_what_cannot_be_answered_is_refused(serve: Served, request_: dict[str, object], code: Code, field: str) -> None:
    with serve.client() as client:
        error = refused(lambda: list(client._answers.Ask(answers_pb2.AskRequest(**request_), timeout=PATIENCE_S)))  # type: ignore[arg-type]
        assert (error.code, error.field) == (code, field), str(error)
        assert serve.runtime.arena.used == 0


def test_a_malformed_message_is_bad_input_and_no_defect(serve: Served) -> None:
    """A text field that is no UTF-8, and plain noise."""
    with grpc.insecure_channel(serve.address) as channel:
        for data in (b"\x1a\x02\xff\xfe", b"\xff\xff\xff"):
            error = refused(lambda data=data: list(channel.unary_stream("/glyph_rt.v1.AnswerService/Ask")(data, timeout=PATIENCE_S)))
            assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "BAD_INPUT")
            error = refused(lambda data=data: channel.unary_unary("/glyph_rt.v1.DocumentService/GetDocument")(data, timeout=PATIENCE_S))
            assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "BAD_INPUT")
            error = refused(
                lambda data=data: list(channel.stream_stream("/glyph_rt.v1.DocumentService/ReadDocument")(iter([data]), timeout=PATIENCE_S))
            )
            assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "BAD_INPUT")
        nothing = channel.unary_unary("/glyph_rt.v1.DocumentService/Nothing")
        assert refused(lambda: nothing(b"", timeout=PATIENCE_S)).code == Code.UNIMPLEMENTED


def test_the_list_comes_in_pages_oldest_first(serve: Served) -> None:
    with serve.client() as client:
        made = [client.read(f"number: {i}\n").id for i in range(5)]
        assert [d.id for d in client.list(page_size=2)] == made
        client.delete(made[2])
        assert [d.id for d in client.list(page_size=2)] == [i for i in made if i != made[2]]
        for fields, field in (
            ({"page_size": 101}, "page_size"),
            ({"page_token": "x"}, "page_token"),
            ({"page_token": "after-²"}, "page_token"),
        ):
            error = refused(client._documents.ListDocuments, documents_pb2.ListDocumentsRequest(**fields), timeout=PATIENCE_S)  # type: ignore[arg-type]
            assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)


def test_later_is_told_from_never(random_model: Path, tmp_path: Path) -> None:
    """Documents and KV memory that are taken now: RESOURCE_EXHAUSTED with RetryInfo. What never fits: INVALID_ARGUMENT."""
    with (
        Runtime.open(random_model, encoder="torch", store=tmp_path, limits=Limits(kv_bytes=400_000, waiting=0)) as runtime,
        served(runtime, ServiceLimits(documents=2)) as at,
        at.client() as client,
    ):
        never = refused(client.read, "a line of words\n" * 60)
        assert (never.code, never.retry_s, never.reason) == (Code.INVALID_ARGUMENT, None, "OVER_LIMIT")
        first = client.read("a line of words\n")
        second = client.read("b\n")
        # An answer that fits beside its document, but not beside both.
        slots = runtime.plan().kv_tokens - first.kv_bytes // runtime.plan().kv_per_token
        tokens = slots - 10 - len(runtime.template.question(QUESTION, 0).tokens)
        held = runtime.arena.reserve(second.kv_bytes, "somebody who does not give way, as an idle document does")
        later = refused(lambda: client.ask(QUESTION, document=first.id, max_new_tokens=tokens).text)
        assert (later.code, later.retry_s, later.reason) == (Code.RESOURCE_EXHAUSTED, 1.0, "BUSY")
        never = refused(lambda: client.ask(QUESTION, document=first.id, max_new_tokens=tokens + 11).text)
        assert (never.code, never.retry_s, never.reason) == (Code.INVALID_ARGUMENT, None, "OVER_LIMIT")
        full = refused(client.read, "c\n")
        assert (full.code, full.retry_s) == (Code.RESOURCE_EXHAUSTED, 1.0) and "at most 2 documents" in str(full)
        held.release()
        assert client.ask(QUESTION, document=first.id, max_new_tokens=tokens).text
        client.delete(second.id)
        assert client.read("c\n").pages == 1
        at.server.desk.library._idle_s = 0.0
        assert client.read("d\n").pages == 1, "what is idle makes room"
        at.server.desk.library._idle_s = 3600.0
        assert len(list(client.list())) == 1


def test_a_defect_is_told_by_an_opaque_id_and_logged_without_text(
    serve: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("SECRET words of the document")

    with serve.client() as client:
        identity = client.read(TEXT).id
        monkeypatch.setattr(serve.runtime.template, "question", broken)
        error = refused(lambda: client.ask(QUESTION, document=identity).text)
        assert error.code == Code.INTERNAL and "SECRET" not in str(error)
        assert str(error).split(";")[0].split()[-1] in caplog.text and "KeyError" in caplog.text
        assert "SECRET" not in caplog.text


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-40, 1e-7])
def test_the_smallest_temperatures_draw_the_most_likely_token(serve: Served, temperature: float) -> None:
    with serve.client() as client:
        greedy = client.ask(QUESTION, text=TEXT, max_new_tokens=8).text
        assert client.ask(QUESTION, text=TEXT, max_new_tokens=8, temperature=temperature).text == greedy


def test_noise_of_the_model_is_an_error(serve: Served) -> None:
    with serve.client() as client:
        identity = client.read(TEXT).id
        serve.runtime.model._text.embed_tokens.weight.fill_(float("nan"))
        error = refused(lambda: client.ask(QUESTION, document=identity).text)
        assert (error.code, error.reason) == (Code.INTERNAL, "NO_VALID_OUTPUT")


def test_the_runtime_tells_its_limits(serve: Served) -> None:
    with serve.client() as client:
        found = client.runtime()
    assert (found.style, found.context_tokens, found.encoder) == ("small", 8192, serve.runtime.encoder.name)
    assert (found.limits.text_bytes, found.limits.documents, found.limits.streams) == (16 * 2**20, 64, 32)
    assert found.limits.pages == serve.runtime.pages_in_context
    assert found.memory.kv_bytes_per_token == serve.runtime.plan().kv_per_token
