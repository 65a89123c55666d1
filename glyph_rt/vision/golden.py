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

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, GlyphError, NonFiniteError, ParityError
from glyph_rt.vision.encoder import Observable, Selective, VisionEncoder
from glyph_rt.vision.graph import OUTPUT, graph_folder, stages
from glyph_rt.vision.parity import MAX_ERROR, MIN_COSINE, BlockReport, Parity, Stage

SCHEMA = "golden/2"
LARGE = 64  # visual tokens; a golden page of more is left out where encoding it would take long
_ARRAYS = ("patches", "rows", "tokens", "stream")  # of a GoldenPage


@dataclass(frozen=True)
class GoldenPage:
    """A drawn page, and some of what the fp32 oracle made of it.

    patches: uint8 [patches, 196 or 588]; rows: int64 [n], which visual tokens; tokens: fp32 [n, out_hidden], those;
    stream: fp32 [stages, n, hidden], the residual stream at the first patch of each.
    """

    name: str  # "text", "dense", "blank", "full"
    width: int  # px
    height: int  # px
    patches: NDArray[np.uint8]
    rows: NDArray[np.int64]
    tokens: NDArray[np.float32]
    stream: NDArray[np.float32]

    @property
    def large(self) -> bool:
        return len(self.patches) // 4 > LARGE


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
            tensors |= {f"{page.name}.{part}": np.ascontiguousarray(getattr(page, part)) for part in _ARRAYS}  # else: saved wrong
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
                    arrays = (file.get_tensor(f"{name}.{part}") for part in _ARRAYS)
                    pages.append(GoldenPage(name, width, height, *arrays))
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EncoderError(f"golden pages {path} cannot be read ({error}); export the model again") from None
        return cls(model_digest, tuple(pages), digest)


def golden_path(checkpoint: Checkpoint, store: Path, colour: bool) -> Path:
    """Where the golden pages of a checkpoint lie in `store`: beside its graphs."""
    return graph_folder(checkpoint, store) / f"golden-{'colour' if colour else 'grey'}.safetensors"


def check(encoder: VisionEncoder, golden: Golden, precision: str, large: bool = True) -> Parity:
    """The gate: how near `encoder` is to the oracle on every golden page it takes, or without `large` on the small ones.

    Raises ParityError, with the figures and a report per block, when it is further away than `precision` explains on one of them, and
    EncoderError when it takes none of them.
    """
    worst = Parity(1.0, 0.0)
    taken = [page for page in golden.pages if not isinstance(encoder, Selective) or encoder.takes(page.width, page.height)]
    if not taken:
        sizes = ", ".join(sorted({f"{page.width} x {page.height} px" for page in golden.pages}))
        raise EncoderError(f"the {encoder.name} encoder takes none of the golden pages ({sizes}), so nothing can be said of it")
    for page in [page for page in taken if large or not page.large] or taken:
        try:
            worst = worst.and_also(measure(encoder, page, precision))
        except ParityError as error:
            raise explained(error, encoder, page, precision) from None
    return worst


def measure(encoder: VisionEncoder, page: GoldenPage, precision: str) -> Parity:
    """How near `encoder` is on one page. Raises ParityError when that is too far, or it produces NaN, infinity, or another shape."""
    try:
        found = encoder.encode(page.patches[None], page.width, page.height)
    except NonFiniteError:
        found = None
    if found is None or not torch.isfinite(found).all():  # looked for here too: no comparison below would tell
        raise ParityError(f"the {encoder.name} encoder produces NaN or infinity on golden page {page.name!r}", page.name)
    expected = torch.from_numpy(page.tokens)
    if found.shape != (1, len(page.patches) // 4, expected.shape[-1]):
        raise ParityError(f"the {encoder.name} encoder gives {tuple(found.shape)} for golden page {page.name!r}", page.name)
    parity = Parity.of(found[0, torch.from_numpy(page.rows)], expected)
    if not parity.within(precision):
        raise ParityError(
            f"the {encoder.name} encoder differs from the torch oracle on golden page {page.name!r}: {parity}; "
            f"the limits for {precision} are {MIN_COSINE} and {MAX_ERROR[precision]:.0e}",
            page.name,
        )
    return parity


def explained(error: ParityError, encoder: object, page: GoldenPage, precision: str) -> ParityError:
    """`error` with a report per block, or with why there is none."""
    if not isinstance(encoder, Observable):
        return error
    try:
        report = look_into(encoder, page, precision)
    except (GlyphError, RuntimeError, LookupError) as problem:  # the latter: it is so wrong that its blocks are of other shapes
        return ParityError(f"{error}; {problem}", page.name)
    return ParityError(f"{error}; {report.summary}", page.name, str(report))


def look_into(encoder: Observable, page: GoldenPage, precision: str) -> BlockReport:
    """The encoder's residual stream and visual tokens on one page, beside the oracle's."""
    found = encoder.observe(page.patches[None], page.width, page.height)
    rows = torch.from_numpy(page.rows)
    report = [
        Stage.of(name, found[name][0], 4 * rows, torch.from_numpy(expected))
        for name, expected in zip(stages(len(page.stream) - 1), page.stream, strict=True)
    ]
    report.append(Stage.of(OUTPUT, found[OUTPUT][0], rows, torch.from_numpy(page.tokens)))
    return BlockReport(page.name, precision, tuple(report))
