"""Several questions on one reading, in memory that others want too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from glyph_rt import Answer, Document, Limits, Runtime, Sampling
from glyph_rt.language.stopping import Marks
from glyph_rt.language.turn import UNREAD_TOKENS
from glyph_rt.long import asking
from glyph_rt.long.asking import Asking, Watch, put
from tests.conftest import TEXT
from tests.test_runtime import QUESTIONS, eventually


def test_a_question_beside_running_answers_does_not_wait_for_memory(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait behind somebody who needs what the running answer has, and that rests, since nobody reads it meanwhile."""
    limits = Limits(kv_bytes=2**21, wait_s=600)
    with Runtime.open(random_model, encoder="torch", store=tmp_path, limits=limits) as runtime, runtime.read(TEXT) as document:
        runtime.template.marks = Marks(frozenset())  # answers end by their length
        sampling = Sampling(max_new_tokens=UNREAD_TOKENS + 20)
        expected = [document.ask(question, sampling).text for question in QUESTIONS]
        order: list[str] = []

        def want_much() -> None:
            room = runtime.arena.reserve(runtime.arena.budget, "somebody else")
            order.append("somebody else")
            room.release()

        somebody = threading.Thread(target=want_much, daemon=True)
        is_room = asking._is_room

        def somebody_comes(document: Document, last: Answer) -> bool:
            if somebody.ident is None:
                somebody.start()
                eventually(lambda: len(runtime.arena._queue) == 1)
            assert is_room(document, last)
            return True

        monkeypatch.setattr(asking, "_is_room", somebody_comes)

        def ask() -> None:
            for number, answer in put(document, {n: Asking(q, sampling) for n, q in enumerate(QUESTIONS)}, Watch(None, 0, 0)):
                assert isinstance(answer, Answer) and answer.text == expected[number]
                order.append(QUESTIONS[number])

        asks = threading.Thread(target=ask, daemon=True)
        asks.start()
        asks.join(60)
        assert len(order) == 3 and order.index("somebody else") < order.index(QUESTIONS[1])
        somebody.join(10)
