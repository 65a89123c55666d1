"""Styles: their files, and the reasons for refusing what cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.errors import StyleError
from glyph_rt.typeset import PRESETS, Style, Typesetter

BASE = PRESETS["reader"].to_json()


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_a_style_survives_its_file(preset: Style, tmp_path: Path) -> None:
    file = tmp_path / "style.json"
    file.write_text(json.dumps(preset.to_json()))
    assert Style.load(str(file)) == preset
    assert Style.load(preset.name) == preset


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"line-height": 8}, "line-height 8 is below font-size 12"),
        ({"margin-x": 140}, "margin-x 140 leaves no room"),
        ({"margin-y": 70}, "margin-y 70 leaves no room"),
        ({"margin-x": -1}, "margins must not be negative"),
        ({"dpi": 0}, "dpi must be above 0"),
        ({"page-size": "9000,100"}, "a page is at most 3584 px"),
        ({"page-size": "wide"}, 'page-size must be "width,height"'),
        ({"font-size": "12"}, "font-size must be a number"),
        ({"cell-width": 7.5}, "cell-width must be a whole number"),
        ({"cell-width": 0}, "cell-width must be at least 1"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_impossible_styles_are_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(StyleError) as caught:
        Style.from_json(BASE | change, "test.json")
    assert reason in str(caught.value)


def test_a_style_without_a_needed_key_is_refused() -> None:
    with pytest.raises(StyleError, match="missing key 'dpi'"):
        Style.from_json({k: v for k, v in BASE.items() if k != "dpi"}, "test.json")


@pytest.mark.parametrize("data", [[], 3, "x", None])
def test_only_objects_are_styles(data: object) -> None:
    with pytest.raises(StyleError, match="expected a JSON object"):
        Style.from_json(data, "test.json")


def test_an_unknown_style_names_the_presets() -> None:
    with pytest.raises(StyleError, match="one of: reader, glyph-en-72"):
        Style.load("nope")


def test_a_broken_file_and_a_missing_font_are_style_errors(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(StyleError, match="not readable as JSON"):
        Style.load(str(tmp_path / "broken.json"))
    (tmp_path / "fake.ttf").write_text("not a font")
    for font, reason in (("None.ttf", "no font at"), (str(tmp_path / "fake.ttf"), "FreeType cannot use")):
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
