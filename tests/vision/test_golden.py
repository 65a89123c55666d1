"""The gate itself, against encoders that are wrong in one way each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glyph_rt.errors import EncoderError, NonFiniteError, ParityError
from glyph_rt.vision.golden import MAX_ERROR, Golden, GoldenPage, check, measure

RNG = np.random.default_rng(3)
ROWS = np.array([0, 2, 5])
TOKENS = RNG.normal(size=(6, 16)).astype(np.float32)
PAGE = GoldenPage("text", 84, 56, RNG.integers(0, 256, (24, 196), np.uint8), ROWS, TOKENS[ROWS])
GOLDEN = Golden("model", (PAGE, replace(PAGE, name="dense")))


class Fake:
    """A VisionEncoder that returns what it is told."""

    name, out_hidden = "fake", 16

    def __init__(self, tokens: NDArray[np.float32] | None) -> None:
        self.tokens = tokens

    def encode(self, patches: NDArray[np.uint8], width: int, height: int) -> torch.Tensor:
        assert patches.shape == (1, 24, 196) and (width, height) == (84, 56)
        if self.tokens is None:
            raise NonFiniteError("NaN")
        return torch.from_numpy(self.tokens)[None]


def off_by(relative: float, row: int = 2) -> Fake:
    """One value of one row differs, by this much of the range of the golden rows."""
    tokens = TOKENS.copy()
    tokens[row, 0] += relative * float(np.abs(TOKENS[ROWS]).max())
    return Fake(tokens)


@pytest.mark.parametrize("precision", MAX_ERROR)
def test_up_to_the_limit_passes_and_beyond_it_is_refused(precision: str) -> None:
    limit = MAX_ERROR[precision]
    parity = check(off_by(0.2 * limit), GOLDEN, precision)
    assert parity.error == pytest.approx(0.2 * limit, rel=1e-2) and parity.cosine > 0.999
    with pytest.raises(ParityError, match=f"the fake encoder differs .* limits for {precision} are 0.999"):
        check(off_by(1.1 * limit), GOLDEN, precision)


def test_a_turned_token_is_refused_even_when_its_error_is_small() -> None:
    """A token far smaller than the page's range may be all wrong and still be near; its direction tells."""
    tokens = TOKENS.copy()
    tokens[2] *= 1e-3
    page = replace(PAGE, tokens=tokens[ROWS])
    wrong = tokens.copy()
    wrong[2] = -wrong[2]
    with pytest.raises(ParityError, match=r"lowest cosine -1\.0"):
        check(Fake(wrong), Golden("model", (page,)), "bf16")


@pytest.mark.parametrize(
    ("tokens", "said"),
    [(None, "NaN or infinity on golden page 'text'"), (TOKENS[:5], r"\(1, 5, 16\)"), (TOKENS[:, :8], r"\(1, 6, 8\)")],
)
def test_nan_and_other_shapes_are_refused(tokens: NDArray[np.float32] | None, said: str) -> None:
    with pytest.raises(ParityError, match=said):
        measure(Fake(tokens), GOLDEN)


def test_nan_that_an_encoder_lets_through_is_refused() -> None:
    with pytest.raises(ParityError):
        check(off_by(float("nan")), GOLDEN, "bf16")


def test_what_is_not_kept_of_a_page_is_not_looked_at() -> None:
    assert measure(off_by(1.0, row=1), GOLDEN).error == 0


def test_saved_and_loaded_they_are_the_same(tmp_path: Path) -> None:
    saved = GOLDEN.save(tmp_path / "golden.safetensors")
    loaded = Golden.load(tmp_path / "golden.safetensors", "model")
    assert saved.digest == loaded.digest and [file.name for file in tmp_path.iterdir()] == ["golden.safetensors"]
    for page, again in zip(GOLDEN.pages, loaded.pages, strict=True):
        assert (page.name, page.width, page.height) == (again.name, again.width, again.height)
        for part in ("patches", "rows", "tokens"):
            np.testing.assert_array_equal(getattr(page, part), getattr(again, part))
    with pytest.raises(EncoderError, match="no golden pages of this model"):
        Golden.load(tmp_path / "golden.safetensors", "another")
    (tmp_path / "broken").write_bytes(b"x" * 100)
    for path in (tmp_path / "broken", tmp_path / "missing"):
        with pytest.raises(EncoderError, match=r"cannot be read .*; export the model again"):
            Golden.load(path, "model")
