"""The vision tower run by ONNX Runtime on an NVIDIA GPU."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.vision.device import GpuUse
from glyph_rt.vision.geometry import VisionGeometry
from glyph_rt.vision.graph import INPUTS, OUTPUT
from glyph_rt.vision.onnx_encoder import OnnxEncoder, open_session, position_table
from glyph_rt.vision.torch_encoder import DTYPES, geometry_cache

_ONNX_TYPES = {torch.float32: 1, torch.uint8: 2, torch.float16: 10, torch.bfloat16: 16}  # TensorProto.DataType


class OnnxCudaEncoder(OnnxEncoder):
    """VisionEncoder on ONNX Runtime's CUDA provider. Not run on a GPU yet: no machine of ours had one.

    Raises EncoderError where the provider cannot be loaded, or would leave a part of the graph to the CPU: by itself, ONNX Runtime
    would run everything there without a word.
    """

    def __init__(self, checkpoint: Checkpoint, path: Path, use: GpuUse | None = None) -> None:
        if not torch.cuda.is_available():
            raise EncoderError("ONNX Runtime's CUDA provider needs a GPU that torch can use; choose --encoder onnx or torch")
        use = use or GpuUse()
        # One stream for uploads, the graph and the download. On a stream of its own, ONNX Runtime would not wait for the uploads.
        self._device = torch.device("cuda", use.index)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        options = ort.SessionOptions()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # TF32, its default, has ten bits of a number: not what the parts that are kept in fp32 are kept in fp32 for.
        common = {"device_id": use.index, "use_tf32": "0"}
        provider = common | {"user_compute_stream": str(self._stream.cuda_stream)}
        if use.workspace is not None:  # the arena holds the weights too; what cuBLAS and cuDNN take for themselves is beside it
            provider |= {"gpu_mem_limit": str(use.workspace + _weight_bytes(path)), "arena_extend_strategy": "kSameAsRequested"}
        self._path, self._provider = path, ("CUDAExecutionProvider", common)  # to look into: on a stream of its own
        self._session, self.facts = open_session(checkpoint, path, [("CUDAExecutionProvider", provider)], options)
        if self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise EncoderError("ONNX Runtime could not load its CUDA provider; install onnxruntime-gpu with its CUDA and cuDNN libraries")
        self.name = f"onnx-cuda-{self.facts.kind.name}"
        self.geometry = geometry_cache(checkpoint, position_table(checkpoint))
        self.out_hidden = int(self.facts.out_hidden)
        self._one_at_a_time = threading.Lock()  # the session is bound to one stream

    def _run(self, patches: NDArray[np.uint8], geometry: VisionGeometry) -> Tensor:
        host = (torch.from_numpy(patches), geometry.positions, geometry.cos, geometry.sin)
        with self._one_at_a_time, torch.cuda.stream(self._stream):
            inputs = [tensor.contiguous().to(self._device, non_blocking=True) for tensor in host]
            shape = (patches.shape[0], patches.shape[1] // 4, self.out_hidden)
            tokens = torch.empty(shape, dtype=DTYPES[self.facts.kind.float_precision], device=self._device)
            binding = self._session.io_binding()
            for name, tensor in zip(INPUTS, inputs, strict=True):
                binding.bind_input(name, "cuda", self._device.index, _ONNX_TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
            binding.bind_output(OUTPUT, "cuda", self._device.index, _ONNX_TYPES[tokens.dtype], shape, tokens.data_ptr())
            self._session.run_with_iobinding(binding)
            return tokens.float().cpu()  # waits for this stream


def _weight_bytes(path: Path) -> int:
    """Of a graph's weights, wherever they lie."""
    return sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.is_file())
