"""More on one document: text appended to it, and questions that follow an answer."""

from __future__ import annotations

import gc
import threading
import weakref

import grpc
import pytest

from glyph_rt import Runtime, Sampling
from glyph_rt.memory.limits import Limits
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.library import MOST_ANSWERS
from glyph_rt.v1 import documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Served, eventually, served

QUESTION = "What is the value of order number?"
MORE = "number of boxes: 12\n" * 30


def refused(client: Client, document: str, text: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        client.append(document, text)
    return caught.value


def test_what_is_appended_is_read_as_if_it_had_been_there(serve: Served) -> None:
    """Under the same id, with the digest and the answers of the whole text, and only new pages prefilled."""
    progress: list[tuple[int, int, int]] = []
    with serve.client() as client:
        before = client.read(TEXT)
        after = client.append(before.id, MORE, lambda p: progress.append((p.stage, p.done, p.total)))
        whole = client.read(TEXT + MORE)
        assert after.id == before.id and after.create_time == before.create_time and client.get(before.id) == after
        assert (after.digest, after.pages, after.characters) == (whole.digest, whole.pages, len(TEXT + MORE)) != before.digest
        assert 0 < after.prefilled_tokens < after.kv_bytes // serve.runtime.plan().kv_per_token
        assert progress[0] == (documents_pb2.READ_STAGE_RECEIVED, len(MORE), len(MORE)) and progress[-1][1:] == (after.pages, after.pages)
        answers = {client.ask(QUESTION, document=d.id, max_new_tokens=12).text for d in (after, whole)}
        assert len(answers) == 1
        client.delete(whole.id)
        assert [d.id for d in client.list()] == [before.id] and [page.page for page in client.pages(before.id)][-1] == after.pages
        client.delete(before.id)
        eventually(lambda: serve.runtime.arena.used == serve.runtime.texts.used == 0)


def test_running_answers_go_on_with_the_text_as_it_was(serve: Served) -> None:
    with serve.client() as client:
        identity = client.read(TEXT).id
        expected = client.ask(QUESTION, document=identity, max_new_tokens=24).text
        running = client.ask(QUESTION, document=identity, max_new_tokens=24)
        pieces = iter(running)
        first = next(pieces)
        client.append(identity, MORE)
        assert first + "".join(pieces) == expected


def test_what_cannot_be_appended_changes_nothing(runtime: Runtime) -> None:
    runtime.limits = Limits(text_bytes=2 * len(TEXT))
    with served(runtime) as at, at.client() as client:
        document = client.read(TEXT)
        for identity, text, code, field in (
            ("0" * 32, "a", grpc.StatusCode.NOT_FOUND, ""),
            ("x", "a", grpc.StatusCode.INVALID_ARGUMENT, "document_id"),
            (document.id, "", grpc.StatusCode.INVALID_ARGUMENT, "text"),
            (document.id, "a\0", grpc.StatusCode.INVALID_ARGUMENT, "text"),
            (document.id, "a" * (len(TEXT) + 1), grpc.StatusCode.INVALID_ARGUMENT, "text"),
        ):
            error = refused(client, identity, text)
            assert (error.code, error.field) == (code, field), str(error)
        assert client.get(document.id) == document


def test_two_at_once_do_not_lose_one(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one is told that the document was changed; with patience it goes behind the first."""
    with serve.client() as client, serve.client(patience_s=PATIENCE_S) as patient:
        identity = client.read(TEXT).id
        both = threading.Barrier(2)
        layout = serve.runtime.typesetter.layout

        def together(text: str, *arguments: object) -> object:
            if not both.broken and text.startswith(TEXT) and len(text) == len(TEXT) + 2:
                both.wait(PATIENCE_S)
            return layout(text, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(serve.runtime.typesetter, "layout", together)
        other = threading.Thread(target=patient.append, args=(identity, "b\n"))
        other.start()
        try:
            client.append(identity, "a\n")
            lost = False
        except ServiceError as error:
            assert (error.code, error.reason, error.retry_s) == (grpc.StatusCode.ABORTED, "CHANGED", 1.0)
            lost = True
        other.join(PATIENCE_S)
        assert client.get(identity).characters == len(TEXT) + (2 if lost else 4)


def test_a_question_may_follow_an_answer(serve: Served) -> None:
    """It is answered as the runtime answers it, once the first, its question and the answer are part of its prompt."""
    second = "And the weight?"
    with serve.runtime.read(TEXT) as local:
        first = local.ask(QUESTION, Sampling(max_new_tokens=12))
        first_text = first.text
        followed = local.ask(second, Sampling(max_new_tokens=12), after=first)
        expected, tokens = followed.text, followed.usage.prompt_tokens
    with serve.client() as client:
        identity = client.read(TEXT).id
        reply = client.ask(QUESTION, document=identity, max_new_tokens=12)
        assert reply.text == first_text and reply.done is not None
        conversation = reply.done.conversation_id
        again = client.ask(second, document=identity, max_new_tokens=12, after=conversation)
        assert again.text == expected and again.done is not None
        assert again.done.usage.prompt_tokens == tokens > reply.done.usage.prompt_tokens
        assert again.done.conversation_id not in ("", conversation)
        inline = client.ask(QUESTION, text=TEXT, max_new_tokens=2)
        assert inline.text and inline.done is not None and inline.done.conversation_id == ""
        other = client.read(TEXT).id
        for subject, after, code in (
            ({"document": identity}, "0" * 32, grpc.StatusCode.NOT_FOUND),
            ({"document": other}, conversation, grpc.StatusCode.NOT_FOUND),
            ({"document": identity}, "x", grpc.StatusCode.INVALID_ARGUMENT),
            ({"text": TEXT}, conversation, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(ServiceError) as caught:
                _ = client.ask(second, after=after, **subject).text
            assert caught.value.code == code
        client.append(identity, MORE)
        with pytest.raises(ServiceError):
            _ = client.ask(second, document=identity, after=conversation).text
        serve.server.desk.check_integrity()


def test_what_is_kept_of_answers_is_bounded_and_holds_no_kv(serve: Served) -> None:
    """Also really: tensors of a document that gave its memory back are gone, whatever answers on it are kept."""
    with serve.client() as client:
        identity = client.read(TEXT).id
        made = []
        for _ in range(MOST_ANSWERS + 3):
            reply = client.ask(QUESTION, document=identity, max_new_tokens=2)
            assert reply.text and reply.done is not None
            made.append(reply.done.conversation_id)
        kept = serve.server.desk.library._answers[identity]
        assert list(kept) == made[3:]
        [entry] = serve.server.desk.library._entries.values()
        lease = serve.runtime.store.pin(entry.document.keys)
        tensors = [weakref.ref(segment.kv) for segment in lease.segments]
        lease.release()
        del lease
        entry.document.evict()
        assert tensors and serve.runtime.arena.used == 0

        def gone() -> bool:
            gc.collect()
            return not any(tensor() is not None for tensor in tensors)

        eventually(gone)  # the decoder's thread forgets the last step when that is over
        assert client.ask(QUESTION, document=identity, max_new_tokens=2, after=made[-1]).text
