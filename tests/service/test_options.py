"""Over a real channel, what a request may ask of an answer: sampling, stop strings, forms, system texts and thoughts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from glyph_rt import Runtime, Sampling
from glyph_rt.errors import OptionError
from glyph_rt.language import JSON_SCHEMA, REGEX, Constraint
from glyph_rt.service.answer_messages import sampling_of
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.v1 import answers_pb2 as pb
from glyph_rt.v1 import documents_pb2
from tests.conftest import SMALL_PAGES, TEXT
from tests.language.checkpoints import TEMPLATE, write_thinking_model
from tests.service.conftest import PATIENCE_S, Gate, Served, eventually, served

QUESTION = "What is the value of order number?"
CODE = r"[A-Z]{2}-\d{5}"
SCHEMA = '{"type": "object", "properties": {"paid": {"type": "boolean"}}, "required": ["paid"], "additionalProperties": false}'
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose prompt opens the thinking channel."""
    template = TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>{% endif %}")
    return write_thinking_model(tmp_path_factory.mktemp("models") / "thoughtful", template)


@pytest.fixture
def thinker(thoughtful: Path) -> Iterator[Served]:
    with Runtime.open(thoughtful, style=SMALL_PAGES, encoder="torch", store=thoughtful) as runtime, served(runtime) as at:
        yield at


def refusal(client: Client, **fields: Any) -> ServiceError:
    """Of a question on `TEXT` with these fields of AskRequest."""
    request = pb.AskRequest(**{"text": TEXT, "question": QUESTION, **fields})
    with pytest.raises(grpc.RpcError) as caught:
        list(client._answers.Ask(request, timeout=PATIENCE_S))
    return ServiceError(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 2.0, "top_k": 2, "seed": 3},
        {"temperature": 2.0, "top_p": 0.2, "seed": 3},
        {"temperature": 2.0, "min_p": 0.5, "seed": 3},
        {"repetition_penalty": 4.0},
    ],
    ids=lambda options: next(name for name in options if name not in ("temperature", "seed")),
)
def test_every_option_reaches_the_sampler(serve: Served, options: dict[str, Any]) -> None:
    """The answer is the one of the Python API, and another one than without the option."""
    free = {name: options[name] for name in options if name in ("temperature", "seed")}
    with serve.runtime.read(TEXT) as document, serve.client() as client:
        expected = document.ask(QUESTION, Sampling(max_new_tokens=24, **options)).text
        assert client.ask(QUESTION, text=TEXT, max_new_tokens=24, **options).text == expected
        assert client.ask(QUESTION, text=TEXT, max_new_tokens=24, **free).text != expected


def test_options_are_mapped_field_by_field() -> None:
    """What is absent is the Python API's default."""
    assert sampling_of(pb.SamplingOptions()) == Sampling()
    full = {"max_new_tokens": 7, "temperature": 0.5, "seed": 9, "draft": False, "top_k": 3, "top_p": 0.25, "min_p": 0.125}
    full |= {"repetition_penalty": 1.5, "stop": ("a", "b")}
    for form, source in ((JSON_SCHEMA, SCHEMA), (REGEX, CODE)):
        mapped = sampling_of(pb.SamplingOptions(**full, **{form: source}))  # type: ignore[arg-type]
        assert mapped == Sampling(**full, constraint=Constraint(form, source))  # type: ignore[arg-type]
    named = {field.name for field in pb.SamplingOptions.DESCRIPTOR.fields}
    assert named == {*full, JSON_SCHEMA, REGEX}


def test_a_stop_string_cuts_the_answer(serve: Served) -> None:
    with serve.client() as client:
        identity = client.read(TEXT).id
        whole = client.ask(QUESTION, document=identity, max_new_tokens=60).text
        stop = whole[10:12]
        reply = client.ask(QUESTION, document=identity, max_new_tokens=60, stop=[stop])
        assert reply.text == whole[: whole.index(stop)]
        assert reply.done is not None and reply.done.finish_reason == pb.FINISH_REASON_STOP
        assert client.ask(QUESTION, document=identity, max_new_tokens=4, after=reply.done.conversation_id).text is not None


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_have_the_form(serve: Served, temperature: float) -> None:
    with serve.client() as client:
        code = client.ask(QUESTION, text=TEXT, regex=CODE, temperature=temperature, max_new_tokens=40).text
        assert re.fullmatch(CODE, code)
        schema = client.ask(QUESTION, text=TEXT, json_schema=SCHEMA, temperature=temperature, max_new_tokens=200).text
        assert json.loads(schema) in ({"paid": True}, {"paid": False})


