"""Shaping: clusters of complex text, held to HarfBuzz and to the examples of UAX #9."""

from __future__ import annotations

import itertools
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import freetype
import numpy as np
import pytest
import regex
import uharfbuzz as hb
from bidi import get_display
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.errors import StyleError
from glyph_rt.typeset import shaping
from glyph_rt.typeset.shaping import Cluster, Shaper, embedding_levels, needs_shaping

FONTS = Path(shaping.__file__).parent / "fonts"
SANS, MONO = FONTS / "DejaVuSans.ttf", FONTS / "DejaVuSansMono.ttf"
SIZE = 12.0  # px per em
SHAPER = Shaper([SANS], SIZE)
CHAIN = Shaper([MONO, SANS], SIZE)

ARABIC = "ولد جميع الناس أحرارًا متساوين في الكرامة والحقوق، وقد وهبوا عقلا وضميرا"
HEBREW = "כָּל בְּנֵי הָאָדָם נוֹלְדוּ בְּנֵי חוֹרִין"
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
# What interacts: words of several directions, marks, joiners, controls, spaces, emoji, what no font has.
KNOTTY = st.text(
    st.sampled_from(
        "abיוسلام \t\u00a012,.()[]\u0301\u05b8\u064e\u200b\u200c\u200d\u200e\u200f\u2067\u2069\ufe0f\u00ad中👩🚀🏽🇩🇪#\u20e3कषि्\0\u2028"
    )
)


def spans(text: str) -> list[str]:
    return [text[c.start : c.end] for c in SHAPER.shape(text).clusters]


def glyph_ids(cluster: Cluster) -> list[int]:
    return [glyph for glyph, _, _ in cluster.glyphs]


def harfbuzz(text: str, direction: str, script: str) -> list[tuple[int, float]]:
    """(glyph id, advance in px) of a whole text in one call, in visual order."""
    font = hb.Font(hb.Face(hb.Blob.from_file_path(str(SANS))))
    buffer = hb.Buffer()
    buffer.add_str(text)
    buffer.direction, buffer.script, buffer.language = direction, script, "und"
    hb.shape(font, buffer)
    scale = SIZE / font.face.upem
    return [(i.codepoint, p.x_advance * scale) for i, p in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True)]


def test_arabic_letters_join() -> None:
    [isolated] = SHAPER.shape("ب").clusters
    beginning, middle, end = SHAPER.shape("ببب").clusters
    assert len({glyph_ids(c)[0] for c in (isolated, beginning, middle, end)}) == 4
    # A joiner joins without a neighbour; a non-joiner parts neighbours, and neither is drawn.
    joined = SHAPER.shape("ب\u200d").clusters
    assert glyph_ids(joined[0]) == glyph_ids(beginning)
    parted = SHAPER.shape("ب\u200cب").clusters
    assert [glyph_ids(c) for c in parted] == [glyph_ids(isolated), [], glyph_ids(isolated)]
    assert parted[1].advance == 0


def test_a_ligature_is_one_cluster() -> None:
    assert spans("سلام") == ["س", "لا", "م"]
    assert spans("שלום fish\u0301") == ["ש", "ל", "ו", "ם", " ", "f", "i", "s", "h\u0301"]  # as on the simple path


def test_letters_join_across_fonts() -> None:
    shaper = Shaper([SANS, SANS], SIZE)
    shaper._cmaps[0] -= {ord("ب")}
    mixed = shaper.shape("سبس").clusters
    assert [c.font for c in mixed] == [0, 1, 0]
    assert [glyph_ids(c) for c in mixed] == [glyph_ids(c) for c in SHAPER.shape("سبس").clusters]


def test_points_stay_with_their_letter() -> None:
    assert spans("שָׁלוֹם") == ["שָׁ", "ל", "וֹ", "ם"]
    # A space is never part of a word, unless it carries the mark.
    assert spans("א ב \u0301") == ["א", " ", "ב", " \u0301"]


