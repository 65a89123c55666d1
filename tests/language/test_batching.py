"""The step loop: who is in a step, who waits, who is gone, and that nobody's tokens depend on the others."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt import Answer, Document, Limits, Progress, Runtime, Sampling
from glyph_rt.errors import ClosedError, NonFiniteError
from glyph_rt.language import KVTail, Past, Turn, batching
from glyph_rt.language.attention import StepBatch
from glyph_rt.language.batching import PAGES_AHEAD, Reading, fairly
from glyph_rt.language.rows import Rows
from glyph_rt.language.stopping import Marks
from tests.conftest import TEXT
from tests.test_runtime import QUESTIONS, StockModel, eventually

OTHER = "".join(f"line {n}: {n * 7919 % 1000}\n" for n in range(45))


class Watch:
    """The rows of every step; and a gate that holds the loop before a step until it is opened. before: called before a step, on the
    loop's thread.
    """

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.before: Callable[[], None] = lambda: None
        forward = runtime.model.forward

        def watched(embeddings: torch.Tensor, positions: torch.Tensor, batch: StepBatch) -> torch.Tensor:
            assert self.gate.wait(60)
            self.before()
            self.steps.append([span.stop - span.start for span in batch.spans])
            return forward(embeddings, positions, batch)

        monkeypatch.setattr(runtime.model, "forward", watched)


@pytest.fixture
def watch(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(runtime, monkeypatch)


def endless(document: Document, question: str = QUESTIONS[0], **options: Any) -> Answer:
    return document.ask(question, Sampling(max_new_tokens=200, draft=False), **options)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}], ids=str)
def test_many_answers_at_once_have_the_tokens_they_have_alone(runtime: Runtime, watch: Watch, sampling: dict[str, float]) -> None:
    """Questions of several lengths on two documents, joining while others run, with and without drafts."""
    questions = [f"What is {'x' * (17 * n % 60)} {n}?" for n in range(10)]
    options = [Sampling(max_new_tokens=6 + 5 * n % 30, seed=n, draft=n % 2 == 0, **sampling) for n in range(10)]  # type: ignore[arg-type]
    with runtime.read(TEXT) as one, runtime.read(OTHER) as two:
        alone = [(one, two)[n % 2].ask(questions[n], options[n]).text for n in range(10)]
        before = len(watch.steps)
        watch.gate.clear()
        together = [(one, two)[n % 2].ask(questions[n], options[n]) for n in range(8)]
        watch.gate.set()
        eventually(lambda: len(watch.steps) > before + 3)
        together += [(one, two)[n % 2].ask(questions[n], options[n]) for n in (8, 9)]
        assert [answer.text for answer in together] == alone
        assert max(len(step) for step in watch.steps) >= 8


def test_tokens_of_a_batch_are_transformers_own(runtime: Runtime, watch: Watch) -> None:
    with runtime.read(TEXT) as one, runtime.read(OTHER) as two:
        watch.gate.clear()
        asked = [(document, question, endless(document, question)) for document in (one, two) for question in QUESTIONS]
        watch.gate.set()
        for document, question, answer in asked:
            for _ in answer.steps():
                if len(answer.tokens) == 24:
                    break
            assert answer.tokens == StockModel(runtime, document.text).generate(question, 24)
            answer.close()
        assert max(len(step) for step in watch.steps) == 4


def test_a_reading_holds_an_answer_up_by_one_page_a_step(runtime: Runtime, watch: Watch) -> None:
    runtime.template.marks = Marks(frozenset())
    with runtime.read(TEXT) as document:
        answer = endless(document)
        eventually(lambda: len(watch.steps[-1]) == 1 and watch.steps[-1][0] == 1)
        watch.steps.clear()
        with runtime.read(OTHER) as other:
            pages = [rows for step in watch.steps for rows in step if rows > 1]
            assert len(pages) == other.measure.pages, "every page once, and no two in one step"
            assert all(step.count(1) == 1 or answer._turn.resting or answer._turn.finish_reason for step in watch.steps)
            assert max(sum(step) for step in watch.steps) <= max(name.tokens for name in other._names) + 1
        answer.close()


def test_readings_take_turns_page_by_page(runtime: Runtime, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short reading beside a long one waits for one page of it at a time, not for all."""
    taken: list[Reading] = []
    take = Reading.take
    monkeypatch.setattr(Reading, "take", lambda reading: (taken.append(reading), take(reading))[1])
    watch.gate.clear()
    threads = [threading.Thread(target=lambda text=text: runtime.read(text).close()) for text in (OTHER * 3, TEXT)]
    readings = runtime.loop._readings
    for n, thread in enumerate(threads):
        thread.start()
        eventually(lambda n=n: len(readings) > n and len(readings[n].waiting) + (readings[n].running is not None) == PAGES_AHEAD)
    long, short = readings
    watch.gate.set()
    for thread in threads:
        thread.join(60)
    assert taken.count(short) == 2 and taken.count(long) > 12
    assert taken[:4] == [long, short, long, short]


