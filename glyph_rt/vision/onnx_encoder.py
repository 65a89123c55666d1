"""The vision tower run by ONNX Runtime, from a graph that `glyph-rt export` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.vision.torch_encoder import VISION_PREFIX, checked_finite, geometry_cache
from glyph_rt.vision.tower import PATCH_BYTES

INPUTS = ("patches", "positions", "cos", "sin")
OUTPUT = "visual_tokens"
MODEL_DIGEST = "glyph_rt.model_digest"  # metadata key: the checkpoint the graph was exported from


class OnnxEncoder:
    """VisionEncoder on ONNX Runtime's CPU provider, fp32.

    Raises EncoderError when the file is no such graph, or was exported from another checkpoint.
    """

    name = "onnx"

    def __init__(self, checkpoint: Checkpoint, path: Path, threads: int = 0) -> None:
        if not path.is_file():
            raise EncoderError(f"no exported vision tower at {path}; make it with: glyph-rt export --model {checkpoint.path}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads  # 0: one per core
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise EncoderError(f"ONNX Runtime cannot open {path}: {str(error).splitlines()[0]}") from None
        exported_from = self._session.get_modelmeta().custom_metadata_map.get(MODEL_DIGEST)
        if exported_from != checkpoint.digest:
            raise EncoderError(f"{path} was exported from another checkpoint; run glyph-rt export --model {checkpoint.path} again")
        (table,) = (t for _, t in checkpoint.tensors(VISION_PREFIX + "embeddings."))
        self.geometry = geometry_cache(checkpoint, table)
        self.out_hidden = int(checkpoint.config.vision_config.out_hidden_size)

    def encode(self, patches: NDArray[np.uint8], width: int, height: int) -> Tensor:
        if patches.shape[-1] != PATCH_BYTES:
            raise EncoderError("this exported graph takes grey pages only; choose a --style without colour, or --encoder torch")
        geometry = self.geometry(width, height)
        feed = (patches, geometry.positions.numpy(), geometry.cos.numpy(), geometry.sin.numpy())
        (tokens,) = self._session.run([OUTPUT], dict(zip(INPUTS, feed, strict=True)))
        return checked_finite(torch.from_numpy(tokens), self.name)
