"""Styles: their files, and the reasons for refusing what cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.errors import StyleError
from glyph_rt.typeset import MODES, PRESETS, THEMES, Style, Typesetter, load_style

BASE = PRESETS["reader"].to_json()


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_a_style_survives_its_file(preset: Style, tmp_path: Path) -> None:
    file = tmp_path / "style.json"
    file.write_text(json.dumps(preset.to_json()))
    assert load_style(str(file)) == preset
    assert load_style(preset.name) == preset


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"line-height": 8}, "line-height 8 is below font-size 12"),
        ({"margin-x": 210}, "margin-x 210 and the indents leave no room"),
        ({"margin-y": 70}, "margin-y 70 leaves no room"),
        ({"margin-x": -1}, "margins must not be negative"),
        ({"dpi": 0}, "dpi must be above 0"),
        ({"page-size": "9000,100"}, "a page is at most 3584 px"),
        ({"page-size": "wide"}, 'page-size must be "width,height"'),
        ({"font-size": "12"}, "font-size must be a number"),
        ({"cell-width": 7.5}, "cell-width must be a whole number"),
        ({"cell-width": 0}, "cell-width must be at least 1"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"alignment": "MIDDLE"}, "alignment must be one of LEFT, CENTER, RIGHT, JUSTIFY"),
        ({"fit": "loose"}, "fit must be one of trained, native"),
        ({"fit": "trained"}, "cell-width needs fit native"),
        ({"font-color": "red"}, 'font-color must be a colour like "#1A2B3C"'),
        ({"font-color": "#ffffff"}, "font-color and para-bg-color are both #ffffff"),
        ({"newline-markup": "<b>"}, "newline-markup must be <br/> or a text"),
        ({"left-indent": -3}, "left-indent must not be negative"),
        ({"horizontal-scale": 0}, "horizontal-scale must be above 0"),
        ({"auto-crop-width": 1}, "auto-crop-width must be true or false"),
        ({"fallback-fonts": "a.ttf"}, "fallback-fonts must be a list"),
    ],
)
def test_impossible_styles_are_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(StyleError) as caught:
        Style.from_json(BASE | change, "test.json")
    assert reason in str(caught.value)


def test_a_style_without_a_needed_key_is_refused() -> None:
    with pytest.raises(StyleError, match="missing key 'font-path'"):
        Style.from_json({k: v for k, v in BASE.items() if k != "font-path"}, "test.json")


@pytest.mark.parametrize("data", [[], 3, "x", None])
def test_only_objects_are_styles(data: object) -> None:
    with pytest.raises(StyleError, match="expected a JSON object"):
        Style.from_json(data, "test.json")


def test_an_unknown_style_names_the_presets() -> None:
    with pytest.raises(StyleError, match="one of: reader, glyph-en-72"):
        load_style("nope")


def test_a_broken_file_and_a_missing_font_are_style_errors(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(StyleError, match="not readable as JSON"):
        load_style(str(tmp_path / "broken.json"))
    (tmp_path / "fake.ttf").write_text("not a font")
    for font, reason in (("None.ttf", "no font 'None.ttf'"), (str(tmp_path / "fake.ttf"), "FreeType cannot use")):
        with pytest.raises(StyleError, match=reason):
            Typesetter(Style.from_json(BASE | {"font-path": font}, "test.json"))


KEYS = st.sampled_from([*BASE, "unknown"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-10, 10**6), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3))


@given(change=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_json_gives_a_style_or_a_style_error(change: dict[str, Any]) -> None:
    try:
        style = Style.from_json(BASE | change, "any.json")
    except StyleError:
        return
    assert style.width % 28 == 0 and style.height % 28 == 0 and style.visual_tokens >= 1


def test_the_digest_follows_pixels_not_names() -> None:
    renamed = Style.from_json(BASE | {"name": "other"}, "test.json")
    assert renamed.digest_fields() == PRESETS["reader"].digest_fields()
    assert Style.from_json(BASE | {"tab-width": 8}, "test.json").digest_fields() != renamed.digest_fields()


def test_the_reference_configuration_loads_unchanged(tmp_path: Path) -> None:
    """Every key of config_en.json, as the reference ships it; Verdana is drawn in what this box has."""
    config = {
        "page-size": "595,842", "dpi": 72, "margin-x": 10, "margin-y": 10, "font-path": "../config/Verdana.ttf", "font-size": 9,
        "line-height": 10, "font-color": "#000000", "alignment": "LEFT", "horizontal-scale": 1.0, "first-line-indent": 0,
        "left-indent": 0, "right-indent": 0, "space-after": 0, "space-before": 0, "border-width": 0, "border-padding": 0,
        "page-bg-color": "#FFFFFF", "para-bg-color": "#FFFFFF", "auto-crop-width": True, "auto-crop-last-page": True,
        "newline-markup": "<br/>", "para-border-color": "#FFFFFF",
    }  # fmt: skip
    file = tmp_path / "config_en.json"
    file.write_text(json.dumps(config))
    style, preset = load_style(str(file)), PRESETS["glyph-en-72"]
    assert style.changed("glyph-en-72", font_path=preset.font_path, fallback_fonts=preset.fallback_fonts) == preset
    assert style.font_files[0].name in ("Verdana.ttf", "DejaVuSans.ttf")
    assert (style.drawn, style.width, style.height, style.visual_tokens) == ((595, 842), 588, 840, 630)


def test_keys_left_out_have_the_defaults_of_the_reference() -> None:
    style = Style.from_json({"font-path": "DejaVuSans.ttf", "font-size": 11}, "short.json")
    assert (style.line_height, style.alignment, style.margin_x, style.auto_crop_width) == (12, "JUSTIFY", 20, False)
    assert style.drawn == (596, 842)  # A4, rounded up as poppler does


@pytest.mark.parametrize("name", [*THEMES, *MODES, "glyph-en-96+dark+fast", "reader+dark"])
def test_themes_and_modes_go_over_presets(name: str) -> None:
    style = load_style(name)
    assert style.name == name
    assert next(Typesetter(style).pages("Some text.")).visual_tokens > 0


def test_themes_draw_what_they_say() -> None:
    def corner_and_extremes(name: str) -> tuple[list[int], int, int]:
        page = next(Typesetter(load_style(name)).pages("Words on a page.\n" * 30)).pixels()
        return np.atleast_1d(page[0, 0]).tolist(), int(page.min()), int(page.max())

    assert corner_and_extremes("dark") == ([0x10], 0x10, 0xE6)  # light on dark, and grey: 196 bytes a patch
    assert corner_and_extremes("web")[0] == [0xF8, 0xFA, 0xFC]  # colour: 588 bytes a patch
    assert corner_and_extremes("code")[::2] == ([0xF4], 0xF4)
    assert corner_and_extremes("document")[0] == [0xFF]
    pixel = load_style("pixel")
    assert pixel.cell_width == 4 and Typesetter(pixel).atlas.phases == 1


def test_an_unknown_theme_is_refused() -> None:
    with pytest.raises(StyleError, match="no theme or mode 'drak'; there are: document"):
        load_style("reader+drak")


def test_a_font_beside_the_file_is_found(tmp_path: Path) -> None:
    import shutil

    from glyph_rt.typeset.fonts import SHIPPED

    shutil.copy(SHIPPED / "DejaVuSansMono.ttf", tmp_path / "Own.ttf")
    (tmp_path / "style.json").write_text(json.dumps({"font-path": "./Own.ttf"}))
    assert load_style(str(tmp_path / "style.json")).font_files == ((tmp_path / "Own.ttf").resolve(),)
