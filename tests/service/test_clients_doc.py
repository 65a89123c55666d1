"""docs/clients.md: its Python runs, and every name in its other languages is one of the contract's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor

from glyph_rt.v1 import answers_pb2, documents_pb2, runtime_pb2
from tests.service.conftest import PATIENCE_S, Served

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
MODULES = (documents_pb2, answers_pb2, runtime_pb2)
MESSAGES: dict[str, Descriptor] = {name: message for module in MODULES for name, message in module.DESCRIPTOR.message_types_by_name.items()}
METHODS = {method.name for module in MODULES for service in module.DESCRIPTOR.services_by_name.values() for method in service.methods}
SERVICES = {name for module in MODULES for name in module.DESCRIPTOR.services_by_name}
FIELDS = {field.name for message in MESSAGES.values() for field in message.fields}
ONEOFS = {oneof.name for message in MESSAGES.values() for oneof in message.oneofs}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def snake(name: str) -> str:
    """SizeBytes and sizeBytes to size_bytes."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("block", blocks("python"), ids=["client", "asyncio"])
def test_the_python_runs(serve: Served, block: str) -> None:
    """As it stands, but for the address, and for long answers, since a model without training does not end them."""
    assert "127.0.0.1:50051" in block
    script = block.replace("127.0.0.1:50051", serve.address).replace("document=document.id)", "document=document.id, max_new_tokens=8)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0 and done.stdout, done.stderr
    assert len(serve.server.desk.library) == 0


def test_the_gos_names_are_the_contracts() -> None:
    [block] = blocks("go")
    assert set(re.findall(r"pb\.New(\w+)Client", block)) <= SERVICES
    made = re.findall(r"pb\.(\w+)\{", block)
    assert made
    for name in made:
        message, _, wrapped = name.partition("_")  # AskRequest_DocumentId wraps a oneof's field
        assert message in MESSAGES, name
        assert not wrapped or snake(wrapped) in MESSAGES[message].fields_by_name, name
    assert {snake(name) for name in re.findall(r"\b(\w+):\s", block)} <= FIELDS | ONEOFS
    assert {snake(name) for name in re.findall(r"\.Get([A-Z]\w*)\(", block)} <= FIELDS
    assert set(re.findall(r"Client\(conn\)\.(\w+)\(", block)) == {"ReadDocument", "Ask"} <= METHODS


def test_the_typescripts_names_are_the_contracts() -> None:
    [block] = blocks("ts")
    assert set(re.findall(r"v1\.(\w+)\(", block)) == {"DocumentService", "AnswerService"} <= SERVICES
    assert set(re.findall(r"(?:documents|answers)\.([A-Z]\w+)\(", block)) == {"ReadDocument", "Ask"} <= METHODS
    read = {part for path in re.findall(r"response((?:\.\w+)+)", block) for part in path.strip(".").split(".")}
    sent = {name for literal in re.findall(r"(?:write|Ask)\(\{(.*?)\}[,)]", block) for name in re.findall(r"(\w+):", literal)}
    assert {snake(name) for name in read | sent} <= FIELDS | ONEOFS
    assert set(re.findall(r'event === "(\w+)"', block)) <= FIELDS


def test_the_grpcurl_lines_are_requests() -> None:
    [block] = blocks("sh")
    for service, method in re.findall(r"glyph_rt\.v1\.(\w+)/(\w+)", block):
        assert service in SERVICES and method in METHODS
    [body] = re.findall(r"-d '(.*?)'", block)
    assert set(json.loads(body)) <= set(MESSAGES["AskRequest"].fields_by_name)
