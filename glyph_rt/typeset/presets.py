"""Named styles: presets, themes over them, and modes that trade density for accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glyph_rt.errors import StyleError
from glyph_rt.typeset.style import Style

# The embedded reader's own style. 7 x 14 px cells stand on the 14 px patch grid, so that every patch holds two whole
# characters: the largest single factor in how fast a small model learns to read.
READER = Style(
    name="reader",
    page_size=(420, 140),
    dpi=72,
    margin_x=0,
    margin_y=0,
    frame_padding=0,
    font_path="DejaVuSansMono.ttf",
    font_size=12,
    line_height=14,
    alignment="LEFT",
    cell_width=7,
    fit="native",
)

# What Linux boxes have for scripts beyond DejaVu's, in the order in which it is tried; a box draws with those it has.
FALLBACKS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    *(f"NotoSans{script}-Regular.ttf" for script in ("Devanagari", "Bengali", "Tamil", "Telugu", "Thai", "Symbols2")),
    "Lohit-Devanagari.ttf",
    "Loma.ttf",
    "NotoEmoji-Regular.ttf",
)

# The layout zai-org/Glyph was trained on: its config_en.json, drawn in Verdana where the box has it, else in DejaVu Sans.
GLYPH_EN_72 = Style(
    name="glyph-en-72",
    page_size=(595, 842),
    dpi=72,
    margin_x=10,
    margin_y=10,
    font_path="Verdana.ttf",
    font_size=9,
    line_height=10,
    alignment="LEFT",
    auto_crop_width=True,
    auto_crop_last_page=True,
    fallback_fonts=FALLBACKS,
)
GLYPH_EN_96 = GLYPH_EN_72.changed("glyph-en-96", dpi=96)
GLYPH_ZH_72 = GLYPH_EN_72.changed("glyph-zh-72", font_path="SourceHanSansHWSC-VF.ttf")

PRESETS = {style.name: style for style in (READER, GLYPH_EN_72, GLYPH_EN_96, GLYPH_ZH_72)}

# What changes over a preset. Themes and modes are written behind it with a plus: glyph-en-96+dark+fast.
_GREY = "#F4F4F4"
THEMES: dict[str, dict[str, Any]] = {
    "document": {
        "margin_x": 40, "margin_y": 40, "alignment": "JUSTIFY", "first_line_indent": 14, "line_height": 12, "space_after": 4,
        "auto_crop_width": False, "fit": "native",
    },
    "web": {
        "margin_x": 24, "margin_y": 24, "font_size": 10, "line_height": 14, "space_after": 8, "font_color": "#1F2937",
        "page_bg_color": "#F8FAFC", "para_bg_color": "#F8FAFC", "auto_crop_width": False, "fit": "native",
    },
    "dark": {"font_color": "#E6E6E6", "page_bg_color": "#101010", "para_bg_color": "#101010", "fit": "native"},
    "code": {
        "font_path": "DejaVuSansMono.ttf", "font_size": 9, "line_height": 11, "page_bg_color": _GREY, "para_bg_color": _GREY,
        "fit": "native",
    },
    "pixel": {
        "font_path": "DejaVuSansMono.ttf", "font_size": 7, "line_height": 7, "cell_width": 4, "margin_x": 0, "margin_y": 0,
        "frame_padding": 0, "fit": "native",
    },
}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {
    "precise": {"dpi": 96},  # larger glyphs, a line end is a line end
    "fast": {"dpi": 72, "newline_markup": '<font color="#808080"> \\n </font>'},  # line ends are marks, so lines are full
}
OVERLAYS = THEMES | MODES


def load_style(name_or_file: str) -> Style:
    """A preset by name, a JSON file of style keys, or a theme or mode over glyph-en-72; themes and modes may follow with a plus.

    Raises StyleError naming what there is when it is none of these.
    """
    first, *overlays = name_or_file.split("+")
    if Path(name_or_file).is_file():  # a file name may hold a plus
        first, overlays = name_or_file, []
    if first in OVERLAYS:
        style, overlays = GLYPH_EN_72, [first, *overlays]
    elif first in PRESETS:
        style = PRESETS[first]
    else:
        style = _from_file(Path(first))
    for overlay in overlays:
        if overlay not in OVERLAYS:
            raise StyleError(f"no theme or mode {overlay!r}; there are: {', '.join(OVERLAYS)}")
        changes = dict(OVERLAYS[overlay])
        style = style.changed(overlay if name_or_file == overlay else name_or_file, **changes)
    return style


def _from_file(path: Path) -> Style:
    if not path.is_file():
        raise StyleError(f"no style {str(path)!r}: give a JSON file or one of: {', '.join((*PRESETS, *OVERLAYS))}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StyleError(f"style {path}: not readable as JSON ({error})") from None
    if isinstance(data, dict) and isinstance(data.get("font-path"), str):
        beside = path.parent / data["font-path"]  # a font named relative to the file
        if beside.is_file():
            data["font-path"] = str(beside.resolve())
    return Style.from_json(data, path.name)
