"""The choice of a strategy, and what fits the window."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glyph_rt import Runtime, Sampling
from glyph_rt.errors import LimitError, OptionError
from glyph_rt.long import Choice, ReadingRules, Strategy
from glyph_rt.long.excerpts import PageMap
from glyph_rt.long.index import PageIndex
from glyph_rt.long.strategy import Window, choose
from glyph_rt.memory.limits import KVDtype

TEXT = "door code: 7731\n" + "".join(f"Line {n} of the common text.\n" for n in range(399))  # 40 pages


def choice(runtime: Runtime, question: str, window: int) -> Choice:
    pages = PageMap.of(runtime.typesetter.layout(TEXT))
    return choose(question, pages, Window.of(runtime, "", question, Sampling(), window), lambda: PageIndex(pages))


@pytest.mark.parametrize(
    ("question", "window", "strategy", "reason"),
    [
        ("What is the door code?", 40, Strategy.WHOLE, "40 pages fit the 40-page window"),
        (
            "What is the door code?",
            5,
            Strategy.RETRIEVE_PAGES,
            "do not fit the 5-page window; the question names words that stand on few pages",
        ),
        ("What is the common text?", 5, Strategy.MAP_REDUCE, "words stand on too many pages to choose among"),
        ("Who signed?", 5, Strategy.MAP_REDUCE, "the question's words stand on no page"),
        ("How many door codes are there?", 5, Strategy.MAP_REDUCE, "asks about all of the text"),
        ("List them.", 5, Strategy.MAP_REDUCE, "asks about all of the text"),
        ("What is the door list price?", 5, Strategy.RETRIEVE_PAGES, "words that stand on few pages"),
        ("总结这份文件", 5, Strategy.MAP_REDUCE, "asks about all of the text"),
    ],
)
def test_auto_says_why(reader_runtime: Runtime, question: str, window: int, strategy: Strategy, reason: str) -> None:
    made = choice(reader_runtime, question, window)
    assert made.strategy is strategy and reason in made.reason


def test_what_the_window_holds_can_be_read_and_asked(reader_runtime: Runtime) -> None:
    """To the page: by the KV budget for real, by the context in figures."""
    question, sampling = "What is the door code?", Sampling(max_new_tokens=40)
    page = reader_runtime.style.visual_tokens
    runtime = reader_runtime.with_kv(12 * (page + 2) * reader_runtime.model.kv_shape.bytes_per_token)
    window = Window.of(runtime, "", question, sampling, None)
    fits, too_long = ("line\n" * 10 * pages for pages in (window.pages, window.pages + 1))
    assert 5 < window.pages < 20 and window.holds(runtime.measure(fits)) and not window.holds(runtime.measure(too_long))
    with runtime.read(fits) as document:
        document.ask(question, sampling).close()
    with pytest.raises(LimitError), runtime.read(too_long) as document:
        document.ask(question, sampling)
    assert Window.of(runtime, "", question, sampling, 7).pages == 7
    whole = Window.of(reader_runtime, "", question, sampling, None)
    asked = len(reader_runtime.template.question(question, 0).tokens) + 40
    most = [
        reader_runtime.template.document_tokens(n, page * n) + asked <= reader_runtime.model.context for n in (whole.pages, whole.pages + 1)
    ]
    assert most == [True, False]
    with pytest.raises(LimitError, match=r"no room for a page .* --max-new-tokens"):
        Window.of(reader_runtime, "", question, Sampling(max_new_tokens=8170), None)


@pytest.mark.parametrize("kv_dtype", KVDtype)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(max_new_tokens=40)], ids=["default", "short"])
def test_a_full_window_is_answered_whatever_its_kv_is_kept_in(reader_runtime: Runtime, kv_dtype: KVDtype, sampling: Sampling) -> None:
    """Question and answer keep the model's own numbers, and room for as many tokens as they may come to."""
    opened = reader_runtime
    budget = 20 * (opened.style.visual_tokens + 2) * opened.model.kv_shape.bytes_per_token
    limits = replace(opened.limits, kv_bytes=budget, kv_dtype=kv_dtype)
    runtime = Runtime(opened.checkpoint, opened.typesetter, opened.encoder, opened.model, opened.template, limits)
    window = Window.of(runtime, "", "What is the door code?", sampling, None)
    with runtime.read("line\n" * 10 * window.pages) as document:
        document.ask("What is the door code?", sampling).close()
    with pytest.raises(LimitError), runtime.read("line\n" * 10 * (window.pages + 1)) as document:
        document.ask("What is the door code?", sampling)
    assert kv_dtype is KVDtype.MODEL or window.pages > Window.of(opened.with_kv(budget), "", "?", sampling, None).pages


def test_options_out_of_range_are_refused() -> None:
    for rules in ({"window": 0}, {"parts": 0}):
        with pytest.raises(OptionError, match="at least 1"):
            ReadingRules(**rules)
    with pytest.raises(OptionError, match="no strategy 'half'; choose one of: auto, whole"):
        Strategy.parse("half")
