"""The space of styles around a reference, and the rules for which of them a model could read at all.

The keys are those of the Glyph paper's theta, as far as the reference leaves them free. A model that was trained on a grid of cells knows
its glyphs at their places in a visual token and nothing else: around such a reference everything that moves keeps to whole cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glyph_rt.errors import OptionError, StyleError
from glyph_rt.typeset import BLOCK, Style, Typesetter
from glyph_rt.typeset.style import ALIGNMENTS, LINE_BREAK, channels

Value = str | int | float | bool
Point = Mapping[str, Value]  # a value for every key of a space

LEAST_COLUMNS, LEAST_ROWS = 12, 2  # what a page has to hold: narrower, words fall apart
LEAST_FONT_PX = 6.0  # below, lower-case letters have fewer than four rows of pixels, and e, a and o are alike
LEAST_CONTRAST, LEAST_MARK_CONTRAST = 4.5, 3.0  # WCAG 2.2, criteria 1.4.3 for text and 1.4.11 for signs
_MARK = '<font color="{}"> {} </font>'
_COLOURS = ("#000000 on #FFFFFF", "#202020 on #FFFFFF", "#1F2937 on #F8FAFC", "#E6E6E6 on #101010")
# Keys that stand for several fields of a style, or for a part of one.
PAGE_WIDTH, PAGE_HEIGHT, LEADING, COLOURS = "page-width", "page-height", "leading", "colours"


@dataclass(frozen=True)
class Space:
    """All points that give every key one of its values. The first value of each is the reference's own.

    page_tokens: the most visual tokens that a page may have; None: any number. glyphs: the atlas digest that a style must have, of a
    model that knows no other glyphs.
    """

    reference: Style
    values: Mapping[str, tuple[Value, ...]]
    page_tokens: int | None = None
    glyphs: str | None = None

    @classmethod
    def around(
        cls,
        reference: Style,
        keys: Sequence[str] = (),
        *,
        tabs: bool = True,
        page_tokens: int | None = None,
        glyphs: str | None = None,
    ) -> Space:
        """What is worth varying about `reference`, or of that only `keys`. tabs: whether the texts have any.

        Raises OptionError for a key that is not of this space.
        """
        values = _proportional(reference) if reference.cell_width is None else _grid(reference)
        if tabs and reference.fit == "native":
            values["tab-width"] = (2, 4, 8)
        own = _own(reference)
        unknown = sorted(set(keys) - set(values))
        if unknown:
            raise OptionError(f"no key {unknown[0]!r} to vary around style {reference.name!r}; there are: {', '.join(values)}")
        chosen = {key: (own[key], *(v for v in values[key] if v != own[key])) for key in keys or values}
        return cls(reference, {key: found for key, found in chosen.items() if len(found) > 1}, page_tokens, glyphs)

    @property
    def origin(self) -> dict[str, Value]:
        """The reference itself."""
        return {key: values[0] for key, values in self.values.items()}

    @property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(map(len, self.values.values()))

    def neighbours(self) -> Iterator[dict[str, Value]]:
        """The points that differ from the reference in one key."""
        for key, values in self.values.items():
            for value in values[1:]:
                yield self.origin | {key: value}

    def changes(self, point: Point) -> dict[str, Value]:
        """What a point changes about the reference."""
        return {key: value for key, value in point.items() if value != self.values[key][0]}

    def style(self, point: Point, name: str = "candidate") -> Style:
        """The style at a point. Raises StyleError with the rule that forbids it, before anything is read."""
        style = dataclasses.replace(self.reference, name=name, **self._fields(point))
        problem = next(self._problems(style), None)
        if problem is not None:
            raise StyleError(f"style {name!r}: {problem}")
        return style

    def _fields(self, point: Point) -> dict[str, Any]:
        """The fields of `Style` that a point sets: under their own names, but for the four keys that stand for something else."""
        fields: dict[str, Any] = {key.replace("-", "_"): value for key, value in self.changes(point).items()}
        width, height = fields.pop("page_width", None), fields.pop("page_height", None)
        if width is not None or height is not None:
            own = self.reference.page_size
            fields["page_size"] = (own[0] if width is None else float(width), own[1] if height is None else float(height))
        leading = fields.pop("leading", None)
        if leading is not None or ("font_size" in fields and "line_height" not in fields):
            own_leading = self.reference.line_height - self.reference.font_size
            fields["line_height"] = fields.get("font_size", self.reference.font_size) + (own_leading if leading is None else leading)
        if (colours := fields.pop("colours", None)) is not None:
            ink, paper = str(colours).split(" on ")
            fields |= {"font_color": ink, "page_bg_color": paper, "para_bg_color": paper}
        return fields

    def _problems(self, style: Style) -> Iterator[str]:
        """What keeps a style that can be drawn from being read."""
        if style.font_size * style.dpi / 72 < LEAST_FONT_PX:
            yield f"letters of {style.font_size * style.dpi / 72:.1f} px cannot be told apart; at least {LEAST_FONT_PX:g}"
        mark = style.newline_mark
        for what, colour, least in (
            ("text", style.font_color, LEAST_CONTRAST),
            ("newline-markup", mark[1] if mark else style.font_color, LEAST_MARK_CONTRAST),
        ):
            if (contrast := _contrast(colour, style.para_bg_color)) < least:
                yield f"{what} in {colour} on {style.para_bg_color} has a contrast of {contrast:.1f}; at least {least}"
        width, height = style.text_box
        column = style.cell_width * 72 / style.dpi if style.cell_width else style.font_size / 2
        indent = max(0.0, style.first_line_indent)
        if (width - indent) / column < LEAST_COLUMNS:
            yield f"a line holds {max(0.0, width - indent) / column:.0f} characters; at least {LEAST_COLUMNS}"
        if height / style.line_height < LEAST_ROWS:
            yield f"a page holds {height / style.line_height:.0f} lines; at least {LEAST_ROWS}"
        if self.page_tokens is not None and style.visual_tokens > self.page_tokens:
            yield f"a page has {style.visual_tokens} visual tokens; at most {self.page_tokens} leave room for an answer"
        if self.glyphs is not None and Typesetter(style).atlas.digest() != self.glyphs:
            yield "it draws other glyphs than the model was trained on"


def _own(style: Style) -> dict[str, Value]:
    """The reference's values under the keys of a space."""
    plain = {key: value for key, value in style.to_json().items() if isinstance(value, str | int | float | bool)}
    return plain | {
        PAGE_WIDTH: _short(style.page_size[0]),
        PAGE_HEIGHT: _short(style.page_size[1]),
        LEADING: _short(style.line_height - style.font_size),
        COLOURS: f"{style.font_color} on {style.para_bg_color}",
    }


