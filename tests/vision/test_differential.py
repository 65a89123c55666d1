"""Every flavour and precision that runs here against transformers' Glm4vVisionModel: page shapes, batches, grey and colour.

transformers runs in fp64, from the pixels its own image processor makes of the page that a person sees.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from glyph_rt.export.vision import export_vision

from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.graph import FLAVOURS, GraphKind
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.parity import MIN_COSINE, Parity
from glyph_rt.vision.torch_encoder import TorchEncoder
from tests.conftest import processor_inputs
from tests.vision.parts import GREY, MIDDLE, RED, TINY, pages_of, random_tower, stacked

# Largest difference relative to the range, by precision. Measured over the cases below: 1.9e-6, 2.3e-3, 2.2e-2.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}
SIZES = {"tiny": TINY, "middle": MIDDLE}
SHAPES = [(28, 28, 8), (28, 140, 3), (280, 140, 5), (588, 840, 1), *((84, 56, pages) for pages in (1, 2, 4, 6, 7))]  # px, px, pages
LARGE = [(868, 1288, 2), (1288, 3192, 1)]
GRAPHS = [GraphKind(flavour, precision, colour) for flavour in FLAVOURS for precision in ("fp32", "fp16") for colour in (False, True)]
TORCH = ["fp32", "fp16", "bf16"]
IN_SECONDS = [("tiny", precision) for precision in TORCH] + [("tiny", GraphKind()), ("tiny", GraphKind("modern", "fp16", True))]
# Of the larger tower half of the graphs, in which any two choices meet.
PAIRED = [graph for graph in GRAPHS if (graph.flavour == "modern") ^ (graph.precision == "fp16") ^ graph.colour]
IN_MINUTES = [("tiny", how) for how in (*TORCH, *GRAPHS) if ("tiny", how) not in IN_SECONDS]
IN_MINUTES += [("middle", how) for how in (*TORCH, *PAIRED)]
CASES = [*IN_SECONDS, *(pytest.param(*case, marks=pytest.mark.slow) for case in IN_MINUTES)]


class Towers:
    """Random towers, what transformers makes of pages, and encoders; each is made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tower = cache(lambda size: random_tower(folder / size, SIZES[size]))
        self.expected = cache(self._expected)

    def encoder(self, size: str, how: GraphKind | str) -> VisionEncoder:
        """Of an exported graph, or torch in a precision."""
        checkpoint = self.tower(size)[0]
        if isinstance(how, str):
            return TorchEncoder(checkpoint, precision=how)
        return OnnxEncoder(checkpoint, export_vision(checkpoint, self.folder / "store", how), threads=2)

    def _expected(self, size: str, width: int, height: int, count: int, colour: str) -> tuple[np.ndarray, torch.Tensor]:
        """Patches uint8 [pages, patches, 196 or 588], and transformers' visual tokens fp32 [pages, visual tokens, out_hidden]."""
        pages = pages_of(width, height, count, colour)
        assert len(pages) == count and pages[0].patches.shape[1] == (196 if colour == GREY else 588)
        pixel_values, grid = processor_inputs([page.pixels() for page in pages])
        with torch.inference_mode():
            tokens = self.tower(size)[1](pixel_values.double(), grid_thw=grid).pooler_output
        return stacked(pages), tokens.float().view(count, -1, tokens.shape[-1])


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Towers:
    return Towers(tmp_path_factory.mktemp("towers"))


def assert_equal(towers: Towers, size: str, encoder: VisionEncoder, precision: str, shape: tuple[int, int, int], colour: str) -> None:
    patches, expected = towers.expected(size, *shape, colour)
    found = encoder.encode(patches, *shape[:2])
    assert found.shape == expected.shape
    parity = Parity.of(found.flatten(0, 1), expected.flatten(0, 1))
    print(f"{size} {encoder.name} {shape} {colour}: {parity}")  # shown with -s: what TOLERANCE is set by
    assert parity.error <= TOLERANCE[precision] and parity.cosine >= MIN_COSINE, f"{shape} {colour}: {parity}"


@pytest.mark.parametrize(("size", "how"), CASES, ids=lambda value: value.name if isinstance(value, GraphKind) else str(value))
def test_equals_transformers(towers: Towers, size: str, how: GraphKind | str) -> None:
    encoder = towers.encoder(size, how)
    precision = how if isinstance(how, str) else how.precision
    for colour in (GREY, RED) if isinstance(how, str) or how.colour else (GREY,):
        for shape in SHAPES:
            assert_equal(towers, size, encoder, precision, shape, colour)


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("how", ["fp32", GraphKind(), GraphKind("modern", colour=True)], ids=str)
def test_large_pages_equal_transformers(towers: Towers, how: GraphKind | str, shape: tuple[int, int, int]) -> None:
    """Up to 20,976 patches, of which attention sees every pair."""
    colour = isinstance(how, GraphKind) and how.colour
    assert_equal(towers, "tiny", towers.encoder("tiny", how), "fp32", shape, RED if colour else GREY)
