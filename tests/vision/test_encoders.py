"""The vision tower against transformers, and every encoder against the torch oracle, on pages our typesetter drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from glyph_rt.export.vision import export_vision
from transformers import Glm4vForConditionalGeneration

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, NonFiniteError, OptionError
from glyph_rt.typeset import PRESETS, Page, Style, Typesetter
from glyph_rt.vision import ProbePage, open_encoder
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.select import TOLERANCE, disagreement, onnx_path
from glyph_rt.vision.torch_encoder import TorchEncoder
from tests.conftest import TEXT, processor_inputs

SIZES = [(280, 140), (56, 28), (28, 28), (588, 840)]


def pages_of(width: int, height: int, count: int, colour: str = "#000000") -> list[Page]:
    style = Style.from_json(PRESETS["reader"].to_json() | {"page-size": f"{width},{height}", "font-color": colour}, "test")
    return list(Typesetter(style).pages(TEXT * 60))[:count]


def stacked(pages: list[Page]) -> np.ndarray:
    return np.stack([page.patches for page in pages])


def assert_agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To fp32 rounding: within 1e-5 of the expected range."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.fixture(scope="module")
def store(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    export_vision(checkpoint, path)
    return path


def probe() -> ProbePage:
    page = pages_of(280, 140, 1)[0]
    return ProbePage(page.patches[None].copy(), 280, 140)


@pytest.mark.parametrize("colour", ["#000000", "#B01030"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_folded_tower_equals_transformers(checkpoint: Checkpoint, width: int, height: int, colour: str) -> None:
    """From the PNG a person sees, through transformers' processor and vision model, to the same visual tokens.

    The reference runs in fp64: in fp32, its sum over 1,176 normalised pixels is further from the truth than the folded sum.
    """
    reference = Glm4vForConditionalGeneration.from_pretrained(checkpoint.path, dtype=torch.float64).eval()
    pages = pages_of(width, height, 2, colour)
    assert pages[0].patches.shape[1] == (196 if colour == "#000000" else 588)
    pixel_values, grid = processor_inputs([page.pixels() for page in pages])
    with torch.inference_mode():
        expected = reference.model.visual(pixel_values.double(), grid_thw=grid).pooler_output.float()
    found = TorchEncoder(checkpoint).encode(stacked(pages), width, height)
    assert found.shape == (len(pages), width // 28 * (height // 28), checkpoint.config.text_config.hidden_size)
    assert_agree(found.flatten(0, 1), expected)


@pytest.mark.parametrize(("width", "height"), [*SIZES[:2], SIZES[3]])
@pytest.mark.parametrize("count", [1, 3])
def test_one_graph_serves_every_size_and_count(checkpoint: Checkpoint, store: Path, width: int, height: int, count: int) -> None:
    pages = stacked(pages_of(width, height, count))
    expected = TorchEncoder(checkpoint).encode(pages, width, height)
    found = OnnxEncoder(checkpoint, onnx_path(checkpoint, store)).encode(pages, width, height)
    assert_agree(found, expected)


def test_an_exported_graph_says_that_it_takes_grey_pages_only(checkpoint: Checkpoint, store: Path) -> None:
    pages = stacked(pages_of(280, 140, 1, "#B01030"))
    with pytest.raises(EncoderError, match="grey pages only"):
        OnnxEncoder(checkpoint, onnx_path(checkpoint, store)).encode(pages, 280, 140)


def test_a_page_is_encoded_alike_alone_and_in_a_batch(checkpoint: Checkpoint) -> None:
    encoder, pages = TorchEncoder(checkpoint), stacked(pages_of(280, 140, 5))
    together = encoder.encode(pages, 280, 140)
    alone = torch.cat([encoder.encode(page[None], 280, 140) for page in pages])
    assert_agree(together, alone)


@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_without_an_export_the_oracle_is_used(checkpoint: Checkpoint, tmp_path: Path, choice: str) -> None:
    assert open_encoder(checkpoint, choice, probe(), tmp_path).name == "torch"
    assert open_encoder(checkpoint, choice, probe(), tmp_path / "none").name == "torch"


def test_an_export_is_used_when_named(checkpoint: Checkpoint, store: Path) -> None:
    encoder = open_encoder(checkpoint, "onnx", probe(), store)
    assert encoder.name == "onnx"
    assert disagreement(encoder, TorchEncoder(checkpoint), probe()) < TOLERANCE / 10


def test_naming_what_is_not_there_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="choose one of: auto, torch, onnx"):
        open_encoder(checkpoint, "tensorrt", probe(), tmp_path)
    with pytest.raises(EncoderError, match="glyph-rt export"):
        open_encoder(checkpoint, "onnx", probe(), tmp_path)
    with pytest.raises(EncoderError, match="glyph-rt export"):
        open_encoder(checkpoint, "onnx", probe(), tmp_path / "none")


def test_a_graph_that_disagrees_is_refused_and_auto_falls_back(checkpoint: Checkpoint, store: Path, tmp_path: Path) -> None:
    """Bend one weight: the graph still opens, and only the parity gate can tell."""
    model = onnx.load(onnx_path(checkpoint, store))
    largest = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * 1.5).tobytes()
    bent = onnx_path(checkpoint, tmp_path)
    bent.parent.mkdir(parents=True)
    onnx.save(model, bent)
    with pytest.raises(EncoderError, match="differs from the torch oracle"):
        open_encoder(checkpoint, "onnx", probe(), tmp_path)
    assert open_encoder(checkpoint, "auto", probe(), tmp_path).name == "torch"


def test_foreign_and_broken_graphs_are_refused(checkpoint: Checkpoint, store: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_path(checkpoint, store))
    onnx.helper.set_model_props(model, {"glyph_rt.model_digest": "of another checkpoint"})
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(EncoderError, match="exported from another checkpoint"):
        OnnxEncoder(checkpoint, tmp_path / "foreign.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07not a graph")
    with pytest.raises(EncoderError, match="cannot open"):
        OnnxEncoder(checkpoint, tmp_path / "broken.onnx")


def test_nan_is_an_error_and_not_an_answer(checkpoint: Checkpoint) -> None:
    encoder = TorchEncoder(checkpoint)
    encoder.tower.patch.bias.data = encoder.tower.patch.bias + float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        encoder.encode(stacked(pages_of(280, 140, 1)), 280, 140)