@pytest.mark.parametrize(
    ("sampling", "field", "words"),
    [
        ({"top_p": 0.0}, "sampling.top_p", "top-p must lie above 0"),
        ({"top_p": float("nan")}, "sampling.top_p", ""),
        ({"min_p": -0.1}, "sampling.min_p", "min-p must lie between"),
        ({"repetition_penalty": 0.0}, "sampling.repetition_penalty", "between 0.01 and 100"),
        ({"repetition_penalty": float("inf")}, "sampling.repetition_penalty", ""),
        ({"stop": [""]}, "sampling.stop", "1 to 256 characters"),
        ({"stop": ["x" * 257]}, "sampling.stop", "1 to 256 characters"),
        ({"stop": ["x"] * 17}, "sampling.stop", "at most 16 stop strings"),
        ({"stop": ["x"] * 500_000}, "sampling.stop", "at most 16 stop strings"),
        ({"regex": "("}, "sampling.constraint", "unclosed group"),
        ({"regex": "é" * 32_769}, "sampling.constraint", "at most 65,536 bytes, not 65,538"),
        ({"json_schema": ""}, "sampling.constraint", "is not JSON"),
        ({"json_schema": "[" * 60_000}, "sampling.constraint", "is not JSON"),
        ({"json_schema": '{"$ref": "file:///etc/passwd"}'}, "sampling.constraint", "cannot be used"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_out_of_range_are_refused(serve: Served, sampling: dict[str, Any], field: str, words: str) -> None:
    with serve.client() as client:
        error = refusal(client, sampling=pb.SamplingOptions(**sampling))
        assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, "BAD_OPTION", field)
        assert words in str(error) and serve.runtime.arena.used == 0


def test_a_form_that_the_model_has_no_token_for_is_refused_when_that_shows(serve: Served) -> None:
    with serve.client() as client:
        reply = client.ask(QUESTION, text=TEXT, regex="aé")
        with pytest.raises(ServiceError) as caught:
            _ = reply.text
        error = caught.value
        assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, "CONSTRAINT", "sampling.constraint")
        assert reply.accepted is not None and serve.runtime.arena.used == 0


def test_what_no_message_can_carry_is_an_option_error(serve: Served) -> None:
    with serve.client() as client:
        for options in ({"top_k": -1}, {"seed": -1}, {"stop": ["\udce9"]}, {"regex": "x", "json_schema": "{}"}):
            with pytest.raises(OptionError):
                client.ask(QUESTION, text=TEXT, **options)  # type: ignore[arg-type]
        with pytest.raises(OptionError):
            client.read(TEXT, system="caf\udce9")


def test_a_system_text_stands_before_the_pages_and_what_is_appended(serve: Served) -> None:
    """Only equal ones share pages, and the answers are those of the Python API."""
    system, more = "Answer in one word.", "number of boxes: 12\n" * 30
    with serve.client() as client:
        plain, brief = client.read(TEXT), client.read(TEXT, system=system)
        again, other = client.read(TEXT, system=system), client.read(TEXT, system="Be exact.")
        assert len({plain.digest, brief.digest, other.digest}) == 3 and again.digest == brief.digest
        assert again.prefilled_tokens == 0 < plain.prefilled_tokens < brief.prefilled_tokens
        longer = client.append(brief.id, more)
        assert longer.digest == client.read(TEXT + more, system=system).digest != client.read(TEXT + more).digest
        with serve.runtime.read(TEXT, system=system) as document:
            assert document.digest == again.digest
            expected = document.ask(QUESTION, Sampling(max_new_tokens=24)).text
        assert client.ask(QUESTION, document=again.id, max_new_tokens=24).text == expected
        assert client.ask(QUESTION, text=TEXT, system=system, max_new_tokens=24).text == expected


def test_system_texts_have_limits(serve: Served) -> None:
    with serve.client() as client:
        for system, reason in (("x" * 16_385, "OVER_LIMIT"), ("a\0b", "BAD_INPUT")):
            error = refusal(client, system=system)
            assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, reason, "system")
            with pytest.raises(ServiceError) as caught:
                client.read(TEXT, system=system)
            assert (caught.value.code, caught.value.reason, caught.value.field) == (Code.INVALID_ARGUMENT, reason, "options.system")
        document = client.read(TEXT)
        request = pb.AskRequest(document_id=document.id, question=QUESTION, system="Be brief.")
        with pytest.raises(grpc.RpcError) as told:
            list(client._answers.Ask(request, timeout=PATIENCE_S))
        assert ServiceError(told.value).field == "system"
        assert [d.id for d in client.list()] == [document.id]


