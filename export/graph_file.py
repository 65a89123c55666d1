"""An exported graph's file, as an engine is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from glyph_rt.errors import BuildError
from glyph_rt.vision.graph import graph_digest

# ONNX Runtime needs this to keep softmax in fp32; TensorRT's parser refuses graphs that have it, and its fused kernels keep it so anyway.
_NOT_FOR_TENSORRT = "softmax_precision"


@dataclass(frozen=True)
class GraphFile:
    """A graph without the weights that lie beside it."""

    path: Path
    metadata: dict[str, str]
    model: bytes  # as TensorRT's parser takes it

    @classmethod
    def open(cls, path: Path) -> GraphFile:
        """Raises BuildError when there is no graph at `path`."""
        if not path.is_file():
            raise BuildError(f"no ONNX graph at {path}; make one with glyph-rt export")
        try:
            model = onnx.load(path, load_external_data=False)
        except (OSError, DecodeError) as error:
            raise BuildError(f"{path} cannot be read as an ONNX graph ({error})") from None
        for node in model.graph.node:
            for attribute in [a for a in node.attribute if a.name == _NOT_FOR_TENSORRT]:
                node.attribute.remove(attribute)
        return cls(path, {entry.key: entry.value for entry in model.metadata_props}, model.SerializeToString())

    @property
    def digest(self) -> str:
        """Identity of the file and of the weights beside it, as the engine's manifest names it."""
        return graph_digest(self.path)
