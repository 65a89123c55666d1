"""Pages that look otherwise, and keys that are almost a document's own."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.looks import Look, any_look
from glyph_rt.export.reader.samples import SampleMaker, Shape
from glyph_rt.export.reader.shares import Shares
from glyph_rt.export.reader.vocabulary import TRAINING
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.typeset import PRESETS, Typesetter

READER = Typesetter(PRESETS["reader"])
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_any_look_has_every_character_in_its_cell(seed: int) -> None:
    """Else answers would point at other characters than those that are read."""
    text = Writer(TRAINING, seed).draft(900, 0.4).text
    look = any_look(random.Random(seed), READER.style)
    pages = [(page.width, page.height, page.lines.tolist()) for page in look.typesetter.pages(text)]
    assert pages == [(page.width, page.height, page.lines.tolist()) for page in READER.pages(text)]
    assert look.paper < look.ink


@given(SEEDS, st.integers(-1, 1), st.integers(-1, 1))
@settings(max_examples=30, deadline=None)
def test_a_page_moves_by_pixels(seed: int, right: int, down: int) -> None:
    page = next(iter(READER.pages(Writer(TRAINING, seed).draft(600, 0.4).text)))
    found = replace(page, patches=Look(READER, right=right, down=down).drawn(page)).pixels()
    levels = np.pad(page.pixels(), 1, constant_values=255)
    assert (found == levels[1 - down : 1 - down + page.height, 1 - right : 1 - right + page.width]).all()


def test_colours_are_those_of_a_style_that_has_them() -> None:
    grey = replace(READER.style, font_color="#404040", page_bg_color="#E0E0E0", para_bg_color="#E0E0E0")
    text = Writer(TRAINING, 4).draft(500, 0.4).text
    wanted, drawn = (next(iter(typesetter.pages(text))) for typesetter in (Typesetter(grey), READER))
    look = Look(READER, ink=(255 - 0x40) / 255, paper=(255 - 0xE0) / 255)
    difference = np.abs(look.drawn(drawn).astype(int) - wanted.patches)
    assert difference.max() <= 1, "but for rounding"


def test_documents_look_otherwise_when_asked_to() -> None:
    shapes = [Shape(1, 40, 64, transcribe=True, looks=looks) for looks in (0.0, 1.0)]
    plain, other = (SampleMaker(READER, Writer(TRAINING, 9)).batch(shape).patches.reshape(40, -1) for shape in shapes)
    assert plain.min(axis=1).max() == 0, "white paper"
    assert 10 < (other.min(axis=1) > 0).sum() < 30, "every second document has another"


def test_near_keys_differ_in_a_word_or_a_digit_from_one_that_has_a_value() -> None:
    writer = Writer(TRAINING, 27, Shares(near=1))
    digits = words = 0  # such keys
    for _ in range(150):
        draft = writer.draft(900, 0.5)
        if (key := writer.absent_key(draft, draft.text)) is None:
            continue
        assert not any(key.lower() in fact.key.lower() or fact.key.lower() in key.lower() for fact in draft.facts)
        parts = re.split("([ _])", key)
        like = [other for fact in draft.facts if len(other := re.split("([ _])", fact.key)) == len(parts)]
        differing = [[(a, b) for a, b in zip(parts, other, strict=True) if a != b] for other in like]
        assert any(len(pairs) == 1 for pairs in differing)
        words += len(parts) > 1
        digits += any(re.sub(r"\d", "", a) == re.sub(r"\d", "", b) for pairs in differing if len(pairs) == 1 for a, b in pairs)
    assert digits > 5 and words > 40