def test_a_model_that_takes_no_system_text_says_so(serve: Served) -> None:
    serve.runtime.template._system = None
    with serve.client() as client, pytest.raises(ServiceError) as caught:
        client.read(TEXT, system="Be brief.")
    error = caught.value
    assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, "UNSUPPORTED", "system")


def test_thoughts_are_sent_apart_and_only_when_asked_for(thinker: Served) -> None:
    options: dict[str, Any] = {"max_new_tokens": 60, "temperature": 1.0}
    with thinker.runtime.read(TEXT) as document:
        for seed in range(50):
            local = document.ask(QUESTION, Sampling(**options, seed=seed))
            if local.text and local.thinking:
                break
        else:
            pytest.fail("it never came to an answer")
    with thinker.client() as client:
        plain = client.ask(QUESTION, text=TEXT, seed=seed, **options)
        assert ("".join(plain), plain.thinking) == (local.text, "")
        reply = client.ask(QUESTION, text=TEXT, seed=seed, thinking=True, **options)
        pieces = list(reply.pieces())
        thought = [piece.channel == pb.ANSWER_CHANNEL_THINKING for piece in pieces]
        assert {piece.channel for piece in pieces} == {pb.ANSWER_CHANNEL_THINKING, pb.ANSWER_CHANNEL_ANSWER} and thought[0]
        assert "".join(p.text for p, t in zip(pieces, thought, strict=True) if t) == reply.thinking == local.thinking
        assert reply.text == local.text
        assert reply.done is not None and reply.done.usage.completion_tokens == len(local.tokens)


def test_cancelling_thoughts_that_are_not_sent_stops_them(thinker: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece comes by that a stop could be noticed at."""
    with thinker.client() as client:
        identity = client.read(TEXT).id
        held = thinker.runtime.arena.used
        gate = Gate(thinker.runtime, monkeypatch)
        sampling = pb.SamplingOptions(max_new_tokens=2000, draft=False)
        with gate.hold(after=3):
            call = client._answers.Ask(pb.AskRequest(document_id=identity, question=QUESTION, sampling=sampling))
            assert next(iter(call)).WhichOneof("event") == "accepted"
            eventually(lambda: gate.held)
            call.cancel()
            eventually(lambda: thinker.server.desk.streams.used == 0)
            gate.let_the_cancelled_know()
        eventually(lambda: thinker.runtime.arena.used == held)
        assert gate.begun <= 5


def test_the_command_line_passes_all_of_it_on(thinker: Served, tmp_path: Path) -> None:
    """The words of a local `ask` with the same options."""
    note, schema = tmp_path / "note.txt", tmp_path / "schema.json"
    note.write_text(TEXT)
    schema.write_text(SCHEMA)

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = "from glyph_rt.cli import main; main()"
        command = [sys.executable, "-c", script, "ask", str(note), QUESTION, "--server", thinker.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    drawn = {"temperature": 1.0, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1, "max_new_tokens": 40}
    options = [word for name, value in drawn.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with thinker.runtime.read(TEXT, system="Be brief.") as document:
        local = document.ask(QUESTION, Sampling(**drawn, stop=("zz", "qq")))  # type: ignore[arg-type]
        expected, thoughts = local.text, local.thinking
    done = ask(*options, "--stop", "zz", "--stop", "qq", "--system", "Be brief.", "--thinking")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected + "\n", thoughts)
    figures = json.loads(ask(*options, "--stop", "zz", "--stop", "qq", "--system", "Be brief.", "--json").stdout)
    assert (figures["answer"], figures["thinking"]) == (expected, thoughts)
    formed = ask("--json-schema", str(schema), "--max-new-tokens", "400", "--json")
    assert formed.returncode == 0 and json.loads(formed.stdout)["usage"]["completion_tokens"] > 0
    assert ask("--top-p", "0").stderr == "glyph-rt: the server: top-p must lie above 0 and not above 1 (all tokens), not 0.0\n"
    assert ask("--top-k", "-1").stderr.startswith("glyph-rt: the request cannot be sent: ")
    assert len(thinker.server.desk.library) == 0


def test_a_reading_option_of_an_older_client_is_as_before(serve: Served) -> None:
    """Requests without the new fields mean what they meant."""
    with serve.client() as client:
        first = documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions())
        parts = [first, documents_pb2.ReadDocumentRequest(text=TEXT.encode())]
        old = list(client._documents.ReadDocument(iter(parts), timeout=PATIENCE_S))[-1].document
        assert old.digest == client.read(TEXT).digest
