"""Style: how a page looks. The rendering configuration of the Glyph paper, under the same key names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glyph_rt.errors import StyleError

FONTS = Path(__file__).parent / "fonts"
BLOCK = 28  # px: patch size 14 times spatial merge 2, the side of one visual token
MAX_SIDE = 28 * 128  # px: Glm4v's image processor takes no more than 9.6 megapixels


@dataclass(frozen=True)
class Style:
    """One page style. Lengths are points of 1/72 inch, as in the reference configuration; `dpi` turns them into pixels.

    Raises StyleError when no page can be drawn this way, with the reason.
    """

    name: str
    page_size: tuple[float, float]  # width, height in pt; pixels are rounded to the nearest multiple of 28
    dpi: int
    margin_x: float
    margin_y: float
    font_path: str  # absolute, or the name of a font that ships with glyph-rt
    font_size: float  # pt
    line_height: float  # pt, baseline to baseline
    cell_width: int | None = None  # px: every glyph advances by this much (a character grid); None: the font's advances
    tab_width: int = 4  # columns of one space

    def __post_init__(self) -> None:
        for field in ("dpi", "font_size", "line_height", "tab_width"):
            if getattr(self, field) <= 0:
                raise StyleError(f"style {self.name!r}: {_key(field)} must be above 0, not {getattr(self, field)}")
        if self.cell_width is not None and self.cell_width < 1:
            raise StyleError(f"style {self.name!r}: cell-width must be at least 1 px, not {self.cell_width}")
        if self.margin_x < 0 or self.margin_y < 0:
            raise StyleError(f"style {self.name!r}: margins must not be negative")
        if self.line_height < self.font_size:
            raise StyleError(
                f"style {self.name!r}: line-height {self.line_height} is below font-size {self.font_size}; lines would overlap"
            )
        if max(self.width, self.height) > MAX_SIDE:
            raise StyleError(f"style {self.name!r}: a page is at most {MAX_SIDE} px wide and high; lower page-size or dpi")
        if self.width - 2 * self.px(self.margin_x) < self.px(self.font_size):
            raise StyleError(f"style {self.name!r}: margin-x {self.margin_x} leaves no room for a character")
        if self.height - 2 * self.px(self.margin_y) < self.px(self.line_height):
            raise StyleError(f"style {self.name!r}: margin-y {self.margin_y} leaves no room for a line")

    def px(self, points: float) -> int:
        """Points to whole pixels at this style's dpi."""
        return round(points * self.dpi / 72)

    @property
    def width(self) -> int:
        """Page width in px, a multiple of 28."""
        return max(BLOCK, round(self.page_size[0] * self.dpi / 72 / BLOCK) * BLOCK)

    @property
    def height(self) -> int:
        """Page height in px, a multiple of 28."""
        return max(BLOCK, round(self.page_size[1] * self.dpi / 72 / BLOCK) * BLOCK)

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one page."""
        return (self.width // BLOCK) * (self.height // BLOCK)

    @property
    def font_file(self) -> Path:
        """The font this style draws with. Raises StyleError when the box does not have it."""
        path = Path(self.font_path)
        path = path if path.is_absolute() else FONTS / path
        if not path.is_file():
            shipped = ", ".join(sorted(p.name for p in FONTS.glob("*.ttf")))
            raise StyleError(f"style {self.name!r}: no font at {path}; give an absolute font-path or one of: {shipped}")
        return path

    def to_json(self) -> dict[str, Any]:
        """The style under its configuration keys, as `from_json` reads them."""
        out: dict[str, Any] = {_key(k): v for k, v in dataclasses.asdict(self).items() if v is not None}
        out["page-size"] = ",".join(f"{side:g}" for side in self.page_size)
        return out

    @classmethod
    def from_json(cls, data: object, source: str) -> Style:
        """A style from a parsed JSON object; `source` names it in errors. Unknown keys are refused, not ignored."""
        if not isinstance(data, dict):
            raise StyleError(f"style {source}: expected a JSON object of style keys")
        fields = {_key(f.name): f for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(fields))
        if unknown:
            raise StyleError(f"style {source}: unknown key {unknown[0]!r}; known keys: {', '.join(fields)}")
        missing = [k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in data and k != "name"]
        if missing:
            raise StyleError(f"style {source}: missing key {missing[0]!r}")
        values = {fields[key].name: _parse(key, value, source) for key, value in data.items()}
        values.setdefault("name", source)
        return cls(**values)

    @classmethod
    def load(cls, name_or_file: str) -> Style:
        """A preset by name, or a style from a JSON file. Raises StyleError naming the presets when it is neither."""
        if name_or_file in PRESETS:
            return PRESETS[name_or_file]
        path = Path(name_or_file)
        if not path.is_file():
            raise StyleError(f"no style {name_or_file!r}: give a JSON file or one of: {', '.join(PRESETS)}")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise StyleError(f"style {path}: not readable as JSON ({error})") from None
        return cls.from_json(data, path.name)

    def digest_fields(self) -> str:
        """Canonical text of everything that moves a pixel: all keys but the name, and the font's own content."""
        pixels = {k: v for k, v in self.to_json().items() if k not in ("name", "font-path")}
        pixels["font-sha256"] = hashlib.sha256(self.font_file.read_bytes()).hexdigest()
        return json.dumps(pixels, sort_keys=True)


def _key(field: str) -> str:
    return field.replace("_", "-")


def _parse(key: str, value: Any, source: str) -> Any:
    """One JSON value in the type of its field."""
    if key == "page-size":
        parts = value.split(",") if isinstance(value, str) else value
        try:
            width, height = (float(part) for part in parts)
        except (TypeError, ValueError):
            raise StyleError(f'style {source}: page-size must be "width,height" in points, not {value!r}') from None
        return width, height
    if key in ("name", "font-path"):
        if not isinstance(value, str):
            raise StyleError(f"style {source}: {key} must be a text, not {value!r}")
        return value
    whole = key in ("dpi", "cell-width", "tab-width")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise StyleError(f"style {source}: {key} must be a{' whole' if whole else ''} number, not {value!r}")
    return value


# The embedded reader's own style. 7 x 14 px cells stand on the 14 px patch grid, so that every patch holds two whole
# characters: the largest single factor in how fast a small model learns to read.
READER = Style(
    name="reader",
    page_size=(280, 140),
    dpi=72,
    margin_x=0,
    margin_y=0,
    font_path="DejaVuSansMono.ttf",
    font_size=12,
    line_height=14,
    cell_width=7,
)

# The layout zai-org/Glyph was trained on (its config_en.json), with DejaVu Sans in Verdana's place.
GLYPH_EN_72 = Style(
    name="glyph-en-72",
    page_size=(595, 842),
    dpi=72,
    margin_x=16,  # margin-x 10 plus the 6 pt that reportlab's frame pads
    margin_y=16,
    font_path="DejaVuSans.ttf",
    font_size=9,
    line_height=10,
)

PRESETS = {style.name: style for style in (READER, GLYPH_EN_72)}
