"""Searches: what is tried, in which order, and that nothing of it is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.errors import EncoderError, InputError, StyleError
from glyph_rt.tune.front import DOMINATED, Finding, clearly_dominated, difference, dominates, front
from glyph_rt.tune.search import EVOLVED, JOURNAL, NEIGHBOUR, REFERENCE, Search, Tried
from glyph_rt.tune.space import Space
from glyph_rt.typeset import PRESETS, Style
from tests.tune.parts import SPACE, SUBJECT, Killed, MadeUp, search


def run(folder: Path, trials: int, *, kill_at: int | None = None, seed: int = 0) -> list[Tried]:
    with search(folder, MadeUp(kill_at), seed=seed) as going:
        going.run(lambda: len(going.tried) >= trials)
        return going.tried


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 40)
    for kill_at in (0, 5, 16, 30):  # before anything, among the neighbours, and among what evolved
        with pytest.raises(Killed):
            run(tmp_path / "parts", 40, kill_at=kill_at)
        with (tmp_path / "parts" / JOURNAL).open("ab") as journal:
            journal.write(b'{"op_code": 4, "wor')  # the line that a kill cut off
    assert run(tmp_path / "parts", 40) == whole
    assert Counter(each.origin for each in whole).keys() == {REFERENCE, NEIGHBOUR, EVOLVED}
    assert run(tmp_path / "other seed", 15, seed=1) != whole[:15]


def test_nothing_is_tried_twice(tmp_path: Path) -> None:
    measure = MadeUp()
    with search(tmp_path, measure) as going:
        going.run(lambda: len(going.tried) >= 50)
        assert len(set(measure.styles)) == len(measure.styles) == 50
        assert any("tried before" in refusal.reason for refusal in going.refused)
        assert [each.number for each in going.front()] == [
            each.number
            for each in sorted(going.tried, key=lambda t: t.finding.objectives, reverse=True)
            if not each.finding.stopped and not any(dominates(o.finding, each.finding) for o in going.tried if not o.finding.stopped)
        ]


def test_what_cannot_be_read_is_refused_and_the_search_goes_on(tmp_path: Path) -> None:
    def measure(style: Style, others: Sequence[Finding]) -> Finding:
        if style.pagination == "stable":
            raise StyleError("it does not fit the context")
        if style.space_after:
            raise EncoderError("no engine takes this page")
        return MadeUp()(style, others)

    with Search(tmp_path, SPACE, measure, SUBJECT) as going:
        going.run(lambda: len(going.tried) >= 12)
        assert {refusal.reason for refusal in going.refused} >= {"it does not fit the context", "no engine takes this page"}
        assert len(going.tried) == 12


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    small = Space.around(PRESETS["reader"], ("space-after", "auto-crop-width"))
    with search(tmp_path, MadeUp(), small) as going:
        assert not going.run(lambda: False)
        assert len(going.tried) == 6


def test_a_reference_that_cannot_be_read_ends_the_search(tmp_path: Path) -> None:
    def measure(style: Style, others: Sequence[Finding]) -> Finding:
        raise EncoderError("no engine takes this page")

    faint = Space(PRESETS["reader"].changed("faint", font_color="#DDDDDD"), {"space-after": (0, 14)})
    for _ in range(2):  # and does so again when it is run again
        with Search(tmp_path / "a", SPACE, measure, SUBJECT) as going, pytest.raises(EncoderError):
            going.run(lambda: False)
        with search(tmp_path / "b", MadeUp(), faint) as going, pytest.raises(StyleError, match="#DDDDDD on #FFFFFF has a contrast"):
            going.run(lambda: False)


def test_evolution_moves_towards_the_front(tmp_path: Path) -> None:
    """Findings with a slope: what evolved is better than the neighbours were."""

    def measure(style: Style, others: Sequence[Finding]) -> Finding:
        right = 10 + 10 * (style.alignment == "RIGHT") + 10 * (style.space_after == 28) + style.margin_y // 14
        return Finding("1" * int(right) + "0" * 40, 1.0 + style.auto_crop_width, 2.0, 1.0 + style.first_line_indent / 28)

    with Search(tmp_path, SPACE, measure, SUBJECT, 0, 8) as going:
        going.run(lambda: len(going.tried) >= 45)
        sums = [sum(each.finding.objectives) for each in going.tried]
        first = [total for total, each in zip(sums, going.tried, strict=True) if each.origin == NEIGHBOUR]
    assert sum(sums[-15:]) / 15 > sum(first) / len(first) + 0.2


def test_a_search_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    run(tmp_path, 2)
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(InputError, match="search with another seed; give"):
        run(tmp_path, 2, seed=5)
    with pytest.raises(InputError, match="search with another model"):
        Search(tmp_path, SPACE, MadeUp(), {**SUBJECT, "model": "n"})
    assert (tmp_path / JOURNAL).read_bytes() == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / JOURNAL).write_text("my notes")
    with pytest.raises(InputError, match="is not the journal of a search"):
        search(tmp_path / "notes", MadeUp())
    assert (tmp_path / "notes" / JOURNAL).read_text() == "my notes"
    with search(tmp_path, MadeUp()), pytest.raises(InputError, match="another process searches in"):
        search(tmp_path, MadeUp())


FINDINGS = st.builds(
    Finding,
    st.text("01", min_size=12, max_size=12),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.just(2.0),
    st.sampled_from([0.5, 1.0, 1.5]),
    st.sampled_from(["", "", "", DOMINATED]),
)


@given(st.lists(FINDINGS, max_size=12))
def test_the_front_is_what_nothing_dominates(findings: list[Finding]) -> None:
    whole = [finding for finding in findings if not finding.stopped]
    kept = [finding for _, finding in front(list(enumerate(findings)))]
    assert not any(dominates(other, one) for one in kept for other in whole)
    for finding in whole:
        assert finding in kept or any(dominates(one, finding) or one.objectives == finding.objectives for one in kept)
    assert len({one.objectives for one in kept}) == len(kept) and all(one in whole for one in kept)


@given(FINDINGS, st.lists(FINDINGS, max_size=6))
def test_what_is_clearly_dominated_is_dominated(finding: Finding, others: list[Finding]) -> None:
    if clearly_dominated(finding, others):
        assert any(dominates(other, finding) for other in others if not other.stopped)


def test_clearly_is_by_the_questions_that_both_were_asked() -> None:
    good = Finding("1" * 90 + "0" * 10, 2.0, 2.0, 1.0)
    assert clearly_dominated(Finding("00001111", 2.0, 2.0, 1.0), [good])  # 4 of 8 worse, none better
    assert not clearly_dominated(Finding("00111111", 2.0, 2.0, 1.0), [good])
    assert not clearly_dominated(Finding("00001111", 2.1, 2.0, 1.0), [good])  # it is denser
    assert not clearly_dominated(Finding("00001111", 2.0, 2.0, 0.9), [good])  # it is faster


def test_the_difference_of_paired_shares_is_agresti_and_mins() -> None:
    """Their table 1 form: b = 16 better and c = 37 worse of 300, by hand: (16 - 37) / 302 -+ 1.96 sqrt(54 - 21^2 / 302) / 302."""
    own = [True] * 16 + [False] * 37 + [True] * 247
    reference = [False] * 16 + [True] * 37 + [True] * 247
    found = difference(own, reference)
    assert found.share == pytest.approx(-21 / 300)
    assert (found.low, found.high) == pytest.approx((-0.1166, -0.0225), abs=2e-4)
