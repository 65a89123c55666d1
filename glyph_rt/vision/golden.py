"""Golden pages: drawn pages with the visual tokens the oracle made of them, and the gate every other encoder has to pass.

They are written at export, beside the graphs, and whatever runs a graph must reproduce them when it is built and every time it is
loaded: an encoder that is wrong in a fused kernel, by overflow or by a stale file gives plausible text, and nothing else would tell.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, NonFiniteError, ParityError
from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.graph import graph_folder

SCHEMA = "golden/1"
MIN_COSINE = 0.999  # of every visual token with the oracle's
# Largest difference from the oracle, relative to its largest value. Measured with the embedded reader and random towers of 1 and 8 blocks
# (tests/vision/test_differential.py), the largest were 1.9e-6, 2.3e-3 and 2.2e-2: room for depth, none for a wrong kernel.
MAX_ERROR = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}


@dataclass(frozen=True)
class GoldenPage:
    """A drawn page, and some of the visual tokens that the fp32 oracle made of it.

    patches: uint8 [patches, 196 or 588]; rows: int64 [n], which visual tokens; tokens: fp32 [n, out_hidden], those.
    """

    name: str  # "text", "dense", "blank"
    width: int  # px
    height: int  # px
    patches: NDArray[np.uint8]
    rows: NDArray[np.int64]
    tokens: NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """The golden pages of one checkpoint, all grey or all with colour."""

    model_digest: str
    pages: tuple[GoldenPage, ...]
    digest: str = ""  # SHA-256 of the file; set by `load`

    def save(self, path: Path) -> Golden:
        """Write them to `path`, whole or not at all, and return them with their digest."""
        tensors: dict[str, NDArray[np.generic]] = {}
        for page in self.pages:
            tensors |= {f"{page.name}.patches": page.patches, f"{page.name}.rows": page.rows, f"{page.name}.tokens": page.tokens}
        sizes = " ".join(f"{page.name}:{page.width}x{page.height}" for page in self.pages)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(save(tensors, {"schema": SCHEMA, "model_digest": self.model_digest, "pages": sizes}))
        part.replace(path)
        return Golden.load(path, self.model_digest)

    @classmethod
    def load(cls, path: Path, model_digest: str) -> Golden:
        """Read them. Raises EncoderError when the file is missing, broken, or of another model."""
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                if (metadata.get("schema"), metadata.get("model_digest")) != (SCHEMA, model_digest):
                    raise EncoderError(f"{path} holds no golden pages of this model and version; export the model again")
                pages = []
                for entry in metadata["pages"].split():
                    name, size = entry.split(":")
                    width, height = map(int, size.split("x"))
                    arrays = (file.get_tensor(f"{name}.{part}") for part in ("patches", "rows", "tokens"))
                    pages.append(GoldenPage(name, width, height, *arrays))
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EncoderError(f"golden pages {path} cannot be read ({error}); export the model again") from None
        return cls(model_digest, tuple(pages), digest)


@dataclass(frozen=True)
class Parity:
    """How far an encoder is from the oracle on golden pages."""

    cosine: float  # the lowest of any visual token
    error: float  # the largest difference, relative to the page's largest value
    page: str  # where that was

    def __str__(self) -> str:
        return f"lowest cosine {self.cosine:.6f}, largest error {self.error:.1e} of the range (page {self.page!r})"


def golden_path(checkpoint: Checkpoint, store: Path, colour: bool) -> Path:
    """Where the golden pages of a checkpoint lie in `store`: beside its graphs."""
    return graph_folder(checkpoint, store) / f"golden-{'colour' if colour else 'grey'}.safetensors"


def measure(encoder: VisionEncoder, golden: Golden) -> Parity:
    """How `encoder` does on every golden page. Raises ParityError when it produces NaN, infinity, or another shape."""
    worst = Parity(1.0, 0.0, golden.pages[0].name)
    for page in golden.pages:
        try:
            found = encoder.encode(page.patches[None], page.width, page.height)
        except NonFiniteError:
            found = None
        if found is None or not torch.isfinite(found).all():  # looked for here too: no comparison below would tell
            raise ParityError(f"the {encoder.name} encoder produces NaN or infinity on golden page {page.name!r}")
        expected = torch.from_numpy(page.tokens)
        if found.shape != (1, len(page.patches) // 4, expected.shape[-1]):
            raise ParityError(f"the {encoder.name} encoder gives {tuple(found.shape)} for golden page {page.name!r}")
        parity = compare(found[0, torch.from_numpy(page.rows)], expected, page.name)
        worse = parity if parity.error > worst.error else worst
        worst = Parity(min(worst.cosine, parity.cosine), worse.error, worse.page)
    return worst


def compare(found: Tensor, expected: Tensor, page: str) -> Parity:
    """Parity of visual tokens fp32 [tokens, out_hidden] with the oracle's."""
    cosine = torch.cosine_similarity(found.double(), expected.double(), -1).min()
    return Parity(float(cosine), float((found - expected).abs().max() / expected.abs().max()), page)


def check(encoder: VisionEncoder, golden: Golden, precision: str) -> Parity:
    """The gate. Raises ParityError, with the figures, when `encoder` is further from the oracle than `precision` explains."""
    parity = measure(encoder, golden)
    if parity.cosine < MIN_COSINE or parity.error > MAX_ERROR[precision]:
        raise ParityError(
            f"the {encoder.name} encoder differs from the torch oracle: {parity}; "
            f"the limits for {precision} are {MIN_COSINE} and {MAX_ERROR[precision]:.0e}"
        )
    return parity
