"""Which encoder this box uses: the fastest that agrees with the oracle on a real page."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, OptionError
from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.onnx_encoder import OnnxEncoder
from glyph_rt.vision.torch_encoder import TorchEncoder

CHOICES = ("auto", "torch", "onnx")
TOLERANCE = 1e-3  # fp32 encoders: largest difference from the oracle, relative to its largest value
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbePage:
    """A drawn page on which encoders are compared and timed: ink uint8 [1, patches, 196] and its size in px."""

    patches: NDArray[np.uint8]
    width: int
    height: int


def default_store() -> Path:
    """Where exported graphs live: $XDG_CACHE_HOME/glyph-rt/engines, or ~/.cache/glyph-rt/engines."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "glyph-rt" / "engines"


def onnx_path(checkpoint: Checkpoint, store: Path) -> Path:
    """Where the fp32 graph of this checkpoint belongs in `store`."""
    return store / checkpoint.digest[:16] / "vision-fp32.onnx"


def open_encoder(checkpoint: Checkpoint, choice: str, probe: ProbePage, store: Path) -> VisionEncoder:
    """The encoder `choice` names; "auto" takes ONNX Runtime when it has been exported, agrees, and is faster.

    Raises OptionError for an unknown choice, EncoderError when a named encoder is not there or does not agree.
    """
    if choice not in CHOICES:
        raise OptionError(f"no vision encoder {choice!r}; choose one of: {', '.join(CHOICES)}")
    oracle = TorchEncoder(checkpoint)
    if choice == "torch" or not store.is_dir():  # before the digest, which reads every weight
        if choice == "onnx":
            raise EncoderError(f"no exported graphs in {store}; make one with: glyph-rt export --model {checkpoint.path}")
        return oracle
    path = onnx_path(checkpoint, store)
    if choice == "auto" and not path.is_file():
        return oracle
    candidate = OnnxEncoder(checkpoint, path)
    error = disagreement(candidate, oracle, probe)
    if error > TOLERANCE:
        message = f"the onnx encoder differs from the torch oracle by {error:.1e} of its range; the limit is {TOLERANCE:.0e}"
        if choice == "onnx":
            raise EncoderError(message)
        _log.warning("%s; using torch", message)
        return oracle
    if choice == "onnx":
        return candidate
    times = {encoder.name: _seconds(encoder, probe) for encoder in (oracle, candidate)}
    _log.info("vision encoders, seconds per page: %s", times)
    return candidate if times["onnx"] < times["torch"] else oracle


def disagreement(candidate: VisionEncoder, oracle: VisionEncoder, probe: ProbePage) -> float:
    """Largest absolute difference on the probe page, relative to the oracle's largest absolute value."""
    expected = oracle.encode(probe.patches, probe.width, probe.height)
    found = candidate.encode(probe.patches, probe.width, probe.height)
    return float((found - expected).abs().max() / expected.abs().max())


def _seconds(encoder: VisionEncoder, probe: ProbePage) -> float:
    """Best of three, after one run that is not counted."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        encoder.encode(probe.patches, probe.width, probe.height)
        times.append(time.perf_counter() - start)
    return min(times[1:])