def test_an_accent_sits_over_its_letter() -> None:
    face = freetype.Face(str(SANS))
    face.set_char_size(0, round(SIZE * 64), 72, 72)

    def box(glyph: tuple[int, float, float]) -> tuple[float, float, float, float]:
        face.load_glyph(glyph[0], freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP)
        ink = face.glyph.outline.get_bbox()
        return ink.xMin / 64 + glyph[1], ink.xMax / 64 + glyph[1], ink.yMin / 64 + glyph[2], ink.yMax / 64 + glyph[2]

    for letter in "xqX":  # none of these is composed with an acute
        [cluster] = SHAPER.shape(letter + "\u0301").clusters
        [base, accent] = [box(glyph) for glyph in cluster.glyphs]
        assert accent[2] >= base[3] - 0.5
        assert abs(sum(accent[:2]) - sum(base[:2])) < 0.25 * SIZE
        assert cluster.advance == SHAPER.shape(letter).clusters[0].advance
    # Where the font has both in one glyph, that is drawn.
    [composed] = SHAPER.shape("e\u0301").clusters
    assert composed == Cluster(0, 2, 0, SHAPER.shape("é").clusters[0].glyphs, SHAPER.shape("é").clusters[0].advance, False)


def test_glyphs_are_placed_from_the_left_edge_of_their_cluster() -> None:
    """Drawing a right-to-left run cluster by cluster puts every glyph where HarfBuzz puts it in the whole run."""
    font = hb.Font(hb.Face(hb.Blob.from_file_path(str(SANS))))
    word = HEBREW.split(maxsplit=1)[0]
    buffer = hb.Buffer()
    buffer.add_str(word)
    buffer.guess_segment_properties()
    hb.shape(font, buffer)
    expected, pen = [], 0
    for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        expected.append((info.codepoint, pytest.approx((pen + place.x_offset) * SIZE / 2048), pytest.approx(place.y_offset * SIZE / 2048)))
        pen += place.x_advance
    drawn, x = [], 0.0
    for cluster in reversed(SHAPER.shape(word).clusters):
        drawn += [(glyph, x + dx, dy) for glyph, dx, dy in cluster.glyphs]
        x += cluster.advance
    assert drawn == expected


@pytest.mark.parametrize(("text", "direction", "script"), [(ARABIC, "rtl", "Arab"), (HEBREW, "rtl", "Hebr")], ids=["arabic", "hebrew"])
def test_advances_and_glyphs_are_those_of_the_whole_text(text: str, direction: str, script: str) -> None:
    expected = harfbuzz(text, direction, script)
    clusters = SHAPER.shape(text).clusters
    assert sum(c.advance for c in clusters) == pytest.approx(sum(advance for _, advance in expected), abs=1e-3)
    assert [glyph for c in reversed(clusters) for glyph in glyph_ids(c)] == [glyph for glyph, _ in expected]


# The examples of UAX #9, section 3.4: capitals stand for Hebrew letters, > and < for RLI and LRI, = for PDI.
@pytest.mark.parametrize(
    ("logical", "levels"),
    [
        ("car means CAR.", "00000000001110"),
        (">car MEANS CAR.=", "0222111111111110"),
        ('he said ">car MEANS CAR=." ">IT DOES=," she agreed.', "000000000022211111111110000001111111000000000000000"),
        ("DID YOU SAY '<he said \">car MEANS CAR=\"='?", "111111111111112222222222444333333333322111"),
        # Numbers, brackets (N0), separators and blanks at the end (L1).
        ("A 1-2, 3", "11222112"),
        ("a (B) c", "0001000"),
        ("A (b) C", "1112111"),
        ("A(b[C]d)", "11211121"),
        ("a B\tC ", "001010"),
        ("a\u0301B\u05b8", "0011"),
    ],
)
def test_levels_are_those_of_the_standard(logical: str, levels: str) -> None:
    text = "".join(
        chr(0x5D0 + ord(c) - 65) if "A" <= c <= "Z" else {">": "\u2067", "<": "\u2066", "=": "\u2069"}.get(c, c) for c in logical
    )
    found, base = embedding_levels(text)
    assert "".join(map(str, found)) == levels
    assert base == int(logical[0].isupper())
    shaped = SHAPER.shape(text)
    assert np.array_equal(shaped.levels, found)
    assert shaped.base_level == base


