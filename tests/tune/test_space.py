"""The space of styles: every point of it draws a page, or a rule says why not."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import OptionError, StyleError
from glyph_rt.tune.space import LEAST_COLUMNS, LEAST_ROWS, Point, Space
from glyph_rt.typeset import BLOCK, PRESETS, Typesetter
from tests.conftest import SMALL_PAGES, TEXT

REFERENCES = {"small": SMALL_PAGES, "glyph-en-72": PRESETS["glyph-en-72"]}
SPACES = {name: Space.around(style, page_tokens=2000) for name, style in REFERENCES.items()}

REFUSED: dict[str, Point] = {"small": {"page-height": 56, "margin-y": 28}, "glyph-en-72": {"dpi": 60, "font-size": 7}}


def points(space: Space) -> st.SearchStrategy[Point]:
    return st.fixed_dictionaries({key: st.sampled_from(values) for key, values in space.values.items()})


@pytest.mark.parametrize("name", SPACES)
def test_every_point_draws_a_page_or_is_refused_by_a_rule(name: str) -> None:
    space = SPACES[name]
    outcomes = {"drawn": 0, "refused": 0}

    @given(points(space))
    @example(space.origin)
    @example(space.origin | REFUSED[name])
    @settings(max_examples=40, deadline=None)
    def check(point: Point) -> None:
        try:
            style = space.style(point)
        except StyleError as error:
            assert str(error).startswith("style 'candidate': ") and len(str(error)) > 30
            outcomes["refused"] += 1
            return
        pages = list(Typesetter(style).pages(TEXT * 3))
        assert pages[0].patches.any() and all(page.width % BLOCK == page.height % BLOCK == 0 for page in pages)
        assert all(page.visual_tokens <= 2000 for page in pages)
        outcomes["drawn"] += 1

    check()
    assert all(outcomes.values()), outcomes  # else one half of the test saw nothing


@pytest.mark.parametrize("name", SPACES)
def test_the_origin_is_the_reference_and_neighbours_differ_from_it_in_one_key(name: str) -> None:
    space = SPACES[name]
    reference = REFERENCES[name]
    assert space.style(space.origin, reference.name) == reference
    neighbours = list(space.neighbours())
    assert len(neighbours) == sum(len(values) - 1 for values in space.values.values())
    assert all(len(space.changes(point)) == 1 for point in neighbours)
    drawn = []
    for point in neighbours:
        try:
            drawn.append(space.style(point, reference.name))
        except StyleError:
            continue
    assert len(drawn) > len(neighbours) / 2 and reference not in drawn and len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("glyph-en-72", {"dpi": 60, "font-size": 7}, "letters of 5.8 px cannot be told apart; at least 6"),
        ("glyph-en-72", {"newline-markup": "black", "colours": "#E6E6E6 on #101010"}, "newline-markup in #000000 on #101010"),
        ("glyph-en-72", {"dpi": 120, "page-width": 744, "page-height": 1052}, "a page has 2772 visual tokens; at most 2000"),
        ("small", {"page-width": 140, "margin-x": 28, "left-indent": 28}, f"a line holds 8 characters; at least {LEAST_COLUMNS}"),
        ("small", {"page-height": 56, "margin-y": 14, "line-height": 28}, f"a page holds 1 lines; at least {LEAST_ROWS}"),
        ("small", {"page-height": 56, "margin-y": 28}, "margin-y 28 leaves no room for a line"),
    ],
)
def test_rules_say_what_they_forbid(name: str, changes: dict[str, str | int], reason: str) -> None:
    space = SPACES[name]
    if changes.get("newline-markup") == "black":
        changes = changes | {"newline-markup": next(str(v) for v in space.values["newline-markup"] if "#000000" in str(v))}
    assert all(value in space.values[key] for key, value in changes.items()), "the case is not of the space"
    with pytest.raises(StyleError, match=reason):
        space.style(space.origin | changes)


def test_a_model_that_knows_its_own_glyphs_gets_no_others() -> None:
    trained = Checkpoint.open(weights=False).trained_style
    assert trained is not None
    space = Space.around(trained.style, glyphs=trained.atlas_digest)
    assert space.style(space.origin | {"space-after": 14}).space_after == 14
    other = Space(trained.style, {"font-size": (12, 11)}, glyphs=trained.atlas_digest)
    with pytest.raises(StyleError, match="other glyphs than the model was trained on"):
        other.style({"font-size": 11})


def test_a_space_may_be_cut_down_to_some_keys() -> None:
    space = Space.around(PRESETS["reader"], ("space-after", "margin-y"))
    assert set(space.values) == {"space-after", "margin-y"} and space.values["space-after"] == (0, 14, 28)
    with pytest.raises(OptionError, match="no key 'font-path' to vary around style 'reader'; there are: page-width"):
        Space.around(PRESETS["reader"], ("font-path",))
    assert "tab-width" not in Space.around(PRESETS["reader"], tabs=False).values


def test_a_grid_keeps_to_whole_cells() -> None:
    for point in SPACES["small"].neighbours():
        style = SPACES["small"].style(point)
        assert style.margin_x % 7 == style.left_indent % 7 == style.first_line_indent % 7 == 0
        assert style.margin_y % 14 == style.space_after % 14 == style.line_height % 14 == 0
