"""Exported vision towers: which variants there are, where each lies, and what its file says of itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, OptionError
from glyph_rt.identity import digest
from glyph_rt.vision.tower import COLOUR_PATCH_BYTES, PATCH_BYTES

# opset by flavour. portable spells attention out, so that every ONNX Runtime and TensorRT 10.3 take it; modern has one Attention
# operator, for TensorRT 10.15 and later, TensorRT for RTX, and ONNX Runtime's fused kernels.
FLAVOURS = {"portable": 18, "modern": 23}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")  # int8: the blocks' products with weights; all else as in fp16
INT8_OPSET = 19  # the first in which what is quantised may be half precision
INPUTS = ("patches", "positions", "cos", "sin")
OUTPUT = "visual_tokens"  # [pages, visual tokens, out_hidden] in the graph's precision
EXPORTER = "3"  # raised whenever the same checkpoint would give another graph, or other metadata
_PREFIX = "glyph_rt."


def default_store() -> Path:
    """Where exported graphs live: $XDG_CACHE_HOME/glyph-rt/engines, or ~/.cache/glyph-rt/engines."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "glyph-rt" / "engines"


@dataclass(frozen=True)
class GraphKind:
    """One variant of the exported tower. Raises OptionError for a flavour or a precision there is not."""

    flavour: str = "portable"
    precision: str = "fp32"
    colour: bool = False  # takes patches of 588 bytes; a grey page then goes in with three equal planes

    def __post_init__(self) -> None:
        for what, value, choices in (("flavour", self.flavour, FLAVOURS), ("precision", self.precision, PRECISIONS)):
            if value not in choices:
                raise OptionError(f"no {what} {value!r}; choose one of: {', '.join(choices)}")

    @property
    def name(self) -> str:
        return f"{self.flavour}-{self.precision}-{'colour' if self.colour else 'grey'}"

    @property
    def opset(self) -> int:
        return max(FLAVOURS[self.flavour], INT8_OPSET) if self.precision == "int8" else FLAVOURS[self.flavour]

    @property
    def float_precision(self) -> str:
        """Of what is not quantised, and of the output."""
        return "fp16" if self.precision == "int8" else self.precision

    @property
    def patch_bytes(self) -> int:
        return COLOUR_PATCH_BYTES if self.colour else PATCH_BYTES

    def path(self, checkpoint: Checkpoint, store: Path) -> Path:
        """Where `store` keeps this graph of `checkpoint`. Reads every weight file once, for the digest."""
        return graph_folder(checkpoint, store) / f"vision-{self.name}.onnx"


ALL_KINDS = tuple(GraphKind(f, p, c) for f in FLAVOURS for p in PRECISIONS for c in (False, True))


@dataclass(frozen=True)
class GraphFacts:
    """What a graph's metadata says: strings, so that any runtime can read them."""

    model_digest: str
    flavour: str
    precision: str
    channels: str  # 1 or 3
    patch_bytes: str  # 196 or 588: length of the last axis of `patches`
    hidden: str  # width of `positions`
    heads: str
    head_dim: str  # width of `cos` and `sin`
    depth: str
    out_hidden: str
    golden_digest: str  # of the golden pages this graph was exported with
    exporter: str = EXPORTER

    @classmethod
    def of(cls, kind: GraphKind, checkpoint: Checkpoint, golden_digest: str) -> GraphFacts:
        vision = checkpoint.config.vision_config
        return cls(
            model_digest=checkpoint.digest,
            flavour=kind.flavour,
            precision=kind.precision,
            channels="3" if kind.colour else "1",
            patch_bytes=str(kind.patch_bytes),
            hidden=str(vision.hidden_size),
            heads=str(vision.num_heads),
            head_dim=str(vision.hidden_size // vision.num_heads),
            depth=str(vision.depth),
            out_hidden=str(vision.out_hidden_size),
            golden_digest=golden_digest,
        )

    @classmethod
    def read(cls, metadata: Mapping[str, str], path: Path, checkpoint: Checkpoint) -> GraphFacts:
        """The facts in an ONNX file's metadata. Raises EncoderError when it is not this checkpoint's, or not of this version."""
        again = f"run glyph-rt export --model {checkpoint.path} again"
        names = cls.__dataclass_fields__
        if metadata.get(_PREFIX + "model_digest") not in (None, checkpoint.digest):
            raise EncoderError(f"{path} was exported from another checkpoint; {again}")
        if metadata.get(_PREFIX + "exporter") != EXPORTER or not all(_PREFIX + name in metadata for name in names):
            raise EncoderError(f"{path} was not written by this version of glyph-rt; {again}")
        return cls(**{name: metadata[_PREFIX + name] for name in names})

    @property
    def kind(self) -> GraphKind:
        return GraphKind(self.flavour, self.precision, self.channels == "3")

    def metadata(self) -> dict[str, str]:
        """As it is stored in the ONNX file."""
        return {_PREFIX + name: getattr(self, name) for name in self.__dataclass_fields__}


def stages(depth: int) -> tuple[str, ...]:
    """Names of the residual stream [pages, patches, hidden] where an encoder can be looked into: values of the graph, not its outputs."""
    return ("embedding", *(f"block_{index}" for index in range(depth)))


def graph_folder(checkpoint: Checkpoint, store: Path) -> Path:
    """Where `store` keeps everything exported from `checkpoint`: named by its weights, so a changed model never meets an old graph."""
    return store / checkpoint.digest[:16]


def graph_digest(path: Path) -> str:
    """Identity of a graph: of its file, and of the weights beside it. Reads them once."""
    fields: list[str] = []
    for file in (path, Path(f"{path}.data")):
        if file.is_file():
            with file.open("rb") as stream:
                fields.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digest("graph/1", *fields)