# Without tabs: get_display gets rule L1 wrong where an embedding control stands before one (ICU and FriBidi agree with us).
@given(st.text(st.sampled_from("abאבסل12٣ ,.-+$\u0301\u05b8\u200e\u200f\u202b\u202d\u202c\u2067\u2069👩")))
def test_levels_put_text_in_the_order_that_python_bidi_gives(text: str) -> None:
    levels, _ = embedding_levels(text)
    order = list(range(len(text)))
    for level in range(int(levels.max(initial=0)), 0, -1):  # rule L2
        place = 0
        for high, group in itertools.groupby(order, key=lambda i: bool(levels[i] >= level)):
            run = list(group)
            order[place : place + len(run)] = run[::-1] if high else run
            place += len(run)
    # Where embedding controls go is nobody's business (rule X9).
    removed = dict.fromkeys(map(ord, "\u202b\u202c\u202d"))
    assert "".join(text[i] for i in order).translate(removed) == get_display(text).translate(removed)


def test_levels_of_a_long_text_do_not_depend_on_where_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "he said שלום 123 עולם, (הכל 4.5) and 'ב' went على 12 مهل. " * 40
    whole = embedding_levels(text)[0]
    monkeypatch.setattr(shaping, "_LEVELS_AT_ONCE", 100)
    assert np.array_equal(embedding_levels(text)[0], whole)


def test_left_to_right_text_is_level_0() -> None:
    shaped = SHAPER.shape("Only café\u0301 here, 12:30")
    assert not shaped.levels.any()
    assert shaped.base_level == 0
    assert SHAPER.shape("").clusters == ()


def test_fonts_fall_back_by_cluster() -> None:
    text = "aשָׁb"
    shaped = CHAIN.shape(text)
    assert [(c.font, text[c.start : c.end]) for c in shaped.clusters] == [(0, "a"), (1, "שָׁ"), (0, "b")]
    # The glyphs are those of the font named.
    assert shaped.clusters[1].glyphs == SHAPER.shape("שָׁ").clusters[0].glyphs
    # A base that only the second font has takes its mark along; one whose mark no font has stays with its own font.
    assert [c.font for c in CHAIN.shape("ש\u0301").clusters] == [1]
    [partly] = CHAIN.shape("a\U0001e8d0").clusters
    assert (partly.font, partly.missing, 0 in glyph_ids(partly)) == (0, False, True)


def test_what_no_font_has_is_missing() -> None:
    clusters = SHAPER.shape("א中文א").clusters
    assert [c.missing for c in clusters] == [False, True, True, False]
    assert all(not c.glyphs and c.advance > 0 for c in clusters if c.missing)
    # Also when it is several code points; and nothing else is lost around it.
    assert [c.missing for c in SHAPER.shape("a👩\u200d🚀\u0301b").clusters] == [False, True, False]


@pytest.mark.parametrize("control", "\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufe0f\ufeff\U000e0101")
def test_controls_are_neither_drawn_nor_missing(control: str) -> None:
    alone = SHAPER.shape(control).clusters
    assert alone == (Cluster(0, 1, 0, (), 0.0, False),)
    beside = SHAPER.shape(f"中{control}א{control} ").clusters
    assert sum(c.missing for c in beside) == 1
    assert sum(c.advance for c in beside) == pytest.approx(sum(c.advance for c in SHAPER.shape("中א ").clusters))


@given(UNICODE | KNOTTY)
def test_clusters_cover_any_text_once_in_order(text: str) -> None:
    for shaper in (CHAIN, Shaper([SANS], SIZE, cell=7)):
        shaped = shaper.shape(text)
        assert [c.start for c in shaped.clusters] == [0, *(c.end for c in shaped.clusters)][:-1]
        assert (shaped.clusters[-1].end if shaped.clusters else 0) == len(text)
        assert all(c.start < c.end <= c.start + shaping.LONGEST and not (c.missing and c.glyphs) for c in shaped.clusters)
        assert len(shaped.levels) == len(text)
        # A cluster never straddles two directions.
        assert all(len(set(shaped.levels[c.start : c.end].tolist())) == 1 for c in shaped.clusters)


