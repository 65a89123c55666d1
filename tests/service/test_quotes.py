"""Quotes end to end: library, service, client and command line, of answers that a model with random weights is made to give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from glyph_rt import Quoting, Sampling, answers
from glyph_rt.errors import OptionError
from glyph_rt.language import REGEX, Constraint
from glyph_rt.service import answers as service_answers
from glyph_rt.service.client import RefusedError, ServiceError
from glyph_rt.v1 import answers_pb2 as pb
from tests.service.conftest import PATIENCE_S, Served
from tests.test_cli import Run, run

__all__ = ["run"]

ID, MISREAD = "13f64c95-88c3-46ae-9370-730b40f7c594", "13f64c95-88e3-46ae-9370-730b40f7c594"
TEXT = f"DELIVERY NOTE\n\nWeight: 417.5 kg\n\nThe_order_of_this_note={ID}, says Blue Line.\n"
QUESTION = "Which order?"
PATTERN = f"{MISREAD}: 417\\.5 kg"
SAID, CORRECTED = f"{MISREAD}: 417.5 kg", f"{ID}: 417.5 kg"


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form may be given with exact quotes: it is how a test says what a random model answers."""
    monkeypatch.setattr(answers, "check_quoting", lambda quoting, sampling: None)
    monkeypatch.setattr(service_answers, "check_quoting", lambda quoting, sampling: None)
    monkeypatch.setattr("glyph_rt.long.text.check_quoting", lambda quoting, sampling: None)


@pytest.mark.usefixtures("forced")
def test_the_library_gives_both_texts(serve: Served) -> None:
    sampling = Sampling(max_new_tokens=80, constraint=Constraint(REGEX, PATTERN))
    with serve.runtime.read(TEXT) as document:
        marked = document.ask(QUESTION, sampling)
        assert "".join(marked) == marked.text == marked.said == SAID
        exact = document.ask(QUESTION, sampling, quotes=Quoting.EXACT)
        assert "".join(exact) == exact.said == SAID and exact.text == CORRECTED
        assert exact.quotes == marked.quotes and [(q.said, q.text) for q in exact.quotes] == [(MISREAD, ID), ("417.5 kg", "417.5 kg")]
        asked = f"Is it {MISREAD}?"
        first = document.ask(asked, sampling, quotes=Quoting.EXACT)
        assert first.text == SAID, "what the question says was not misread"
        assert document.ask(QUESTION, sampling, after=first, quotes=Quoting.EXACT).text == SAID, "nor what an earlier one said"


@pytest.mark.usefixtures("forced")
def test_the_service_marks_and_replaces(serve: Served) -> None:
    layout = serve.runtime.typesetter.layout(TEXT)
    with serve.client() as client:
        identity = client.read(TEXT).id
        for subject in ({"document": identity}, {"text": TEXT}):
            for mode, text in ((Quoting.MARK, SAID), (Quoting.EXACT, CORRECTED)):
                reply = client.ask(QUESTION, **subject, regex=PATTERN, max_new_tokens=80, quotes=mode)  # type: ignore[arg-type]
                assert "".join(reply) == reply.said == SAID and reply.text == text and reply.done is not None
                assert reply.done.HasField("text") == (mode == Quoting.EXACT)
                misread, verbatim = reply.done.citations
                assert (misread.kind, verbatim.kind) == (pb.CITATION_KIND_MISREAD, pb.CITATION_KIND_VERBATIM)
                assert TEXT[misread.start : misread.end] == misread.text == ID and verbatim.text == ""
                assert SAID[misread.answer_start : misread.answer_end] == MISREAD
                assert SAID[verbatim.answer_start : verbatim.answer_end] == TEXT[verbatim.start : verbatim.end] == "417.5 kg"
                places = layout.find_all(misread.start, misread.end)
                assert len(places) > 1, "the id goes over the end of a line"
                found = [(box.page, box.left, box.top, box.right, box.bottom) for box in misread.boxes]
                assert found == [(p.page, p.box.left, p.box.top, p.box.right, p.box.bottom) for p in places]


def test_a_form_and_exact_quotes_are_refused_before_any_work(serve: Served) -> None:
    with serve.client() as client:
        with pytest.raises(RefusedError, match="form could not be promised") as caught:
            _ = client.ask(QUESTION, text=TEXT, regex=PATTERN, quotes=Quoting.EXACT).text
        assert (caught.value.reason, caught.value.field) == ("BAD_OPTION", "quotes")
        with pytest.raises(OptionError, match="cannot be sent"):
            client.ask(QUESTION, text=TEXT, quotes="both")  # type: ignore[arg-type]
        request = pb.AskRequest(text=TEXT, question=QUESTION, quotes=99)  # type: ignore[arg-type]
        with pytest.raises(grpc.RpcError) as unknown:
            list(client._answers.Ask(request, timeout=PATIENCE_S))
        error = ServiceError(unknown.value)
        assert (error.code, error.reason, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "quotes")
    with serve.runtime.read(TEXT) as document:
        used = serve.runtime.arena.used
        with pytest.raises(OptionError, match="form could not be promised"):
            document.ask(QUESTION, Sampling(constraint=Constraint(REGEX, PATTERN)), quotes=Quoting.EXACT)
        with pytest.raises(OptionError, match=r"no way with quotes .*; choose one of: mark, exact"):
            document.ask(QUESTION, quotes="both")  # type: ignore[arg-type]
        assert serve.runtime.arena.used == used


@pytest.mark.usefixtures("forced")
def test_the_command_line_tells_every_change(serve: Served, run: Run, tmp_path: Path, random_model: Path) -> None:
    """Here and on a server alike: the answer on standard output, what was changed on standard error, all of it in JSON."""
    note = tmp_path / "note.txt"
    note.write_text(TEXT)
    ask = ("ask", note, QUESTION, "--regex", PATTERN, "--max-new-tokens", 80)
    told: list[Any] = []
    for where in (("--model", random_model), ("--server", serve.address)):
        assert run(*ask, *where) == (0, SAID + "\n", "")
        start = TEXT.index(ID)
        line = f"misread: the model wrote '{MISREAD}', the document says '{ID}' (page 1, characters {start} to {start + len(ID)})\n"
        assert run(*ask, *where, "--quotes", "exact") == (0, CORRECTED + "\n", line)
        code, out, err = run(*ask, *where, "--quotes", "exact", "--json")
        assert (code, err) == (0, "")
        answer = json.loads(out)
        assert answer["answer"] == CORRECTED
        told.append(answer["quotes"])
        assert run(*ask, *where, "--quotes", "both")[0] == 2
    assert told[0] == told[1]
    misread, verbatim = told[0]
    assert (misread["kind"], misread["said"], misread["places"][0]["text"]) == ("misread", MISREAD, ID)
    assert misread["places"][0]["boxes"][0]["page"] == 1 and verbatim["places"][0]["text"] == "417.5 kg"
