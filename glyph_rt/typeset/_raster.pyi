"""
Native core of the typesetter: line breaking, composition of pages, and painting into encoder-ordered patches.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


SKIP: int = 1114112

FIXED_SPACE: int = 1114113

NEWLINE_MARK: int = 1114114

SHAPED: int = 1114128

SYMBOLS: int = 1245184

class Atlas:
    """Coverage bitmaps of a style's glyphs; immutable."""

    def __init__(self, symbols: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], advances: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], inks: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], metrics: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], coverage: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], phases: int, missing: int, visible: Sequence[int]) -> None:
        """
        Glyph i draws symbols[i] in ink inks[i] and advances the pen by advances[i] (px times 2^32). metrics is [glyphs * phases, 4]: left, top, width, height in px; offsets point into coverage. visible[ink] is the least coverage that counts as ink where pages are cropped.
        """

class Composition:
    """How lines are broken and placed; lengths as in lines.h."""

    def __init__(self, *, trained: bool, marks: bool, cjk: bool, left: int, width: int, first_indent: int, alignment: int, tab_columns: int, top: float, height: float, line_height: float, ascent: float, space_before: float, space_after: float, scale: float, page_height: float) -> None: ...

class Carry:
    """
    What is known at the start of a page; opaque, passed from one call of compose to the next.
    """

    def __init__(self) -> None: ...

class PagePainter:
    """
    Paints pages of one look as ink patches in merge-block order; immutable.
    """

    def __init__(self, *, width: int, height: int, scaled_width: int, line_height: int, ascent: int, box: Sequence[int], box_padding: int, border_width: int, boxes: bool, inks: Sequence[Sequence[int]]) -> None:
        """
        Lengths in px. inks: 255 minus red, green and blue of the page, of a paragraph's box, its border, the text, newline marks.
        """

    def paint(self, atlas: Atlas, symbols: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], levels: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, lines: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)], tab_columns: int, crop: Sequence[int]) -> tuple[Annotated[NDArray[numpy.uint8], dict(shape=(None, None))], bool]:
        """
        Symbols [n] and the lines of one page [lines, 9] to patches uint8 [patches, 196], or [patches, 588] when the page has colour. crop: width and height of what is kept of the page, and the size it is scaled to. Releases the GIL.
        """

def compose(atlas: Atlas, codepoints: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], symbols: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], levels: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, breaks: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], composition: Composition, carry: Carry, complete: bool) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, 9))], int, int, Carry]:
    """
    Lines of the pages that start in this stretch of the text and are complete: int64 [lines, 9] with the columns of Line in lines.h, the number of pages, where the next page starts, and the carry to go on with there. Releases the GIL.
    """

def resample(pixels: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)], size: Sequence[int]) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None))]:
    """
    uint8 [height, width] to size (width, height), as Pillow's BICUBIC does.
    """