@given(st.lists(KNOTTY | st.sampled_from([ARABIC, HEBREW])))
def test_the_cache_changes_nothing(texts: list[str]) -> None:
    warm, cold = Shaper([MONO, SANS], SIZE), Shaper([MONO, SANS], SIZE, cache=1)
    for text in texts * 2:
        first, second, third = warm.shape(text), cold.shape(text), CHAIN.shape(text)
        assert first.clusters == second.clusters == third.clusters
    assert cold._unit.cache_info().currsize <= 1


def test_threads_share_a_shaper() -> None:
    shaper = Shaper([MONO, SANS], SIZE, cache=4)
    expected = CHAIN.shape(ARABIC + HEBREW).clusters
    wrong: list[int] = []

    def work(number: int) -> None:
        if any(shaper.shape(ARABIC + HEBREW).clusters != expected for _ in range(20)):
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_grid_gives_every_cluster_its_cell() -> None:
    grid = Shaper([MONO, SANS], SIZE, cell=7)
    text = "לא x\u0301 سلام\u200f 中ｗ\u200b"
    clusters = grid.shape(text).clusters
    advances = {text[c.start : c.end]: c.advance for c in clusters}
    assert [advances[s] for s in ("ל", " ", "x\u0301", "س", "لا", "\u200f", "中", "ｗ", "\u200b")] == [7, 7, 7, 7, 7, 0, 14, 14, 0]


HOSTILE: dict[str, Callable[[int], str]] = {
    "marks": lambda n: "e" + "\u0301" * n,
    "marks alone": lambda n: "\u0301" * n,
    "one syllable": lambda n: "क\u094d" * (n // 2),
    "joiners": lambda n: "👩\u200d" * (n // 2),
    "flags": lambda n: "🇩" * n,
    "brackets": lambda n: "א" + "(" * n,
    "two scripts": lambda n: "aα" * (n // 10),
    "blanks": lambda n: " " * n + "א" + " " * n,
    "isolates": lambda n: "\u2067" * n + "א",
    "one word": lambda n: "ب" * n,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_time_grows_as_the_text_does(make: Callable[[int], str]) -> None:
    """Eight times the text takes about eight times the work, and 64 times if any step were quadratic: whatever the box, and by this
    thread's own time, whatever else it does. Measured again when in doubt.
    """

    def took(n: int) -> float:
        text = make(n)
        start = time.thread_time()
        assert SHAPER.shape(text).clusters[-1].end == len(text)
        return time.thread_time() - start

    took(12_500)  # fills caches
    short = min(took(12_500) for _ in range(3))
    assert any(took(100_000) < 24 * short for _ in range(3))


def test_complex_is_what_one_glyph_per_code_point_gets_wrong() -> None:
    codepoints = np.array([c for c in range(0x110000) if not 0xD800 <= c < 0xE000], np.uint32)
    found = dict(zip(map(chr, codepoints.tolist()), needs_shaping(codepoints).tolist(), strict=True))
    for character, is_complex in found.items():
        right_to_left = unicodedata.bidirectional(character) in (
            "R",
            "AL",
            "AN",
            "RLE",
            "RLO",
            "RLI",
            "LRE",
            "LRO",
            "LRI",
            "FSI",
            "PDF",
            "PDI",
        )
        if unicodedata.category(character).startswith("M") or right_to_left:
            assert is_complex, ascii(character)
    simple = regex.compile(
        r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Han}\p{Hiragana}\p{Katakana}\p{Armenian}\p{Georgian}--[\p{M}]]", regex.VERSION1
    )
    assert not [c for c, is_complex in found.items() if is_complex and simple.match(c)]
    assert not any(found[c] for c in "\n\t 09~£–“”…€←■☺😀👩🚀가힣、。Ω")
    assert all(found[c] for c in "\u00ad\u200b\u200d\ufe0f\ufeff\u20e3🇩🏽ᄒ\u1161กກཀကកᠠߊܐހकবமතꦏ")


@pytest.mark.parametrize("content", [None, b"", b"not a font"])
def test_a_font_that_cannot_be_used_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "bad.ttf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StyleError, match=r"bad\.ttf"):
        Shaper([SANS, file], SIZE)