def _grid(style: Style) -> dict[str, tuple[Value, ...]]:
    """Around a grid of cells. Lengths are whole cells: columns to the side, lines downwards."""
    assert style.cell_width is not None
    points = 72 / style.dpi
    column, line = _short(style.cell_width * points), _short(style.line_height)

    def sides(side: int) -> tuple[Value, ...]:
        """Whole visual tokens, from half of the reference's to twice as many."""
        tokens = side // BLOCK
        return tuple(_short(BLOCK * n * points) for n in range(max(1, tokens // 2), 2 * tokens + 1))

    return {
        PAGE_WIDTH: sides(style.drawn[0]),
        PAGE_HEIGHT: sides(style.drawn[1]),
        "margin-x": (0, column, 2 * column, 4 * column),
        "margin-y": (0, line, 2 * line),
        "line-height": (line, 2 * line),
        "first-line-indent": (0, 2 * column, 4 * column),
        "left-indent": (0, 2 * column, 4 * column),
        "space-after": (0, line, 2 * line),
        "alignment": ALIGNMENTS,
        "newline-markup": (LINE_BREAK, *(_MARK.format(style.font_color, mark) for mark in ("\\n", "|", ";"))),
        "auto-crop-width": (False, True),
        "auto-crop-last-page": (False, True),
        "pagination": ("dense", "stable"),
        COLOURS: tuple(colours for colours in _COLOURS if _is_grey(colours)),
    }


def _proportional(style: Style) -> dict[str, tuple[Value, ...]]:
    """Around a style of the paper's kind."""
    width, height = style.page_size
    return {
        PAGE_WIDTH: tuple(_short(round(width * part)) for part in (0.5, 0.75, 1.0, 1.25)),
        PAGE_HEIGHT: tuple(_short(round(height * part)) for part in (0.5, 0.75, 1.0, 1.25)),
        "dpi": (60, 72, 84, 96, 108, 120),
        "font-path": ("DejaVuSans.ttf", "DejaVuSansMono.ttf"),
        "font-size": (7, 8, 9, 10, 11, 12),
        LEADING: (0, 1, 2, 3),
        "horizontal-scale": (0.8, 0.9, 1.0),
        "margin-x": (0, 5, 10, 20, 40),
        "margin-y": (0, 5, 10, 20, 40),
        "first-line-indent": (0, 7, 14),
        "left-indent": (0, 7, 14),
        "space-after": (0, 2, 4, 8),
        "alignment": ALIGNMENTS,
        "newline-markup": (LINE_BREAK, _MARK.format("#FF0000", "\\n"), _MARK.format("#808080", "\\n"), _MARK.format("#000000", "|")),
        "auto-crop-width": (False, True),
        "auto-crop-last-page": (False, True),
        "fit": ("trained", "native"),
        "pagination": ("dense", "stable"),
        COLOURS: _COLOURS,
    }


def _short(length: float) -> int | float:
    """A whole length as a whole number, as people write it."""
    return int(length) if float(length).is_integer() else length


def _is_grey(colours: str) -> bool:
    return all(len(set(channels(colour))) == 1 for colour in colours.split(" on "))


def _contrast(ink: str, paper: str) -> float:
    """WCAG 2.2's contrast ratio, from 1 to 21."""
    low, high = sorted(_luminance(colour) for colour in (ink, paper))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of an sRGB colour."""
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in (c / 255 for c in channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