def test_whoever_is_cancelled_is_gone_before_the_next_step(runtime: Runtime, watch: Watch) -> None:
    runtime.template.marks = Marks(frozenset())
    with runtime.read(TEXT) as document:
        watch.gate.clear()
        answers = [endless(document, question) for question in QUESTIONS]
        both, may_go_on = threading.Event(), threading.Event()

        def hold_once_both_are_answered() -> None:
            if watch.steps[-1] == [1, 1]:
                both.set()
                assert may_go_on.wait(60)

        watch.before = hold_once_both_are_answered
        watch.gate.set()
        assert both.wait(60)
        answers[0].cancel()
        held = runtime.arena.used
        before = len(watch.steps)
        may_go_on.set()
        eventually(lambda: runtime.arena.used < held)
        eventually(lambda: len(watch.steps) > before + 3)
        assert len(watch.steps[before]) == 2 and all(len(step) == 1 for step in watch.steps[before + 1 :]), "but for the step under way"
        answers[1].close()
    assert runtime.arena.used == 0


def test_a_reading_that_is_stopped_leaves_nothing_behind(runtime: Runtime, watch: Watch) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with runtime.read(TEXT) as document:
        answer = endless(document)
        with pytest.raises(KeyboardInterrupt):
            runtime.read(OTHER, stop)
        assert runtime.arena.used <= document.kv_bytes + answer.kv_bytes and not runtime.loop._readings
        assert answer.text == endless(document).text
        reading = runtime.loop.reading(Past((), KVTail(runtime.model.kv_shape, 60)))
        reading.close()
        with pytest.raises(ClosedError):
            reading.add(runtime.template.page(1, 0, 10, 5), torch.zeros(50, 128))


