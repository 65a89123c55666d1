"""Style: how a page looks. The rendering configuration of the Glyph paper, under the same key names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from glyph_rt.errors import StyleError
from glyph_rt.typeset.fonts import find_font

BLOCK = 28  # px: patch size 14 times spatial merge 2, the side of one visual token
MAX_SIDE = 28 * 128  # px: Glm4v's image processor takes no more than 9.6 megapixels
A4 = (595.2755905511812, 841.8897637795277)  # pt
ALIGNMENTS = ("LEFT", "CENTER", "RIGHT", "JUSTIFY")
_CROP_TOLERANCE = 5  # levels of 255, the reference chain's
_CHOICES = {"alignment": ALIGNMENTS, "fit": ("trained", "native"), "pagination": ("dense", "stable")}
_LENGTHS = (
    "margin_x", "margin_y", "left_indent", "right_indent", "space_before", "space_after", "border_width", "border_padding", "frame_padding",
)  # fmt: skip
LINE_BREAK = "<br/>"
_MARK = re.compile(r'(?:<font color="(#[0-9A-Fa-f]{6})">)?([^<>\n]*?)(?:</font>)?')
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


@dataclass(frozen=True)
class Style:
    """One page style. Lengths are points of 1/72 inch, as in the reference configuration; `dpi` turns them into pixels.

    Keys of the reference configuration have its names and its defaults; where it differs between fits, `fit` says how. Raises
    StyleError when no page can be drawn this way, with the reason.
    """

    name: str
    font_path: str  # a file, or the name of a font that ships with glyph-rt or is installed (fonts.py)
    page_size: tuple[float, float] = A4  # width, height in pt
    dpi: int = 72
    margin_x: float = 20
    margin_y: float = 20
    font_size: float = 9  # pt
    line_height: float = 0  # pt, baseline to baseline; 0: font-size plus 1
    font_color: str = "#000000"
    alignment: str = "JUSTIFY"  # or LEFT, CENTER, RIGHT; right-to-left paragraphs start at the right under LEFT (native)
    horizontal_scale: float = 1.0  # width of everything drawn
    first_line_indent: float = 0  # of a paragraph: a source line when native, 30 source lines when trained
    left_indent: float = 0
    right_indent: float = 0
    space_before: float = 0  # a paragraph
    space_after: float = 0
    border_width: float = 0  # of a paragraph's box
    border_padding: float = 0
    page_bg_color: str = "#FFFFFF"
    para_bg_color: str = "#FFFFFF"
    para_border_color: str = "#FFFFFF"
    auto_crop_width: bool = False  # pages end behind their last inked column
    auto_crop_last_page: bool = False  # the last page ends below its last inked row
    newline_markup: str = LINE_BREAK  # or text (`<font color="#FF0000"> \n </font>`) drawn instead of breaking the line
    # Keys of our own.
    fallback_fonts: tuple[str, ...] = ()  # tried in order for what font-path lacks; those the box does not have are left out
    frame_padding: float = 6  # pt inside the margins, as reportlab's Frame adds
    cell_width: int | None = None  # px: every glyph advances by this much (a character grid); None: the font's advances
    tab_width: int = 4  # columns of one space, native only: the chain makes a tab a space
    fit: Literal["trained", "native"] = "trained"  # reproduce the reference chain's pixels, or draw straight at a multiple of 28 px
    pagination: Literal["dense", "stable"] = "dense"  # fill every page, or break pages where the text says, so that edits stay local

    def __post_init__(self) -> None:
        if self.line_height == 0:
            object.__setattr__(self, "line_height", self.font_size + 1)
        problem = next(self._problems(), None)
        if problem is not None:
            raise StyleError(f"style {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        yield from self._field_problems()  # before anything is computed from the fields
        width, height = self.text_box
        if self.line_height < self.font_size:
            yield f"line-height {self.line_height} is below font-size {self.font_size}; lines would overlap"
        if max(self.drawn) > MAX_SIDE or max(self.width, self.height) > MAX_SIDE:
            yield f"a page is at most {MAX_SIDE} px wide and high; lower page-size, dpi or horizontal-scale"
        if width - abs(self.first_line_indent) < self.font_size:
            yield f"margin-x {self.margin_x} and the indents leave no room for a character"
        if height < self.line_height:
            yield f"margin-y {self.margin_y} leaves no room for a line"
        if self.font_color.lower() == self.para_bg_color.lower():
            yield f"font-color and para-bg-color are both {self.font_color}; nothing could be read"
        if self.cell_width is not None and self.fit == "trained":
            yield "cell-width needs fit native: the reference chain has no character grid"

    def _field_problems(self) -> Iterator[str]:
        for field in ("dpi", "font_size", "line_height", "tab_width", "horizontal_scale"):
            if not 0 < getattr(self, field) < math.inf:
                yield f"{_key(field)} must be above 0, not {getattr(self, field)}"
        for field in _LENGTHS:
            if not 0 <= getattr(self, field) < math.inf:
                what = "margins" if field.startswith("margin") else _key(field)
                yield f"{what} must not be negative"
        if not all(0 < side < math.inf for side in self.page_size):
            yield f"page-size must be two lengths above 0, not {self.page_size}"
        if not -math.inf < self.first_line_indent < math.inf:
            yield "first-line-indent must be a length"
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                yield f"{field} must be one of {', '.join(choices)}, not {getattr(self, field)!r}"
        for field in ("font_color", "page_bg_color", "para_bg_color", "para_border_color"):
            if not _COLOUR.fullmatch(getattr(self, field)):
                yield f'{_key(field)} must be a colour like "#1A2B3C", not {getattr(self, field)!r}'
        if self.newline_markup != LINE_BREAK and not (_mark(self.newline_markup) or ("", ""))[1]:
            yield f"newline-markup must be {LINE_BREAK} or a text, which may have a font color, not {self.newline_markup!r}"
        if self.cell_width is not None and self.cell_width < 1:
            yield f"cell-width must be at least 1 px, not {self.cell_width}"

    # -- geometry

    def px(self, points: float) -> int:
        """Points to whole pixels at this style's dpi."""
        return round(points * self.dpi / 72)

    @cached_property
    def drawn(self) -> tuple[int, int]:
        """Width and height in px of the page that is drawn on. Native: multiples of 28. Trained: what poppler makes of the page size."""
        sides = [side * self.dpi / 72 for side in self.page_size]
        if self.fit == "native":
            return max(BLOCK, round(sides[0] * self.horizontal_scale / BLOCK) * BLOCK), max(BLOCK, round(sides[1] / BLOCK) * BLOCK)
        return math.ceil(sides[0] - 1e-9), math.ceil(sides[1] - 1e-9)

    @cached_property
    def scaled_width(self) -> int:
        """px: width of the drawn page after the chain's horizontal-scale, which resizes what it has drawn."""
        return self.drawn[0] if self.fit == "native" else max(1, int(self.drawn[0] * self.horizontal_scale))

    @property
    def text_box(self) -> tuple[float, float]:
        """Width and height in pt of what margins, padding and indents leave for lines."""
        pad = 2 * self.frame_padding
        scale = self.dpi / 72
        # Natively the page is a multiple of 28 px, and the margins stay what they are.
        page = (self.drawn[0] / scale, self.drawn[1] / scale) if self.fit == "native" else self.page_size
        width = page[0] - 2 * self.margin_x - pad - self.left_indent - self.right_indent
        return width, page[1] - 2 * self.margin_y - pad

    def encoder_size(self, width: int, height: int) -> tuple[int, int]:
        """px: the size at which a page of `width` x `height` px reaches the encoder.

        Natively the next multiples of 28 that hold it. Trained: where Glm4v's image processor resizes it to (its smart_resize).
        """
        if self.fit == "native":
            return -(-width // BLOCK) * BLOCK, -(-height // BLOCK) * BLOCK
        small = max(BLOCK / width, BLOCK / height)
        if small > 1:
            width, height = int(width * small), int(height * small)
        out = round(width / BLOCK) * BLOCK, round(height / BLOCK) * BLOCK
        if 2 * out[0] * out[1] < 112 * 112:  # its min_pixels, over two equal frames
            beta = math.sqrt(112 * 112 / (2 * width * height))
            out = math.ceil(width * beta / BLOCK) * BLOCK, math.ceil(height * beta / BLOCK) * BLOCK
        return out

    @property
    def width(self) -> int:
        """Width in px of a whole page as the encoder gets it, a multiple of 28."""
        return self.encoder_size(self.scaled_width, self.drawn[1])[0]

    @property
    def height(self) -> int:
        """Height in px of a whole page as the encoder gets it, a multiple of 28."""
        return self.encoder_size(self.scaled_width, self.drawn[1])[1]

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one whole page."""
        return (self.width // BLOCK) * (self.height // BLOCK)

    # -- looks

    @property
    def newline_mark(self) -> tuple[str, str] | None:
        """Text and colour of what is drawn for a line end; None where lines break."""
        if self.newline_markup == LINE_BREAK:
            return None
        colour, text = _mark(self.newline_markup) or ("", "")
        return text, colour or self.font_color

    @cached_property
    def visible_coverage(self) -> tuple[int, int]:
        """The least coverage of 255 at which text, and newline marks, count as ink where the chain crops: what makes a pixel's brightness
        (ITU-R 601, as Pillow's "L" rounds it) differ from the paper's by more than 5 levels.
        """
        paper = channels(self.page_bg_color)

        def least(colour: str) -> int:
            ink = channels(colour)
            levels = ([(a * i + (255 - a) * p + 127) // 255 for i, p in zip(ink, paper, strict=True)] for a in range(256))
            return next((a for a, pixel in enumerate(levels) if abs(_brightness(pixel) - _brightness(paper)) > _CROP_TOLERANCE), 256)

        return least(self.font_color), least(self.newline_mark[1] if self.newline_mark else self.font_color)

    @cached_property
    def font_files(self) -> tuple[Path, ...]:
        """The fonts this style draws with on this box, the first first. Raises StyleError when the box has no font for font-path."""
        try:
            fonts = [find_font(self.font_path)]
        except StyleError as error:
            raise StyleError(f"style {self.name!r}: {error}") from None
        for name in self.fallback_fonts:
            try:
                fonts.append(find_font(name))
            except StyleError:
                continue  # what it would have drawn is counted and reported as missing
        return tuple(dict.fromkeys(fonts))

    # -- files

    def to_json(self) -> dict[str, Any]:
        """The style under its configuration keys, as `from_json` reads them."""
        out: dict[str, Any] = {_key(f.name): getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) is not None}
        out["page-size"] = ",".join(f"{side:.10g}" for side in self.page_size)
        out["fallback-fonts"] = list(self.fallback_fonts)
        return out

    @classmethod
    def from_json(cls, data: object, source: str) -> Style:
        """A style from a parsed JSON object; `source` names it in errors. Unknown keys are refused, not ignored."""
        if not isinstance(data, dict):
            raise StyleError(f"style {source}: expected a JSON object of style keys")
        fields = {_key(f.name): f for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(fields), key=str)
        if unknown:
            raise StyleError(f"style {source}: unknown key {unknown[0]!r}; known keys: {', '.join(fields)}")
        if "font-path" not in data:
            raise StyleError(f"style {source}: missing key 'font-path'")
        values = {fields[key].name: _parse(fields[key], value, source) for key, value in data.items()}
        values.setdefault("name", source)
        return cls(**values)

    def changed(self, name: str, **fields: Any) -> Style:
        """This style with some fields changed, under another name."""
        return dataclasses.replace(self, name=name, **fields)

    def digest_fields(self) -> str:
        """Canonical text of everything that moves a pixel: all keys but the name, and the fonts' own content."""
        pixels = {k: v for k, v in self.to_json().items() if k not in ("name", "font-path", "fallback-fonts")}
        pixels["fonts-sha256"] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.font_files]
        return json.dumps(pixels, sort_keys=True)


def channels(colour: str) -> list[int]:
    """Red, green and blue of a colour like "#1A2B3C"."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _brightness(pixel: list[int]) -> int:
    return (19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + (1 << 15)) >> 16


def _key(field: str) -> str:
    return field.replace("_", "-")


def _mark(markup: str) -> tuple[str, str] | None:
    """Colour and text of a newline mark, stripped."""
    found = _MARK.fullmatch(markup)
    return ((found[1] or ""), found[2].strip()) if found else None


def _parse(field: dataclasses.Field[Any], value: Any, source: str) -> Any:
    """One JSON value in the type of its field. The annotations are strings here."""
    key, kind = _key(field.name), str(field.type)
    if field.name == "page_size":
        parts = value.split(",") if isinstance(value, str) else value
        try:
            width, height = (float(part) for part in parts)
        except (TypeError, ValueError):
            raise StyleError(f'style {source}: page-size must be "width,height" in points, not {value!r}') from None
        return width, height
    if field.name == "fallback_fonts":
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise StyleError(f"style {source}: {key} must be a list of font files or names, not {value!r}")
        return tuple(value)
    if kind == "bool":
        if not isinstance(value, bool):
            raise StyleError(f"style {source}: {key} must be true or false, not {value!r}")
        return value
    if kind == "str" or kind.startswith("Literal"):
        if not isinstance(value, str):
            raise StyleError(f"style {source}: {key} must be a text, not {value!r}")
        return value.upper() if field.name == "alignment" else value
    whole = kind.startswith("int")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise StyleError(f"style {source}: {key} must be a{' whole' if whole else ''} number, not {value!r}")
    return value
