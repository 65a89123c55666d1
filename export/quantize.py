"""An exported graph with its blocks in INT8: explicit Q/DQ by ONNX Runtime's quantiser, calibrated on drawn pages.

Symmetric, as TensorRT has it: weights by output channel, activations by tensor, within the range that calibration saw. What a block
multiplies by its weights is quantised and nothing else: attention, the patch embedding and what comes after the last block stay as they
are. The tower is smoothed before (smooth.py): the embedded reader passes the gate either way, one trained further missed it without.
Lowest cosine of its visual tokens with the oracle's: 0.9992 (`pytest -s tests/export/test_quantize.py`), and 0.967 with the merger in INT8.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from glyph_rt.export.golden import COLOUR
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.runtime import open_typesetter
from glyph_rt.typeset import Typesetter
from glyph_rt.vision.graph import INPUTS, stages
from glyph_rt.vision.torch_encoder import TorchEncoder

PAGES = 5  # of each text; every page costs a run of the graph on the CPU
PROSE = (
    "NOTICE TO THE CARRIER\n\nThe carrier shall deliver the goods within four days of the order 7731-B;\nthe buyer inspects them.\n"
    "  weight: 417.5 kg    volume: 2.08 m3    value: EUR 12,400.00\nQX-58213 left by Zug am 9. Juli. (see page 6) [void] {x} @ # % & *\n"
)


class CalibrationPages(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Drawn pages as the graph takes them: of text, and without any blank, where activations are the largest."""

    def __init__(self, checkpoint: Checkpoint, encoder: TorchEncoder, colour: bool) -> None:
        self._feeds = _feeds(checkpoint, encoder, colour)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._feeds, None)


def quantize(source: Path, target: Path, pages: CalibrationPages, depth: int, large: bool) -> None:
    """Write the graph at `source`, whose blocks are `depth`, to `target` in INT8; `large`: with its weights in a file beside it."""
    logging.getLogger().addFilter(_no_advice)
    try:
        quantize_static(
            source,
            target,
            pages,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=_products_of_blocks(source, depth),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=large,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    """ONNX Runtime advises every caller to preprocess the graph for convolutions, on the root logger."""
    return "pre-processing before quantization" not in record.getMessage()


def _products_of_blocks(path: Path, depth: int) -> list[str]:
    """Names of the matrix products with weights between the patch embedding and the end of the last block. Nodes are in order."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    made = {name: index for index, node in enumerate(graph.node) for name in node.output}
    first, *_, last = (made[stage] for stage in stages(depth))
    return [node.name for node in graph.node[first:last] if node.op_type == "MatMul" and node.input[1] in weights]


def _feeds(checkpoint: Checkpoint, encoder: TorchEncoder, colour: bool) -> Iterator[dict[str, NDArray[np.generic]]]:
    style = open_typesetter(checkpoint, None).style
    typesetter = Typesetter(style.changed("calibration", font_color=COLOUR) if colour else style)
    dense = "".join(random.Random(0).choices([chr(code) for code in range(33, 127)], k=100_000))
    for text in (PROSE * 500, dense):
        for page in islice(typesetter.pages(text), PAGES):
            geometry = encoder.geometry(page.width, page.height)
            values = (page.patches[None].copy(), geometry.positions.numpy(), geometry.cos.numpy(), geometry.sin.numpy())
            yield dict(zip(INPUTS, values, strict=True))