def test_a_long_question_is_prefilled_in_parts(runtime: Runtime, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Why " * 200
    with runtime.read(TEXT) as document:
        whole = document.ask(question, Sampling(max_new_tokens=8)).text
        monkeypatch.setattr("glyph_rt.language.turn.PREFILL_ROWS", 100)
        monkeypatch.setattr(batching, "PREFILL_ROWS", 100)
        watch.steps.clear()
        answers = [document.ask(question, Sampling(max_new_tokens=8)) for _ in range(2)]
        assert [answer.text for answer in answers] == [whole, whole]
        assert max(sum(step) for step in watch.steps) <= 100 + 33


# -- failures


def test_noise_ends_the_one_answer_that_met_it(runtime: Runtime, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime.read(TEXT) as document:
        expected = [endless(document, question).text for question in QUESTIONS]
        logits = runtime.model.logits
        calls = iter(range(10**6))

        def noisy(hidden: torch.Tensor) -> torch.Tensor:
            out = logits(hidden)
            if len(out) == 2 and next(calls) == 3:
                out[1] = torch.nan
            return out

        monkeypatch.setattr(runtime.model, "logits", noisy)
        watch.gate.clear()
        answers = [endless(document, question) for question in QUESTIONS]
        watch.gate.set()
        failed = 0
        for answer, text in zip(answers, expected, strict=True):
            try:
                assert answer.text == text
            except NonFiniteError:
                failed += 1
        assert failed == 1
        assert runtime.arena.used == document.kv_bytes


ALLOCATIONS = (
    "torch.empty in a tail", "model.embed", "model.forward", "model.logits", "encoder.encode", "Sampler.next", "Drafter.propose",
    "template.stream", "arena.admit", "Reservation.split", "store.extend", "encoded.put", "typesetter.layout",
)  # fmt: skip


class Failing:
    """Lets the n-th call of anything that allocates in a request's life fail."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.calls: list[str] = []
        from glyph_rt.language import drafting, sampling, segments
        from glyph_rt.memory import arena

        places: list[tuple[Any, str, str]] = [
            (segments.KVTail, "__init__", ALLOCATIONS[0]),
            *((runtime.model, name, f"model.{name}") for name in ("embed", "forward", "logits")),
            (runtime.encoder, "encode", "encoder.encode"),
            (sampling.Sampler, "next", "Sampler.next"),
            (drafting.Drafter, "propose", "Drafter.propose"),
            (runtime.template, "stream", "template.stream"),
            (runtime.arena, "admit", "arena.admit"),
            (arena.Reservation, "split", "Reservation.split"),
            (runtime.store, "extend", "store.extend"),
            (runtime._reader.encoded, "put", "encoded.put"),
            (runtime.typesetter, "layout", "typesetter.layout"),
        ]
        for owner, name, label in places:
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name), label))

    def wrap(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(label)
            self.left -= 1
            if self.left == 0:
                raise MemoryError(label)
            return function(*args, **kwargs)

        return wrapped


def test_whichever_allocation_fails_nothing_leaks_and_others_go_on(random_model: Path, tmp_path: Path) -> None:
    """One request's life: read, ask, ask again behind it, append; another answer runs beside it all the time."""
    with Runtime.open(random_model, encoder="torch", store=tmp_path, limits=Limits(encoded_bytes=2**20)) as runtime:
        with runtime.read("beside") as beside, pytest.MonkeyPatch.context() as monkeypatch:
            runtime.template.marks = Marks(frozenset())
            expected = beside.ask("Who?", Sampling(max_new_tokens=60)).text
            failing = Failing(runtime, monkeypatch)

            def life() -> str:
                with runtime.read(TEXT) as document:
                    first = document.ask(QUESTIONS[0], Sampling(max_new_tokens=4), keep=True)
                    with first:
                        found = first.text
                        with document.append(TEXT) as longer:
                            found += document.ask("Why?", Sampling(max_new_tokens=3), after=first).text
                            return found + longer.ask("Why?", Sampling(max_new_tokens=2)).text

            whole = life()
            assert set(failing.calls) == set(ALLOCATIONS)
            count, refused = len(failing.calls), 0
            base = runtime.arena.used
            for n in range(1, count + 1):
                runtime._reader.encoded._values.clear()
                runtime._reader.encoded._bytes = 0
                other = beside.ask("Who?", Sampling(max_new_tokens=60))
                failing.left = n
                try:
                    assert life() == whole
                except MemoryError:
                    refused += 1
                failing.left = -1
                try:
                    assert other.text == expected
                except MemoryError:  # it was this one's own
                    refused += 1
                runtime.store.settle()
                assert runtime.arena.used == base, f"after {failing.calls[-1]} failed"
                runtime.store.check_integrity()
                runtime.arena.check_integrity()
            assert refused > count / 3
        assert runtime.arena.used == runtime.texts.used == 0


def test_a_defect_in_the_loop_reaches_whoever_waits(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime.read(TEXT) as document:
        with monkeypatch.context() as broken:
            broken.setattr(batching, "fairly", lambda _: 1 / 0)
            broken.setattr(threading, "excepthook", lambda _: None)
            with pytest.raises(ZeroDivisionError):
                _ = endless(document).text
        assert document.ask(QUESTIONS[0], Sampling(max_new_tokens=3)).text is not None, "the next work starts another thread"


# -- fairness


class Waiting:
    """A participant by its figures alone."""

    def __init__(self, subject: str, priority: int, served: int) -> None:
        self.subject: Hashable = subject
        self.priority, self.served = priority, served

    def rows(self) -> Rows: ...  # type: ignore[empty-body]
    def accept(self, rows: Rows, logits: torch.Tensor) -> None: ...
    def fail(self, error: BaseException) -> None: ...


SUBJECTS = ["a", "b", "c"]


@given(st.lists(st.tuples(st.sampled_from(SUBJECTS), st.integers(0, 2), st.integers(0, 9)), max_size=20))
def test_order_is_by_priority_then_documents_in_turn(entries: list[tuple[str, int, int]]) -> None:
    waiting = [Waiting(*entry) for entry in entries]
    order = fairly(waiting)
    assert sorted(map(id, order)) == sorted(map(id, waiting))
    assert [p.priority for p in order] == sorted((p.priority for p in waiting), reverse=True)
    for priority in {p.priority for p in waiting}:
        same = [p for p in order if p.priority == priority]
        for head in range(len(same)):
            counts = {s: sum(p.subject == s for p in same[:head]) for s in {p.subject for p in same[head:]}}
            assert not counts or counts[same[head].subject] == min(counts.values()), "a document with fewer turns so far goes first"


def test_everyone_is_served_when_there_are_more_than_a_step_takes(runtime: Runtime, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "TURNS_PER_STEP", 3)
    with runtime.read(TEXT) as one, runtime.read(OTHER) as two:
        expected = [document.ask("?", Sampling(max_new_tokens=9)).text for document in (one, two)]
        watch.gate.clear()
        many = [one.ask("?", Sampling(max_new_tokens=9, draft=False)) for _ in range(7)]
        late = two.ask("?", Sampling(max_new_tokens=9, draft=False))
        urgent = one.ask("?", Sampling(max_new_tokens=9, draft=False), priority=1)
        done: list[Turn] = []
        for answer in (*many, late, urgent):
            end = answer._turn._on_end
            answer._turn._on_end = lambda turn=answer._turn, end=end: (done.append(turn), end())[1]  # type: ignore[misc]
        watch.gate.set()
        assert [answer.text for answer in many] == [expected[0]] * 7 and late.text == expected[1] and urgent.text == expected[0]
        assert max(len(step) for step in watch.steps) <= 3
        # The urgent one and the late one share every step, so either may end first.
        assert urgent._turn in done[:2] and late._turn in done[:4], "one on a document of its own does not wait for seven on another"


def test_the_thread_ends_when_nothing_is_left_to_do(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LINGER_S", 0.01)
    with runtime.read(TEXT) as document:
        for _ in range(2):
            assert document.ask(QUESTIONS[0], Sampling(max_new_tokens=3)).text is not None
            eventually(lambda: runtime.loop._thread is None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Same kernels, same sums, whatever else runs on this box."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_mixed_answers(document: Document, expected: Mapping[str, str], data: st.DataObject, counts: st.SearchStrategy[int]) -> None:
    """Answers to questions of `expected`: started, read a bit and cancelled in any order; those that are left say what is expected."""
    running: list[tuple[str, Answer]] = []
    for _ in range(data.draw(counts, "answers")):
        question = data.draw(st.sampled_from(list(expected)))
        running.append((question, document.ask(question, Sampling(draft=data.draw(st.booleans())))))
        if data.draw(st.booleans()):
            index = data.draw(st.integers(0, len(running) - 1))
            next(running[index][1].steps(), None)
            if data.draw(st.booleans()):
                running.pop(index)[1].close()
    assert all(answer.text == expected[question] for question, answer in running)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_mixture_gives_everyone_their_own_answer(reader_runtime: Runtime, data: st.DataObject) -> None:
    """Answers started, read a bit, cancelled and read out in any order, on the reader with its real weights."""
    with reader_runtime.read(TEXT) as document:
        questions = [f"What is the value of {key}?" for key in ("order number", "weight", "carrier", "door code")]
        expected = {question: document.ask(question).text for question in questions}
        assert_mixed_answers(document, expected, data, st.integers(1, 12))
    assert reader_runtime.arena.used == 0


SCRIPT = """
import time
from glyph_rt.language import batching

class Model:
    def __del__(self):
        time.sleep(0.5)
        print("let go")

batching.LINGER_S = 0.05
loop = batching.StepLoop(Model())
loop._wake()
del loop, Model
time.sleep(0.2)
"""


def test_a_process_waits_for_a_thread_that_lets_go_of_its_model() -> None:
    """Killed meanwhile, inside torch, it would abort the process."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "let go\n", "")
