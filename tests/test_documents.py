"""Documents that are shared, appended to, evicted and restored, and conversations: always the tokens of a cold run by transformers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from glyph_rt import Answer, Document, Limits, Progress, Runtime, Sampling
from glyph_rt.errors import BusyError, InputError, LimitError
from glyph_rt.language.stopping import Marks
from tests.conftest import TEXT
from tests.test_runtime import LONG, QUESTIONS, StockModel, answer_tokens, eventually

LONGER = TEXT + "\n".join(f"line {n}: {n * 7919 % 1000}" for n in range(30))
MORE = "\nAppended later: the door is green.\n" * 12


def opened(model: Path, store: Path, **limits: float) -> Runtime:
    return Runtime.open(model, encoder="torch", store=store, limits=Limits(**limits))  # type: ignore[arg-type]


def test_reading_a_text_again_prefills_and_reserves_nothing(runtime: Runtime) -> None:
    seen: list[Progress] = []
    with runtime.read(LONGER) as first:
        used, steps = runtime.arena.used, runtime.loop.steps
        with runtime.read(LONGER, seen.append) as again:
            assert (runtime.arena.used, runtime.loop.steps) == (used, steps) and again.prefilled_tokens == 0
            assert again.digest == first.digest and seen == [Progress("read", first.measure.pages, first.measure.pages)]
            assert again.timings.encode_s == again.timings.prefill_s == 0
            first.close()
            assert runtime.arena.used == used, "the other document still wants it"
            assert answer_tokens(again, QUESTIONS[0]) == StockModel(runtime, LONGER).generate(QUESTIONS[0], 24)
    assert runtime.arena.used == 0


def test_tenants_share_nothing(runtime: Runtime) -> None:
    with runtime.read(TEXT, tenant="a") as first, runtime.read(TEXT, tenant="b") as second:
        assert first.digest != second.digest and second.prefilled_tokens == second.tokens
        assert runtime.arena.used == first.kv_bytes + second.kv_bytes


def test_appending_prefills_the_changed_and_new_pages_only_and_answers_as_a_cold_run(runtime: Runtime) -> None:
    with runtime.read(LONGER) as document, document.append(MORE) as longer:
        assert longer.text == LONGER + MORE and longer.measure.pages > document.measure.pages
        kept = sum(name.tokens for name in document._names[:-1])
        assert longer.prefilled_tokens == longer.tokens - kept
        assert runtime.arena.used == document.kv_bytes + longer.kv_bytes - kept * runtime.plan().kv_per_token
        stock, before = StockModel(runtime, LONGER + MORE), StockModel(runtime, LONGER)
        for question in QUESTIONS:
            assert answer_tokens(longer, question) == stock.generate(question, 24)
            assert answer_tokens(document, question) == before.generate(question, 24)
        both = [document.ask(QUESTIONS[0], LONG), longer.ask(QUESTIONS[0], LONG), document.ask(QUESTIONS[1], LONG)]
        assert [answer.text for answer in both[:2]] == [document.ask(QUESTIONS[0], LONG).text, longer.ask(QUESTIONS[0], LONG).text]
        document.close()
        assert answer_tokens(longer, QUESTIONS[0]) == stock.generate(QUESTIONS[0], 24)


@pytest.mark.parametrize("tier", ["host", "encoded", "text"])
def test_an_evicted_document_comes_back_by_itself(random_model: Path, tmp_path: Path, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"host": {"host_kv_bytes": 2**30}, "encoded": {}, "text": {"encoded_bytes": 0}}[tier]
    with opened(random_model, tmp_path, **limits) as runtime, runtime.read(LONGER) as document:
        expected = StockModel(runtime, LONGER).generate(QUESTIONS[0], 24)
        document.evict()
        assert runtime.arena.used == 0 and runtime.store.host_used == (document.kv_bytes if tier == "host" else 0)
        if tier != "text":
            monkeypatch.setattr(type(runtime.encoder), "encode", lambda *_: pytest.fail("a page was encoded again"))
        answer = document.ask(QUESTIONS[0], LONG)
        assert [*answer] and answer.tokens == expected
        assert answer.timings is not None and 0 < answer.timings.restore_s < answer.timings.prefill_s
        assert answer.usage.cached_tokens == (document.tokens if tier == "host" else 0)
        again = document.ask(QUESTIONS[0], LONG)
        assert again.text == answer.text and again.usage.cached_tokens == document.tokens
        assert again.timings is not None and again.timings.restore_s == 0
        runtime.store.check_integrity()
        runtime._reader.encoded.check_integrity()
    assert runtime.arena.used == runtime.store.host_used == 0


def test_idle_documents_give_way_and_running_answers_do_not(random_model: Path, tmp_path: Path) -> None:
    with opened(random_model, tmp_path, kv_bytes=2**20, waiting=0) as runtime:
        texts = [f"{n}: {TEXT}" for n in range(12)]
        documents = [runtime.read(text) for text in texts]
        assert sum(document.kv_bytes for document in documents) > runtime.arena.budget >= runtime.arena.used
        for text, document in zip(texts[::5], documents[::5], strict=True):
            assert answer_tokens(document, QUESTIONS[0]) == StockModel(runtime, text).generate(QUESTIONS[0], 24)
        runtime.template.marks = Marks(frozenset())
        running = []
        with pytest.raises(BusyError, match="Try again later, close documents or raise --kv-bytes"):
            for document in documents:
                running.append(document.ask(QUESTIONS[0], Sampling(max_new_tokens=400)))
        assert 0 < len(running) < len(documents)
        alone = [len(answer.text) > 0 for answer in running]
        assert all(alone)
        runtime.store.check_integrity()
        for document in documents:
            document.close()
        assert runtime.arena.used == 0


def test_who_finds_no_room_waits_for_it(random_model: Path, tmp_path: Path) -> None:
    with opened(random_model, tmp_path, kv_bytes=700_000, wait_s=600) as runtime, runtime.read(TEXT) as document:
        held = runtime.arena.reserve(runtime.arena.budget - document.kv_bytes, "somebody else")
        texts: list[str] = []
        thread = threading.Thread(target=lambda: texts.append(document.ask(QUESTIONS[0], LONG).text))
        thread.start()
        eventually(lambda: len(runtime.arena._queue) == 1)
        held.release()
        thread.join(60)
        assert texts == [document.ask(QUESTIONS[0], LONG).text]


def test_a_question_that_waits_does_not_keep_its_document_from_who_waits_in_front(random_model: Path, tmp_path: Path) -> None:
    """With its document pinned, the two would wait for each other until one is refused, after ten minutes here."""
    with opened(random_model, tmp_path, kv_bytes=700_000, wait_s=600) as runtime, runtime.read(TEXT) as document:
        expected = document.ask(QUESTIONS[0], LONG).text
        size = runtime.arena.budget - document.kv_bytes
        held = runtime.arena.reserve(size, "somebody else")
        texts: list[str] = []
        order: list[str] = []

        def want_more() -> None:
            room = runtime.arena.reserve(size + 1, "who is in front")
            order.append("in front")
            assert runtime.arena.used == size + 1, "the document went, though its question waits"
            room.release()

        def ask() -> None:
            texts.append(document.ask(QUESTIONS[0], LONG).text)
            order.append("question")

        threads = [threading.Thread(target=target, daemon=True) for target in (want_more, ask)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            eventually(lambda number=number: len(runtime.arena._queue) == number)  # type: ignore[misc]
        assert runtime.store.idle_bytes == document.kv_bytes
        held.release()
        for thread in threads:
            thread.join(30)
        assert order == ["in front", "question"] and texts == [expected]


def test_a_question_that_waits_does_not_keep_the_turn_that_it_follows(random_model: Path, tmp_path: Path) -> None:
    """What is kept of that is given back when it is closed; the question then runs it again."""
    with opened(random_model, tmp_path, kv_bytes=700_000, wait_s=600) as runtime, runtime.read(TEXT) as document:
        first = document.ask(QUESTIONS[0], Sampling(max_new_tokens=5), keep=True)
        assert first.text is not None
        expected = document.ask("Why?", LONG, after=first).text
        held = runtime.arena.reserve(runtime.arena.budget - runtime.arena.used, "somebody else")
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(document.ask("Why?", LONG, after=first)), daemon=True)
        thread.start()
        eventually(lambda: len(runtime.arena._queue) == 1)
        before = runtime.arena.used
        first.close()
        assert runtime.arena.used == before - first.kv_bytes
        held.release()
        thread.join(30)
        assert answers[0].text == expected and answers[0].prefilled_tokens > len(runtime.template.follow_up("Why?")) + 1


def test_a_document_larger_than_what_it_shares_leaves_room_for_is_not_kept_out_by_it(random_model: Path, tmp_path: Path) -> None:
    """It begins like a document that fills most of the budget: sharing one page would keep all of that."""
    with opened(random_model, tmp_path, kv_bytes=1_000_000, waiting=0) as runtime:
        full = "".join(f"line {n} of many\n" for n in range(80))
        with runtime.read(full) as first, runtime.read(full[:150] + full[200:]) as second:
            assert first.kv_bytes + second.kv_bytes > 1_000_000 >= runtime.arena.used
            assert second.ask(QUESTIONS[0], Sampling(max_new_tokens=2)).text is not None


def test_open_texts_are_bounded(random_model: Path, tmp_path: Path) -> None:
    with opened(random_model, tmp_path, open_text_bytes=20_000) as runtime:
        documents = []
        with pytest.raises(BusyError, match="memory for texts"):
            while len(documents) < 100:
                documents.append(runtime.read(TEXT))
        documents.pop().close()
        documents.append(runtime.read(TEXT))
        del documents[0]  # dropped, not closed: noticed when room is wanted
        documents.append(runtime.read(TEXT))


# -- conversations


def conversation_ids(stock: StockModel, turns: list[tuple[str, list[int]]], question: str) -> dict[str, torch.Tensor]:
    """What transformers is given for `question` behind turns of a question and its answer's tokens."""
    inputs = stock.inputs(turns[0][0])
    tail: list[int] = []
    for n, (asked, tokens) in enumerate(turns):
        tail += (stock.runtime.template.follow_up(asked) if n else []) + tokens
    tail += stock.runtime.template.follow_up(question)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tail])], 1)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == stock.model.config.image_token_id).int()
    return inputs


