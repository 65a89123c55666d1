"""What the reader is shown, and when: stages of batches, and how often their documents do what makes reading harder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from glyph_rt.export.reader.samples import Shape
from glyph_rt.export.reader.shares import Shares


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: batches are drawn from `shapes` by weight until `minutes` have passed."""

    name: str
    minutes: float
    shapes: Sequence[tuple[float, Shape]]
    peak: float = 1.0  # of the learning rate
    decay_from: float = 1.0  # share of the stage after which the learning rate falls linearly to 3 %
    heads_only: bool = False  # only what is not shipped learns


def curriculum(minutes: float, trained: bool = False) -> list[Stage]:
    """The shipped schedule, scaled to `minutes` of training: see the characters, copy a few lines, then whole documents.

    Weights that are `trained` already go on with whole documents, at a lower rate, once the heads of the auxiliary losses, which are not
    kept with them, are as far.

    Questions about up to four pages train the vision tower too: its two layers are the first that can tell a visual token which key stands
    before it. About more pages they train the decoder only.
    """
    shape = partial(Shape, looks=0.15)
    ask1, ask2 = shape(1, 8, 224, transcribe=False), shape(2, 5, 320, transcribe=False)
    ask4 = shape(4, 3, 448, transcribe=False)
    ask8, ask12 = (shape(pages, documents, 448, transcribe=False, vision="frozen") for pages, documents in ((8, 2), (12, 1)))
    window, read1 = shape(1, 7, 224, transcribe=True), shape(1, 3, 640, transcribe=True)
    read2 = shape(2, 2, 640, transcribe=True, vision="frozen")
    few, few_ask = shape(1, 12, 128, transcribe=True, rows=3), shape(1, 10, 160, transcribe=False, rows=4, fields=0.8)
    see = shape(1, 20, 64, transcribe=True, vision="only")
    look = replace(see, looks=0.8)
    copy = [(0.6, few), (0.4, few_ask)]
    page = [(0.3, window), (0.1, read1), (0.05, few), (0.3, ask1), (0.2, ask2), (0.05, few_ask)]
    # A fifth of it whole pages to transcribe: with an eighth, lines were skipped again in longer training (98.8 to 94.9 % of characters).
    document = [
        (0.05, window), (0.13, read1), (0.07, read2), (0.23, ask1), (0.16, ask2), (0.15, ask4), (0.17, ask8), (0.04, ask12), (0.03, look),
    ]  # fmt: skip
    if trained:
        heads = min(2.0, minutes * 0.03)
        return [
            Stage("heads", heads, document, heads_only=True),
            Stage("document", minutes - heads, document, peak=0.5, decay_from=0.05),
        ]
    return [
        Stage("see", minutes * 0.04, [(1.0, see)]),
        Stage("copy", minutes * 0.12, copy),
        Stage("page", minutes * 0.36, page, peak=0.7),
        Stage("document", minutes * 0.48, document, peak=0.7, decay_from=0.1),
    ]


# Of the documents trained on.
SHARES = Shares(
    mentions=0.3, crossed=0.4, sentences=0.3, long_values=0.1, hollow=0.08, addresses=0.1, figures=0.06, spaced=0.12, near=0.5,
    listings=0.1, worded=0.4, inline=0.25, siblings=0.25, repeating=0.06, coded=0.2, echoes=0.15,
)  # fmt: skip
