"""`glyph-rt export`: the vision tower as an ONNX graph."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import time
from pathlib import Path

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, ParityError
from glyph_rt.vision import default_store
from glyph_rt.vision.graph import GraphKind


def run(model: Path | None, out: Path | None, kind: GraphKind) -> None:
    if importlib.util.find_spec("onnxscript") is None:
        raise EncoderError("exporting needs onnx and onnxscript; install them with: pip install 'glyph-rt[export]'")
    from glyph_rt.export.vision import export_vision

    checkpoint, store = Checkpoint.open(model), out or default_store()
    start = time.perf_counter()
    try:
        path: Path = export_vision(checkpoint, store, kind)
    except ParityError as error:  # this model family can overflow in fp16; bf16 has fp32's range
        if kind.precision != "fp16":
            raise
        print(f"{error.report}\nglyph-rt: {error}; exporting in bf16 instead".lstrip(), file=sys.stderr)
        path = export_vision(checkpoint, store, dataclasses.replace(kind, precision="bf16"))
    size = sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.is_file())
    print(f"{path} ({size / 2**20:.1f} MiB, {time.perf_counter() - start:.1f} s)")
