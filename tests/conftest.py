"""Shared parts: a small random Glm4v in Hugging Face layout, transformers' view of a typeset page, and what keeps chance and haste out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from glyph_rt.export.reader.network import Reader
from glyph_rt.export.reader.package import write_package
from glyph_rt.export.reader.size import Size
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from glyph_rt import Runtime
from glyph_rt.checkpoint import EMBEDDED_READER, Checkpoint
from glyph_rt.typeset import PRESETS, Typesetter

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(2)

# An ordinary run draws the same examples every time and everywhere, however slow the box is, so that what passed once passes again. Look
# further with `--hypothesis-profile=explore`, as often as you like, or with `--hypothesis-seed=N` beside it.
_EXPLORE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("explore", _EXPLORE)
settings.register_profile("ordinary", _EXPLORE, derandomize=True, database=None)
settings.load_profile("ordinary")

# What models with random weights read: small pages, whatever the embedded reader's are.
SMALL_PAGES = PRESETS["reader"].changed("small", page_size=(280, 140))

TEXT = (
    "DELIVERY NOTE\n\norder number: QX-58213\nThe goods were packed at noon and left the\nwarehouse without delay.\n"
    "weight: 417.5 kg\n  carrier: Blue Line\n\nInvoice total: EUR 12,400.00\nEverything was counted twice; nothing is missing.\n"
    "Receiver: Harbor Mills\ndoor code: 7731\n"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=5.0, help="how long each fuzzer of tests/fuzz runs")


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws from torch's own generator is the same whichever tests ran before."""
    torch.manual_seed(0)


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what another thread or process does. The bound only ends a test that would never end."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights, two KV heads, and norms and biases that are not trivial."""
    torch.manual_seed(5)
    size = Size(
        vision_hidden=64,
        vision_depth=2,
        vision_heads=2,
        merger=96,
        hidden=128,
        layers=3,
        heads=4,
        kv_heads=2,
        mlp=160,
        mrope_section=(2, 3, 3),
    )
    reader = Reader(size, 10, 20)
    for parameter in reader.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("models") / "random"
    write_package(reader, Typesetter(SMALL_PAGES), path)
    return path


@pytest.fixture(scope="session")
def checkpoint(random_model: Path) -> Checkpoint:
    return Checkpoint.open(random_model)


@pytest.fixture
def runtime(random_model: Path, tmp_path: Path) -> Iterator[Runtime]:
    """The random model, opened; afterwards no KV memory may be in use."""
    with Runtime.open(random_model, encoder="torch", store=tmp_path) as opened:
        yield opened
        opened.arena.check_integrity()


@pytest.fixture(scope="session")
def reader_runtime() -> Iterator[Runtime]:
    """The embedded reader with its real weights."""
    with Runtime.open(EMBEDDED_READER, encoder="torch") as opened:
        yield opened


def processor_inputs(pages: list[NDArray[np.uint8]]) -> tuple[torch.Tensor, torch.Tensor]:
    """pixel_values and image_grid_thw of grey pages [height, width], by transformers' own image processor, without resizing."""
    from PIL import Image
    from transformers import Glm4vImageProcessorPil

    images = [Image.fromarray(page).convert("RGB") for page in pages]
    batch = Glm4vImageProcessorPil(do_resize=False)(images=images, return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"]
