"""Every request message, as any client could fill it in, and as no client would: through the real server."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from glyph_rt.service.server import SERVICES
from glyph_rt.v1 import answers_pb2, documents_pb2, runtime_pb2
from tests.conftest import TEXT
from tests.fuzz.conftest import ANSWERS
from tests.service.conftest import Served

F = FieldDescriptor
METHODS = [
    method
    for module in (documents_pb2, answers_pb2, runtime_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
IDS = [f"{method.containing_service.name}.{method.name}" for method in METHODS]
WORDS = [
    "",
    "0" * 32,
    "a" * 31,
    "..",
    "\0",
    "after-1",
    "after-" + "9" * 58,
    "\u202e\u0301",
    "<|image|>",
    "<|assistant|>",
    "x" * 20_000,
    "€\n" * 300,
    "[A-Z]{2}-\\d{5}",
    "(a{100}){100}",
    '{"type": "object", "properties": {"n": {"type": "integer"}}}',
    '{"$ref": "#"}',
]
LEAST = 40  # calls of a fuzzer, on a box however slow: one may take as long as its deadline
INTEGERS = st.one_of(st.sampled_from([0, 1, 2, 50, 100, 101, 2**31 - 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))


def values(field: FieldDescriptor, known: list[str]) -> st.SearchStrategy[Any]:
    """What a field may hold. known: ids of documents that are there."""
    if field.message_type is not None:
        return messages(field.message_type, known)
    texts = st.one_of(st.sampled_from([*WORDS, *known, TEXT]), st.text(max_size=200))
    return {
        F.TYPE_STRING: texts,
        F.TYPE_BYTES: st.one_of(texts.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=300)),
        F.TYPE_UINT32: INTEGERS,
        F.TYPE_UINT64: st.one_of(INTEGERS, st.integers(0, 2**64 - 1)),
        F.TYPE_DOUBLE: st.floats(),
        F.TYPE_BOOL: st.booleans(),
        F.TYPE_ENUM: st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1)),
    }[field.type]


def messages(descriptor: Descriptor, known: list[str]) -> st.SearchStrategy[Message]:
    """Messages of one kind with any of their fields set; of a oneof the last one set counts."""
    kind = GetMessageClass(descriptor)

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = kind()
        for field in descriptor.fields:
            if draw(st.booleans()):
                if field.is_repeated:
                    with suppress(ValueError):
                        getattr(message, field.name).extend(draw(st.lists(values(field, known), max_size=20)))
                    continue
                value = draw(values(field, known))
                if field.message_type is None:
                    with suppress(ValueError):  # surrogates: protobuf's own client cannot send them
                        setattr(message, field.name, value)
                else:
                    getattr(message, field.name).CopyFrom(value)
        return message

    return build()


def send(channel: Any, method: Any, requests: list[bytes], seconds: float = 2.0) -> grpc.StatusCode:
    """Call a method with serialised requests; the status it ends with. An answer is read up to its first pieces."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.client_streaming:
            call = channel.stream_stream(path)(iter(requests), timeout=seconds)
        elif method.server_streaming:
            call = channel.unary_stream(path)(requests[0], timeout=seconds)
        else:
            channel.unary_unary(path)(requests[0], timeout=seconds)
            return grpc.StatusCode.OK
        for number, _ in enumerate(call):
            if number == 20:
                call.cancel()
                return grpc.StatusCode.OK
        return call.code()  # type: ignore[no-any-return]
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_every_request_is_answered_properly(target: Served, method: Any, seconds: float) -> None:
    end = time.monotonic() + seconds / 2
    with target.client() as client, grpc.insecure_channel(target.address) as channel:
        known = [client.read(TEXT).id, client.read("a\n").id]
        request = messages(method.input_type, known)
        seen: set[grpc.StatusCode] = set()

        @settings(max_examples=20, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(st.lists(request, min_size=1, max_size=4 if method.client_streaming else 1))
        def run(made: list[Message]) -> None:
            code = send(channel, method, [message.SerializeToString() for message in made])
            seen.add(code)
            assert code in ANSWERS, made

        rounds = 0
        while rounds == 0 or time.monotonic() < end:
            seed(rounds)(run)()
            rounds += 1
        assert seen


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few bytes flipped, cut out, doubled or put in."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(out) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del out[at : at + chance.randint(1, 8)]
        elif kind == 2:
            out[at:at] = out[at : at + chance.randint(1, 40)]
        elif kind == 3:
            out[at:at] = chance.randbytes(chance.randint(1, 8))
        elif at < len(out):
            out[at] = chance.choice((0x00, 0x7F, 0x80, 0xFF))
    return bytes(out)


def test_mutated_messages_are_answered_properly(target: Served, seconds: float) -> None:
    """Bytes that were a message before some of them changed, to every method, also of another's message."""
    chance = random.Random(7)
    end = time.monotonic() + seconds
    with target.client() as client, grpc.insecure_channel(target.address) as channel:
        identity = client.read(TEXT).id
        seeds = [
            documents_pb2.ReadDocumentRequest(options=documents_pb2.ReadDocumentOptions(size_bytes=9, system="Be brief.")),
            documents_pb2.ReadDocumentRequest(text=TEXT.encode()),
            documents_pb2.ListDocumentsRequest(page_size=3, page_token="after-1"),
            documents_pb2.RenderPagesRequest(id=identity, first_page=1, page_count=1),
            answers_pb2.AskRequest(
                document_id=identity, question="What?", sampling=answers_pb2.SamplingOptions(max_new_tokens=4, temperature=0.5, seed=3)
            ),
            answers_pb2.AskRequest(text="a: b\n", question="What is a?", sampling=answers_pb2.SamplingOptions(max_new_tokens=4)),
            answers_pb2.AskRequest(
                text="a: b\n",
                question="What is a?",
                sampling=answers_pb2.SamplingOptions(max_new_tokens=4, top_k=2, top_p=0.5, stop=["b", "c"], regex="[a-z]{1,4}"),
                system="Be brief.",
                thinking=True,
            ),
            answers_pb2.AskRequest(text=TEXT, question="What is the weight?", strategy=answers_pb2.STRATEGY_AUTO),
            answers_pb2.AskRequest(
                text=TEXT * 20,
                question="What is the weight?",
                sampling=answers_pb2.SamplingOptions(max_new_tokens=4),
                strategy=answers_pb2.STRATEGY_MAP_REDUCE,
            ),
        ]
        known = [seed.SerializeToString() for seed in seeds]
        calls, seen = 0, set()
        while time.monotonic() < end or calls < LEAST:
            method = chance.choice(METHODS)
            requests = [mutate(chance.choice(known), chance) for _ in range(chance.randint(1, 4))]
            code = send(channel, method, requests)
            seen.add(code)
            calls += 1
            assert code in ANSWERS, (method.full_name, requests)
        assert grpc.StatusCode.INVALID_ARGUMENT in seen


def test_the_methods_are_all_there() -> None:
    assert {method.containing_service.full_name for method in METHODS} == set(SERVICES) and len(METHODS) == 8
