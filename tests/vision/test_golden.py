"""The gate itself, against encoders that are wrong in one way each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glyph_rt.errors import EncoderError, NonFiniteError, ParityError
from glyph_rt.vision.golden import Golden, GoldenPage, check, look_into, measure
from glyph_rt.vision.graph import OUTPUT
from glyph_rt.vision.parity import MAX_ERROR

RNG = np.random.default_rng(3)
ROWS = np.array([0, 2, 5])
TOKENS = RNG.normal(size=(6, 16)).astype(np.float32)
STREAM = RNG.normal(size=(3, 24, 8)).astype(np.float32)  # after the embedding and two blocks
PAGE = GoldenPage("text", 84, 56, RNG.integers(0, 256, (24, 196), np.uint8), ROWS, TOKENS[ROWS], STREAM[:, 4 * ROWS])
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


class Looked(Fake):
    """One that can be looked into; `stream` is what is found there."""

    def __init__(self, tokens: NDArray[np.float32] | None, stream: NDArray[np.float32]) -> None:
        super().__init__(tokens)
        self.stream = stream

    def observe(self, patches: NDArray[np.uint8], width: int, height: int) -> dict[str, torch.Tensor]:
        tokens = np.full_like(TOKENS, np.nan) if self.tokens is None else self.tokens
        found = dict(zip(("embedding", "block_0", "block_1", OUTPUT), (*self.stream, tokens), strict=True))
        return {name: torch.from_numpy(values)[None] for name, values in found.items()}


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
    with pytest.raises(ParityError, match=said) as caught:
        measure(Fake(tokens), PAGE, "fp32")
    assert (caught.value.page, caught.value.report) == ("text", "")


def test_nan_that_an_encoder_lets_through_is_refused() -> None:
    with pytest.raises(ParityError):
        check(off_by(float("nan")), GOLDEN, "bf16")


def test_what_is_not_kept_of_a_page_is_not_looked_at() -> None:
    assert check(off_by(1.0, row=1), GOLDEN, "fp32").error == 0


@pytest.mark.parametrize(("stage", "name"), [(0, "embedding"), (1, "block_0"), (2, "block_1")])
def test_a_refusal_says_at_which_block_it_goes_off_first(stage: int, name: str) -> None:
    stream = STREAM.copy()
    stream[stage, 20] *= -1  # a whole patch is wrong: 20 is the first of golden row 5
    stream[2, 3, 1:4] = np.inf  # of a patch of which nothing is kept
    with pytest.raises(
        ParityError, match=rf"NaN or infinity on golden page 'text'; the first to go off is {name}: lowest cosine -1\.0"
    ) as caught:
        check(Looked(None, stream), GOLDEN, "fp16")
    lines = caught.value.report.splitlines()
    assert len(lines) == 5 and "limits of fp16" in lines[0]
    assert [line.split(":")[0].split() for line in lines[1 : stage + 1]] == [[n] for n in ("embedding", "block_0", "block_1")[:stage]]
    assert lines[stage + 1].startswith(f"  ! {name}: lowest cosine -1.000000, largest error")
    assert lines[3].endswith("3 of 192 values NaN or infinite") and lines[4].endswith("96 of 96 values NaN or infinite")


def test_an_encoder_that_is_sound_when_looked_into_is_still_refused() -> None:
    wrong = Looked(off_by(1.0).tokens, STREAM)
    assert look_into(Looked(TOKENS, STREAM), PAGE, "fp32").first_off is None
    with pytest.raises(ParityError, match="the first to go off is visual_tokens: "):
        check(wrong, GOLDEN, "fp32")
    wrong.observe = Looked(TOKENS, STREAM).observe  # type: ignore[method-assign]  # as a build without a wrong fusion
    with pytest.raises(ParityError, match="looked into, it is not off at any block"):
        check(wrong, GOLDEN, "fp32")


def test_an_encoder_of_other_blocks_is_refused_without_a_report() -> None:
    with pytest.raises(ParityError, match=r"gives \(1, 5, 16\) for golden page 'text'; .") as caught:
        check(Looked(TOKENS[:5], STREAM[:, :, :4]), GOLDEN, "fp32")
    assert caught.value.report == ""


def test_large_pages_are_left_out_when_told_so() -> None:
    patches = RNG.integers(0, 256, (4 * 65, 196), np.uint8)
    large = replace(PAGE, name="full", width=140, height=364, patches=patches)
    assert large.large and not PAGE.large
    golden = Golden("model", (PAGE, large))
    check(Fake(TOKENS), golden, "fp32", large=False)
    with pytest.raises(AssertionError):  # the fake knows PAGE's size only
        check(Fake(TOKENS), golden, "fp32")


def test_saved_and_loaded_they_are_the_same(tmp_path: Path) -> None:
    saved = GOLDEN.save(tmp_path / "golden.safetensors")
    loaded = Golden.load(tmp_path / "golden.safetensors", "model")
    assert saved.digest == loaded.digest and [file.name for file in tmp_path.iterdir()] == ["golden.safetensors"]
    for page, again in zip(GOLDEN.pages, loaded.pages, strict=True):
        assert (page.name, page.width, page.height) == (again.name, again.width, again.height)
        for part in ("patches", "rows", "tokens", "stream"):
            np.testing.assert_array_equal(getattr(page, part), getattr(again, part))
    with pytest.raises(EncoderError, match="no golden pages of this model"):
        Golden.load(tmp_path / "golden.safetensors", "another")
    (tmp_path / "broken").write_bytes(b"x" * 100)
    for path in (tmp_path / "broken", tmp_path / "missing"):
        with pytest.raises(EncoderError, match=r"cannot be read .*; export the model again"):
            Golden.load(path, "model")
