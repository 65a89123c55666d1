"""Draws golden pages and has the fp32 oracle encode them (glyph_rt/vision/golden.py says what they are for)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError
from glyph_rt.runtime import open_typesetter
from glyph_rt.typeset import Page, Style, Typesetter
from glyph_rt.vision.golden import LARGE, Golden, GoldenPage, golden_path
from glyph_rt.vision.graph import OUTPUT
from glyph_rt.vision.torch_encoder import TorchEncoder, checked_finite

SMALL = (196, 140)  # px: 35 visual tokens; not square, so that rows and columns cannot be mixed up
ROWS = 64  # visual tokens kept of a page: a whole page of a 9B model would be 10 MB
TEXT = "Invoice 2207 of Harbor Mills\n\nThe goods left the warehouse on 4 May;\nnothing is missing. Total: EUR 12,400.00\n"
DENSE = "".join(map(chr, range(33, 127))) * 200  # no blank anywhere: the fullest page the style can draw
COLOUR = "#B01030"  # of the text on pages with colour


def ensure_golden(checkpoint: Checkpoint, store: Path, colour: bool) -> Golden:
    """The golden pages in `store`, drawn and encoded now if they are not there. What is there stays: graphs name it by digest.

    Raises NonFiniteError when the checkpoint's own fp32 tower produces NaN or infinity.
    """
    path = golden_path(checkpoint, store, colour)
    try:
        return Golden.load(path, checkpoint.digest)
    except EncoderError:
        path.parent.mkdir(parents=True, exist_ok=True)
    oracle = TorchEncoder(checkpoint)
    pages = (_encoded(name, page, oracle) for name, page in drawn_pages(checkpoint, colour).items())
    return Golden(checkpoint.digest, tuple(pages)).save(path)


def drawn_pages(checkpoint: Checkpoint, colour: bool) -> dict[str, Page]:
    """A page of text, the fullest page and a blank one, in the style the model was trained for: small ones, and the fullest once whole.

    The small ones are what every load is held to: three of them cost a tenth of one whole page of zai-org/Glyph's style. The whole page is
    for what depends on the size: kernels chosen by it, and positions far from the corner.
    """
    style = open_typesetter(checkpoint, None).style
    style = style.changed("golden", font_color=COLOUR) if colour else style
    whole = Typesetter(style)
    small = whole if style.visual_tokens <= LARGE else Typesetter(style.changed("golden", page_size=_points(style)))
    text, dense = next(small.pages(TEXT)), next(small.pages(DENSE))
    blank = Page(1, text.width, text.height, np.zeros_like(text.patches), text.lines, "blank")
    pages = {"text": text, "dense": dense, "blank": blank}
    return pages if small is whole else pages | {"full": next(whole.pages(DENSE))}


def _points(style: Style) -> tuple[float, float]:
    """SMALL in the style's points."""
    return SMALL[0] * 72 / style.dpi / style.horizontal_scale, SMALL[1] * 72 / style.dpi


def _encoded(name: str, page: Page, oracle: TorchEncoder) -> GoldenPage:
    patches = page.patches.copy()  # a drawn page is read-only, which torch warns of
    found = {stage: values[0].numpy() for stage, values in oracle.observe(patches[None], page.width, page.height).items()}
    tokens = checked_finite(torch.from_numpy(found.pop(OUTPUT)), oracle.name).numpy()
    rows = np.unique(np.linspace(0, len(tokens) - 1, ROWS).astype(np.int64))
    stream = np.stack([values[4 * rows] for values in found.values()])
    return GoldenPage(name, page.width, page.height, patches, rows, tokens[rows], stream)
