"""
Native core of the typesetter: line breaking and glyph blitting into encoder-ordered patches.
"""

from typing import Annotated

import numpy
from numpy.typing import NDArray


class Atlas:
    """Coverage bitmaps of one font at one size; immutable."""

    def __init__(self, codepoints: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], advances: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], metrics: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], coverage: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], phases: int, missing: int) -> None:
        """
        Glyph i draws codepoints[i] and advances the pen by advances[i] (26.6 px). metrics is [glyphs * phases, 4]: left, top, width, height in px; offsets point into coverage.
        """

class PagePainter:
    """Paints pages of one geometry as ink patches in merge-block order."""

    def __init__(self, width: int, height: int, margin_x: int, margin_y: int, line_height: int, first_baseline: int) -> None:
        """All in px; width and height are multiples of 28."""

    @property
    def rows(self) -> int:
        """Lines that fit on a page."""

    def paint(self, atlas: Atlas, text: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], lines: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], tab_columns: int) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None, 196))]:
        """
        Code points [n] and line spans [lines, 2] to ink [pages, patches, 196]. Releases the GIL.
        """

def has_ink(codepoint: int) -> bool:
    """
    Whether a glyph is needed to draw this code point: not for spaces and line breaks.
    """

def break_lines(atlas: Atlas, text: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], width: int, tab_columns: int) -> Annotated[NDArray[numpy.int32], dict(shape=(None, 2))]:
    """
    Code points [n] to line spans [lines, 2] for lines of `width` (26.6 px). Releases the GIL.
    """
