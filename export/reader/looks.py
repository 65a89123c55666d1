"""How else a page of the reader's grid may look: other sizes and another font in its cells, paler ink, darker paper, a pixel aside.

Weights trained on one look only read no value at 11 points instead of 12, and none on paper of #E0E0D0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from glyph_rt.typeset import BLOCK, Page, Style, Typesetter
from glyph_rt.typeset.pages import MERGE, PATCH

# Points, of the fonts that ship with glyph-rt, that fit a cell of 7 x 14 px.
SIZES = {"DejaVuSansMono.ttf": (10.0, 10.5, 11.0, 11.5, 12.0, 12.5), "DejaVuSans.ttf": (9.0, 9.5, 10.0)}
_PALEST_INK, _DARKEST_PAPER = 0.55, 0.2  # of black


@dataclass(frozen=True)
class Look:
    """One way to draw the pages of a document.

    ink, paper: 0 (white) to 1 (black). right, down: px by which everything on a page stands off its cell; what leaves the page is lost.
    """

    typesetter: Typesetter
    ink: float = 1.0
    paper: float = 0.0
    right: int = 0
    down: int = 0

    def drawn(self, page: Page) -> NDArray[np.uint8]:
        """The patches, [patches, 196], of a page that was drawn in black on white."""
        patches = page.patches
        if self.right or self.down:
            patches = _shifted(page, self.right, self.down)
        if (self.ink, self.paper) == (1.0, 0.0):
            return patches
        level = 255 * self.paper + patches.astype(np.float32) * (self.ink - self.paper)
        return level.round().astype(np.uint8)


def any_look(rng: Random, style: Style) -> Look:
    """Another size or font at two times of three, other colours at every second, a pixel aside at every fourth."""
    font, size = style.font_path, style.font_size
    if rng.random() < 2 / 3:
        font = rng.choice(sorted(SIZES))
        size = rng.choice(SIZES[font])
    ink, paper = (rng.uniform(_PALEST_INK, 1), rng.uniform(0, _DARKEST_PAPER)) if rng.random() < 0.5 else (1.0, 0.0)
    right, down = (rng.randint(-1, 1), rng.randint(-1, 1)) if rng.random() < 0.25 else (0, 0)
    return Look(_typesetter(style, font, size), ink, paper, right, down)


@cache
def _typesetter(style: Style, font: str, size: float) -> Typesetter:
    return Typesetter(replace(style, font_path=font, font_size=size))


def _shifted(page: Page, right: int, down: int) -> NDArray[np.uint8]:
    ink = np.roll(np.pad(255 - page.pixels(), 1), (down, right), (0, 1))[1:-1, 1:-1]
    blocks = ink.reshape(page.height // BLOCK, MERGE, PATCH, page.width // BLOCK, MERGE, PATCH)
    return blocks.transpose(0, 3, 1, 4, 2, 5).reshape(page.patches.shape)
