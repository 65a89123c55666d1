"""The contract with clients: generated code is current, nothing breaks, and it reads like one hand wrote it."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

REPOSITORY = Path(__file__).parents[2]
GENERATOR: dict[str, Any] = runpy.run_path(str(REPOSITORY / "proto" / "generate.py"))
PACKAGE = "glyph_rt.v1"
# What a field is on the wire and in clients' code. proto3's `optional` decides whether absence can be told.
SHAPE = ("number", "type", "label", "type_name", "proto3_optional")


def ours(descriptors: FileDescriptorSet) -> list[FileDescriptorProto]:
    return [file for file in descriptors.file if file.package == PACKAGE]


def load(path: Path) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(path.read_bytes())


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    file = tmp_path_factory.mktemp("proto") / "contract.binpb"
    GENERATOR["write_descriptors"](file, comments=True)
    return load(file)


def test_the_committed_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    GENERATOR["generate"](tmp_path)
    fresh = {file.name: file.read_text() for file in (tmp_path / "glyph_rt" / "v1").iterdir()}
    committed = {file.name: file.read_text() for file in (REPOSITORY / "glyph_rt" / "v1").iterdir() if file.is_file()}
    assert committed == fresh, "run `make proto`"


def messages(file: FileDescriptorProto) -> dict[str, DescriptorProto]:
    return {message.name: message for message in file.message_type}


def breaking(old: FileDescriptorSet, new: FileDescriptorSet) -> Iterator[str]:
    """What clients built on `old` would lose with `new`."""
    now = {file.name: file for file in ours(new)}
    for file in ours(old):
        if file.name not in now:
            yield f"{file.name} is gone"
            continue
        current = now[file.name]
        found = messages(current)
        for name, message in messages(file).items():
            if name not in found:
                yield f"message {name} is gone"
                continue
            yield from _fields(message, found[name])
        enums = {enum.name: {(v.name, v.number) for v in enum.value} for enum in current.enum_type}
        for enum in file.enum_type:
            yield from (f"{v.name} is gone or renumbered" for v in enum.value if (v.name, v.number) not in enums.get(enum.name, set()))
        methods = {(s.name, m.name): m for s in current.service for m in s.method}
        for service in file.service:
            yield from (f"{service.name}.{m.name} changed" for m in service.method if methods.get((service.name, m.name)) != m)


def _fields(old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    def shape(message: DescriptorProto, field: FieldDescriptorProto) -> tuple[object, ...]:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        return (*(getattr(field, name) for name in SHAPE), oneof)

    found = {field.name: shape(new, field) for field in new.field}
    for field in old.field:
        if field.name not in found:
            yield f"{old.name}.{field.name} is gone"
        elif found[field.name] != shape(old, field):
            yield f"{old.name}.{field.name} changed"


def test_nothing_that_clients_were_built_on_changed(contract: FileDescriptorSet) -> None:
    baseline = load(GENERATOR["BASELINE"])
    assert list(breaking(baseline, contract)) == []
    assert list(breaking(contract, baseline)) == [], "something was added: `python proto/generate.py --baseline` holds later changes to it"


def test_breaking_changes_are_seen(contract: FileDescriptorSet) -> None:
    """The check itself: removed, renumbered, retyped, moved out of its oneof; and what was added is no break."""

    def changed(what: str) -> list[str]:
        new = FileDescriptorSet()
        new.CopyFrom(contract)
        file = next(f for f in new.file if f.name.endswith("answers.proto"))
        ask = messages(file)["AskRequest"]
        if what == "removed":
            del ask.field[2]
        elif what == "renumbered":
            ask.field[2].number = 9
        elif what == "retyped":
            ask.field[2].type = FieldDescriptorProto.TYPE_BYTES
        elif what == "oneof":
            ask.field[0].ClearField("oneof_index")
        elif what == "enum":
            next(enum for enum in file.enum_type if enum.name == "AnswerChannel").value[1].number = 7
        elif what == "method":
            file.service[0].method[0].server_streaming = False
        elif what == "message":
            del file.message_type[0]
        else:
            ask.field.add(name="later", number=99, type=FieldDescriptorProto.TYPE_STRING)
        return list(breaking(contract, new))

    assert changed("removed") == ["AskRequest.question is gone"]
    assert changed("renumbered") == changed("retyped") == ["AskRequest.question changed"]
    assert changed("oneof") == ["AskRequest.document_id changed"]
    assert changed("enum") == ["ANSWER_CHANNEL_ANSWER is gone or renumbered"]
    assert changed("method") == ["AnswerService.Ask changed"]
    assert changed("message") == ["message AskRequest is gone"]
    assert changed("added") == []


def test_names_follow_buf_standard(contract: FileDescriptorSet) -> None:
    """The rules of buf's STANDARD set that protoc does not enforce itself, as far as this contract can break them."""
    requests: list[str] = []
    for file in ours(contract):
        assert file.name.startswith("glyph_rt/v1/") and file.syntax == "proto3"
        for service in file.service:
            assert service.name.endswith("Service")
            for method in service.method:
                assert method.input_type == f".{PACKAGE}.{method.name}Request"
                assert method.output_type == f".{PACKAGE}.{method.name}Response"
                requests += [method.input_type, method.output_type]
        for enum in file.enum_type:
            prefix = "".join("_" * (c.isupper() and i > 0) + c.upper() for i, c in enumerate(enum.name))
            assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
            assert all(value.name.startswith(prefix + "_") for value in enum.value)
        for message in file.message_type:
            assert all(field.name == field.name.lower() for field in message.field)
    assert len(requests) == len(set(requests)), "request and response messages belong to one method each"


def test_everything_is_documented(contract: FileDescriptorSet) -> None:
    """A comment before every service, method, message, oneof, field, enum and value."""
    for file in ours(contract):
        commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
        places: list[tuple[int, ...]] = []
        for i, message in enumerate(file.message_type):
            synthetic = sum(field.proto3_optional for field in message.field)
            places += [(4, i), *((4, i, 2, j) for j in range(len(message.field)))]
            places += [(4, i, 8, j) for j in range(len(message.oneof_decl) - synthetic)]
        for i, enum in enumerate(file.enum_type):
            places += [(5, i), *((5, i, 2, j) for j in range(len(enum.value)))]
        for i, service in enumerate(file.service):
            places += [(6, i), *((6, i, 2, j) for j in range(len(service.method)))]
        assert [place for place in places if place not in commented] == [], file.name
