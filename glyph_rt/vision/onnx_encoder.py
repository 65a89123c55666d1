"""The vision tower run by ONNX Runtime, from a graph that `glyph-rt export` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.vision.geometry import VisionGeometry
from glyph_rt.vision.graph import INPUTS, OUTPUT, GraphFacts, stages
from glyph_rt.vision.torch_encoder import VISION_PREFIX, checked_finite, geometry_cache
from glyph_rt.vision.tower import COLOUR_PATCH_BYTES, PATCH_BYTES

_SEEN = "seen_"  # before the name of a value that is looked at


def open_session(checkpoint: Checkpoint, path: Path, providers: list[Any], options: ort.SessionOptions) -> tuple[Any, GraphFacts]:
    """An InferenceSession of an exported graph, and what the graph says of itself. Raises EncoderError when it is not of use."""
    if not path.is_file():
        raise EncoderError(f"no exported vision tower at {path}; make it with: glyph-rt export --model {checkpoint.path}")
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise EncoderError(f"ONNX Runtime cannot open {path}: {str(error).splitlines()[0]}") from None
    return session, GraphFacts.read(session.get_modelmeta().custom_metadata_map, path, checkpoint)


def position_table(checkpoint: Checkpoint) -> Tensor:
    """The checkpoint's position embedding, fp32 [side * side, hidden]. All that an encoder of a graph reads of the checkpoint."""
    (table,) = (tensor for _, tensor in checkpoint.tensors(VISION_PREFIX + "embeddings."))
    return table.float()


def fitted(patches: NDArray[np.uint8], patch_bytes: int, encoder: str) -> NDArray[np.uint8]:
    """Ink patches as a graph takes them: grey ones become three equal planes where it takes colour. EncoderError for the reverse."""
    if patches.shape[-1] == PATCH_BYTES and patch_bytes == COLOUR_PATCH_BYTES:
        return np.tile(patches, 3)
    if patches.shape[-1] != patch_bytes:
        raise EncoderError(
            f"the {encoder} encoder takes grey pages only; choose a --style without colour, or --encoder torch, "
            "or export and build with --colour"
        )
    return np.ascontiguousarray(patches)


class OnnxEncoder:
    """VisionEncoder on ONNX Runtime's CPU provider.

    Raises EncoderError when the file is no such graph, was exported from another checkpoint, or has a precision this provider cannot run
    (ONNX Runtime has no bf16 matrix product on a CPU).
    """

    def __init__(self, checkpoint: Checkpoint, path: Path, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads  # 0: one per core
        self._path = path
        self._provider: Any = "CPUExecutionProvider"
        self._session, self.facts = open_session(checkpoint, path, [self._provider], options)
        self.name = f"onnx-{self.facts.kind.name}"
        self.geometry = geometry_cache(checkpoint, position_table(checkpoint))
        self.out_hidden = int(self.facts.out_hidden)

    def encode(self, patches: NDArray[np.uint8], width: int, height: int) -> Tensor:
        tokens = self._run(fitted(patches, self.facts.kind.patch_bytes, self.name), self.geometry(width, height))
        return checked_finite(tokens, self.name)

    def observe(self, patches: NDArray[np.uint8], width: int, height: int) -> dict[str, Tensor]:
        """By a session of its own, of the graph with more outputs. Needs the onnx package."""
        names = (*stages(int(self.facts.depth)), OUTPUT)
        model = _observed(self._path, names)
        options = ort.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._path.parent))
        feed = self._feed(fitted(patches, self.facts.kind.patch_bytes, self.name), self.geometry(width, height))
        try:
            session = ort.InferenceSession(model, options, providers=[self._provider])
            found = session.run([_SEEN + name for name in names], feed)
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise EncoderError(f"ONNX Runtime cannot look into {self._path}: {str(error).splitlines()[0]}") from None
        return {name: torch.from_numpy(values) for name, values in zip(names, found, strict=True)}

    def _run(self, patches: NDArray[np.uint8], geometry: VisionGeometry) -> Tensor:
        """Visual tokens fp32 on the CPU."""
        (tokens,) = self._session.run([OUTPUT], self._feed(patches, geometry))
        return torch.from_numpy(tokens).float()

    def _feed(self, patches: NDArray[np.uint8], geometry: VisionGeometry) -> dict[str, NDArray[Any]]:
        values = (patches, geometry.positions.numpy(), geometry.cos.numpy(), geometry.sin.numpy())
        return dict(zip(INPUTS, values, strict=True))


def _observed(path: Path, names: Sequence[str]) -> bytes:
    """A graph that also gives these of its values, in fp32 and under other names; its weights stay where they are."""
    try:
        import onnx
    except ImportError:
        raise EncoderError("to look into it block by block: pip install 'glyph-rt[export]'") from None
    model = onnx.load(path, load_external_data=False)
    for name in names:
        model.graph.node.append(onnx.helper.make_node("Cast", [name], [_SEEN + name], to=onnx.TensorProto.FLOAT))
        model.graph.output.append(onnx.helper.make_tensor_value_info(_SEEN + name, onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())
