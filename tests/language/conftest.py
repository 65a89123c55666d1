"""Shared parts of the language tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from glyph_rt import Document, Runtime
from tests.conftest import SMALL_PAGES, TEXT
from tests.language.checkpoints import write_thinking_model


@pytest.fixture(scope="session")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model directory with the tokens of GLM-4.1V-Thinking."""
    return write_thinking_model(tmp_path_factory.mktemp("models") / "thinking")


@pytest.fixture(scope="session")
def runtimes(random_model: Path, thinking_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runtime]:
    """Opened once: "reader" quotes, so that drafts are taken; "random" and "thinking" babble."""
    store = tmp_path_factory.mktemp("store")
    return {
        "reader": Runtime.open(encoder="torch", store=store),
        "random": Runtime.open(random_model, encoder="torch", store=store),
        "thinking": Runtime.open(thinking_model, style=SMALL_PAGES, encoder="torch", store=store),
    }


@pytest.fixture(scope="module")
def readings(runtimes: dict[str, Runtime]) -> Iterator[dict[str, Document]]:
    """TEXT, read once by each of them."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(runtime.read(TEXT)) for name, runtime in runtimes.items()}