@pytest.mark.parametrize("keep", [(True, True, True), (False, False, False), (True, False, True), (False, True, False)], ids=str)
def test_a_conversation_has_the_tokens_of_one_long_prompt(runtime: Runtime, keep: tuple[bool, ...]) -> None:
    questions = [*QUESTIONS, "And the weight?"]
    stock = StockModel(runtime, TEXT)
    with runtime.read(TEXT) as document:
        turns: list[tuple[str, list[int]]] = []
        answers: list[Answer] = []
        for question, kept in zip(questions, keep, strict=True):
            answer = document.ask(question, Sampling(max_new_tokens=9), after=answers[-1] if answers else None, keep=kept)
            list(answer)
            if turns:
                inputs = conversation_ids(stock, turns, question)
                with torch.inference_mode():
                    out = stock.model.generate(**inputs, max_new_tokens=9, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
                assert answer.tokens == [token for token in out if token not in runtime.template.stop_ids]
                assert answer.usage.prompt_tokens == inputs["input_ids"].shape[1]
            if keep == (True, True, True) and turns:
                most = len(runtime.template.follow_up(question)) + 1  # and the last token of the answer before, which was never run
                assert answer.prefilled_tokens <= most
            turns.append((question, answer.tokens))
            answers.append(answer)
        document.evict()
        assert document.ask("Again?", LONG, after=answers[-1]).text is not None
        for answer in answers:
            answer.close()
        assert runtime.arena.used == document.kv_bytes
    assert runtime.arena.used == 0


def test_a_kept_turn_that_is_closed_meanwhile_is_run_again(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document:
        first = document.ask(QUESTIONS[0], Sampling(max_new_tokens=5), keep=True)
        list(first)
        expected = document.ask("Why?", LONG, after=first).text
        running = document.ask("Why?", LONG, after=first)
        first.close()
        assert running.text == expected, "a running answer keeps what it stands on"
        assert document.ask("Why?", LONG, after=first).text == expected


def test_what_cannot_be_followed_is_refused(runtime: Runtime) -> None:
    with runtime.read(TEXT) as document, runtime.read("something else") as other:
        running = document.ask(QUESTIONS[0], LONG)
        with pytest.raises(InputError, match="not been read to its end"):
            document.ask("Why?", after=running)
        assert running.text is not None
        with pytest.raises(InputError, match="about another document"):
            other.ask("Why?", after=running)


# -- any sequence of all of it


class RuntimeMachine(RuleBasedStateMachine):
    """read, append, ask, follow up, read a bit, cancel, evict, close and drop, in any order, in little memory."""

    documents = Bundle("documents")
    answers = Bundle("answers")
    runtime: Runtime

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Document] = []
        self.running: list[Answer] = []
        self.expected: dict[tuple[str, str], str] = {}

    @initialize()
    def start(self) -> None:
        assert self.runtime.arena.used == 0

    @rule(target=documents, lines=st.integers(1, 16), who=st.sampled_from(["x", "y"]))
    def read(self, lines: int, who: str) -> Document | None:
        try:
            document = self.runtime.read("".join(f"{who} {n * 37 % 101}\n" for n in range(lines)))
        except LimitError:
            return None
        self.open.append(document)
        return document

    @rule(target=documents, document=documents)
    def append(self, document: Document | None) -> Document | None:
        if document not in self.open:
            return None
        try:
            longer = document.append("and so on\n" * 7)
        except LimitError:
            return None
        self.open.append(longer)
        return longer

    @rule(target=answers, document=documents, keep=st.booleans(), most=st.integers(1, 12), after=answers, follow=st.booleans())
    def ask(self, document: Document | None, keep: bool, most: int, after: Answer | None, follow: bool) -> Answer | None:
        if document not in self.open:
            return None
        usable = follow and after is not None and after.document is document and after.finish_reason in ("stop", "length")
        return self._ask(document, most, keep, after if usable else None)

    @rule(target=answers, document=documents)
    def ask_first(self, document: Document | None) -> Answer | None:
        return self._ask(document, 5, True, None) if document in self.open else None

    def _ask(self, document: Document, most: int, keep: bool, after: Answer | None) -> Answer | None:
        try:
            answer = document.ask("Which?", Sampling(max_new_tokens=most), after=after, keep=keep)
        except LimitError:
            return None
        self.running.append(answer)
        return answer

    @rule(answer=answers)
    def read_out(self, answer: Answer | None) -> None:
        if answer in self.running and answer.after is None and answer.finish_reason != "cancelled":
            known = self.expected.setdefault((answer.document.digest, str(answer._turn.max_new_tokens)), answer.text)
            assert answer.text == known, "whatever else happened, the same question gets the same answer"

    @rule(answer=consumes(answers))
    def close_answer(self, answer: Answer | None) -> None:
        if answer in self.running:
            answer.close()
            self.running.remove(answer)

    @rule(document=documents)
    def evict(self, document: Document | None) -> None:
        if document is not None:
            document.evict()

    @rule(document=consumes(documents))
    def close(self, document: Document | None) -> None:
        if document in self.open:
            document.close()
            self.open.remove(document)

    @invariant()
    def accounts_add_up(self) -> None:
        self.runtime.store.check_integrity()
        self.runtime.arena.check_integrity()
        self.runtime.texts.check_integrity()

    def teardown(self) -> None:
        for answer in self.running:
            answer.close()
        for document in self.open:
            document.close()
        assert self.runtime.arena.used == self.runtime.store.host_used == self.runtime.texts.used == 0
        eventually(lambda: not self.runtime.loop._turns and not self.runtime.loop._readings)


@pytest.fixture
def small(random_model: Path, tmp_path: Path) -> Iterator[Runtime]:
    with opened(random_model, tmp_path, kv_bytes=700_000, host_kv_bytes=300_000, encoded_bytes=60_000, waiting=0) as runtime:
        yield runtime


def test_no_sequence_leaks_or_aliases(small: Runtime) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (RuntimeMachine,), {"runtime": small})
    options = settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=options)
