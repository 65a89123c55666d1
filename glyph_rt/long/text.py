"""LongText: a text of any length, to be asked about on an opened runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from glyph_rt.answers import check_quoting
from glyph_rt.documents import Answer, Document, Progress, ProgressCallback, check_question
from glyph_rt.errors import GlyphError, InputError, LimitError, OptionError
from glyph_rt.language import Channel, Piece, Sampling
from glyph_rt.long.answer import Citation, Cost, LongAnswer, PartAnswer
from glyph_rt.long.asking import Asking, Emit, Watch, put
from glyph_rt.long.excerpts import Excerpt, PageMap, cut
from glyph_rt.long.in_turn import InTurn, at_once
from glyph_rt.long.index import PageIndex, question_terms
from glyph_rt.long.reduce import NOTES_QUESTION, PART_QUESTION, Reduce, agreed, by_evidence, is_absent, notes, support
from glyph_rt.long.strategy import Choice, Strategy, Window, choose
from glyph_rt.nearby import Span
from glyph_rt.quotes import Quoting

if TYPE_CHECKING:
    from glyph_rt.runtime import Runtime
    from glyph_rt.typeset import Layout, Measure

ALIKE = 0.75  # questions share parts when their windows differ by no more than this


@dataclass(frozen=True)
class ReadingRules:
    """How texts that do not fit are read. Raises OptionError for what is out of range."""

    window: int | None = None  # most pages read at a time; None: what the context and the KV budget hold
    parts: int = 64  # most parts of one text
    reduce: Reduce | None = None  # None: evidence for a model with a style of its own, which only copies; notes for others

    def __post_init__(self) -> None:
        for name in ("window", "parts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                told = f"{name} must be at least 1, not {value}"
                raise OptionError(told, public=told, field=name)


@dataclass(frozen=True)
class Inquiry:
    """A question, how its answer is drawn, and how the text is read for it."""

    question: str
    sampling: Sampling = field(default_factory=Sampling)
    strategy: Strategy = Strategy.AUTO
    quotes: Quoting = Quoting.MARK


@dataclass(frozen=True)
class _Plan:
    """An inquiry, and how it will be answered."""

    inquiry: Inquiry
    choice: Choice
    window: Window
    emit: Emit | None

    def asking(self) -> Asking:
        """Its question, put to all that is read."""
        return Asking(self.inquiry.question, self.inquiry.sampling, self.emit)


Outcome = LongAnswer | GlyphError


class LongText:
    """A text of any length, of which at most a window is in KV memory at a time. Close it, or use it as a context manager.

    What is read whole stays open for the next question; parts and chosen pages are read anew for each call, from cached pages where they
    are kept. Not for use by several threads at once.

    Raises LimitError and InputError as `Runtime.read` does.
    """

    def __init__(
        self,
        runtime: Runtime,
        text: str,
        *,
        system: str = "",
        tenant: str = "",
        rules: ReadingRules = ReadingRules(),
        in_turn: InTurn = at_once,
    ) -> None:
        runtime.admit_text(text)
        self.runtime, self.text, self.system, self.tenant, self.rules, self._in_turn = runtime, text, system, tenant, rules, in_turn
        copies = runtime.checkpoint.trained_style is not None
        self._reduce = rules.reduce or (Reduce.EVIDENCE if copies else Reduce.NOTES)
        self._pages: PageMap | None = None
        self._index: PageIndex | None = None
        self._whole: Document | None = None

    def ask(
        self,
        question: str,
        sampling: Sampling | None = None,
        *,
        strategy: Strategy = Strategy.AUTO,
        quotes: Quoting = Quoting.MARK,
        chosen: Callable[[Choice], None] | None = None,
        progress: ProgressCallback | None = None,
        emit: Emit | None = None,
    ) -> LongAnswer:
        """Read what the strategy wants of the text, and answer.

        quotes: as in `Document.ask`. chosen: told how the text will be read, and why, before it is. progress: of the layout, of all
        pages that will be read, and of places in the queue for KV memory, where every reading and every answer waits its turn; told again
        at every token, too. What it raises stops the work. emit: given the pieces of the answer, as they come where the strategy lets
        them.

        Raises what `Runtime.read` and `Document.ask` raise; LimitError for too many parts; InputError when pages are to be chosen for a
        question that shares no word with the text.
        """
        plan = self._plan(Inquiry(question, sampling or Sampling(), strategy, quotes), emit, progress)
        if chosen is not None:
            chosen(plan.choice)
        ((_, outcome),) = self._carry_out({0: plan}, progress)
        if isinstance(outcome, GlyphError):
            raise outcome
        return outcome

    def ask_all(self, inquiries: Sequence[Inquiry], progress: ProgressCallback | None = None) -> Iterator[tuple[int, Outcome]]:
        """Like `ask` for several questions, which share readings: the number of each, from 0, and its outcome, in the order these are
        known. What is wrong with one question is its outcome, and the others are answered.

        What `progress` raises, which must be no GlyphError, stops all.
        """
        plans: dict[int, _Plan] = {}
        for number, inquiry in enumerate(inquiries):
            try:
                plans[number] = self._plan(inquiry, None, progress)
            except GlyphError as error:
                yield number, error
        yield from self._carry_out(plans, progress)

    @property
    def layout(self) -> Layout:
        """Of the whole text; laid out at every call unless the text was read whole."""
        return self._whole.layout if self._whole is not None else self._in_turn(lambda: self.runtime.typesetter.layout(self.text))

    def close(self) -> None:
        """Give the memory back."""
        if self._whole is not None:
            self._whole.close()
            self._whole = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- planning

    def _carry_out(self, plans: Mapping[int, _Plan], progress: ProgressCallback | None) -> Iterator[tuple[int, Outcome]]:
        ways = {Strategy.WHOLE: self._ask_whole, Strategy.RETRIEVE_PAGES: self._ask_best_pages, Strategy.MAP_REDUCE: self._ask_parts}
        for strategy, way in ways.items():
            chosen = {number: plan for number, plan in plans.items() if plan.choice.strategy is strategy}
            if chosen:
                yield from way(chosen, progress)

    def _plan(self, inquiry: Inquiry, emit: Emit | None, progress: ProgressCallback | None) -> _Plan:
        """Raises what is wrong with the inquiry, as far as that can be told before anything is read."""
        check_question(inquiry.question)
        check_quoting(inquiry.quotes, inquiry.sampling)
        asked = self._part_asking(inquiry).question  # the longest form that it is put in
        window = Window.of(self.runtime, self.system, asked, inquiry.sampling, self.rules.window)
        if inquiry.sampling.constraint is not None:
            self.runtime.template.grammars.guide(inquiry.sampling.constraint)
        if inquiry.strategy is not Strategy.AUTO:
            return _Plan(inquiry, Choice(inquiry.strategy, "as asked"), window, emit)
        return _Plan(inquiry, choose(inquiry.question, self._page_map(progress), window, lambda: self._page_index(progress)), window, emit)

    def _page_map(self, progress: ProgressCallback | None = None) -> PageMap:
        if self._pages is None:

            def advance(so_far: Measure) -> None:
                if progress is not None:
                    progress(Progress("layout", so_far.characters, len(self.text)))

            self._pages = self._in_turn(lambda: PageMap.of(self.runtime.typesetter.layout(self.text, advance)))
        return self._pages

    def _page_index(self, progress: ProgressCallback | None) -> PageIndex:
        if self._index is None:
            pages, laid_out = self._page_map(progress), Progress("layout", len(self.text), len(self.text))
            self._index = self._in_turn(lambda: PageIndex(pages, lambda: None if progress is None else progress(laid_out)))
        return self._index

    # -- whole, and the best pages

    def _ask_whole(self, plans: Mapping[int, _Plan], progress: ProgressCallback | None) -> Iterator[tuple[int, Outcome]]:
        try:
            if self._whole is None:
                self._whole = self._read(self.text, progress)
                self._pages = self._pages or PageMap.of(self._whole.layout)
        except GlyphError as error:
            yield from dict.fromkeys(plans, error).items()
        else:
            everything = Excerpt(self.text, (Span(0, len(self.text)),))
            yield from self._ask_document(self._whole, everything, plans, progress)

    def _ask_best_pages(self, plans: Mapping[int, _Plan], progress: ProgressCallback | None) -> Iterator[tuple[int, Outcome]]:
        """Each from the best pages for it that fit the window together, read in their order."""
        for number, plan in plans.items():
            try:
                excerpt = self._best_pages(plan, progress)
                with self._read(excerpt.text, progress) as document:
                    outcomes = list(self._ask_document(document, excerpt, {number: plan}, progress))
            except GlyphError as error:
                outcomes = [(number, error)]
            yield from outcomes

    def _best_pages(self, plan: _Plan, progress: ProgressCallback | None) -> Excerpt:
        pages = self._page_map(progress)
        best = self._page_index(progress).best(question_terms(plan.inquiry.question))[: plan.window.pages]
        if not best:
            told = "no page holds a word of the question"
            raise InputError(f"{told}; ask in the text's own words, or choose --strategy map_reduce", public=told, field="question")
        while not plan.window.holds(self.runtime.measure((excerpt := Excerpt.pages(pages, best)).text)) and len(best) > 1:
            best.pop()  # pages that begin in the middle of a line may come out longer
        return excerpt

    def _ask_document(
        self, document: Document, excerpt: Excerpt, plans: Mapping[int, _Plan], progress: ProgressCallback | None
    ) -> Iterator[tuple[int, Outcome]]:
        """Answers from one reading, which is all that is read for them."""
        watch = Watch(progress, document.measure.pages, document.measure.pages)
        for number, got in put(document, {number: plan.asking() for number, plan in plans.items()}, watch):
            if isinstance(got, GlyphError):
                yield number, got
            else:
                part = self._part_answer(excerpt, document, got)
                yield number, self._long_answer(plans[number], part, [part])

    # -- map and reduce

    def _ask_parts(self, plans: Mapping[int, _Plan], progress: ProgressCallback | None) -> Iterator[tuple[int, Outcome]]:
        for alike in _alike(plans):
            window = min((plan.window for plan in alike.values()), key=lambda window: window.tokens)
            try:
                parts = self._cut(self._page_map(progress), window)
            except GlyphError as error:
                yield from dict.fromkeys(alike, error).items()
            else:
                yield from self._map_reduce(parts, alike, progress)

    def _map_reduce(
        self, parts: Sequence[Excerpt], plans: Mapping[int, _Plan], progress: ProgressCallback | None
    ) -> Iterator[tuple[int, Outcome]]:
        """Every part is read once for all questions, and let go before the next."""
        answers: dict[int, list[PartAnswer]] = {number: [] for number in plans}  # of the questions that nothing is wrong with
        sizes = [last - first + 1 for first, last in map(self._page_numbers, parts)]
        for number, part in enumerate(parts):
            askings = {n: self._part_asking(plans[n].inquiry) for n in answers}
            watch = Watch(progress, sum(sizes[:number]), sum(sizes))
            try:
                with self._read(part.text, watch) as document:
                    got = dict(put(document, askings, watch))
                    for n in list(answers):
                        if isinstance(answer := got[n], GlyphError):
                            del answers[n]
                            yield n, answer
                        else:
                            answers[n].append(self._part_answer(part, document, answer))
            except GlyphError as error:
                yield from dict.fromkeys(answers, error).items()
                return
        for n, found in answers.items():
            yield n, self._reduced(plans[n], found, progress)

    def _part_asking(self, inquiry: Inquiry) -> Asking:
        if self._reduce is Reduce.EVIDENCE:
            return Asking(inquiry.question, inquiry.sampling)
        sampling = replace(inquiry.sampling, stop=(), constraint=None)  # a part must be able to say that it does not tell
        return Asking(PART_QUESTION.format(inquiry.question), sampling)

    def _reduced(self, plan: _Plan, parts: list[PartAnswer], progress: ProgressCallback | None) -> Outcome:
        """One answer from those of the parts. What says that there is none never wins over what answers."""
        found = [part for part in parts if part.found]
        sampling = plan.inquiry.sampling
        free = sampling.constraint is None and not sampling.stop
        if self._reduce is Reduce.NOTES and not (free and (not found or agreed(found))):
            return self._from_notes(plan, found or parts, parts, progress)
        asked = question_terms(plan.inquiry.question)
        chosen = by_evidence(found or parts, lambda part: support(part, asked, self._page_index(progress)))
        if plan.emit is not None and chosen.text:
            plan.emit(Piece(Channel.ANSWER, chosen.text))
        if not found:
            return self._long_answer(plan, chosen, parts, "no part says")
        if agreed(found):
            return self._long_answer(plan, chosen, parts, "one part says" if len(found) == 1 else f"{len(found)} parts agree")
        return self._long_answer(plan, chosen, parts, Reduce.EVIDENCE.value)

    def _from_notes(
        self, plan: _Plan, found: Sequence[PartAnswer], parts: Sequence[PartAnswer], progress: ProgressCallback | None
    ) -> Outcome:
        """The question asked again, of notes. Notes that do not fit the window are a long text themselves, and a shorter one."""
        told, sampling = notes(found), plan.inquiry.sampling
        question = NOTES_QUESTION.format(plan.inquiry.question)
        try:
            window = Window.of(self.runtime, self.system, question, sampling, self.rules.window)
            fits = window.holds(self.runtime.measure(told))
            if not fits and 2 * len(told) > len(self.text):
                raise LimitError("the parts' answers are as long as the text; lower --max-new-tokens", field="sampling.max_new_tokens")
            with LongText(self.runtime, told, system=self.system, tenant=self.tenant, rules=self.rules, in_turn=self._in_turn) as text:
                strategy = Strategy.WHOLE if fits else Strategy.MAP_REDUCE
                answer = text.ask(question, sampling, strategy=strategy, progress=progress, emit=plan.emit)
        except GlyphError as error:
            return error
        said = [part for part in found if part.text.strip() in answer.text or answer.text.strip() in part.text]
        cost = Cost.total([*(part.cost for part in parts), answer.cost])
        citations = self._cite(place for part in said or found for place in part.places)
        return replace(
            answer,
            question=plan.inquiry.question,
            quoting=plan.inquiry.quotes,
            choice=plan.choice,
            pages=len(self._page_map()),
            pages_read=self._pages_read(parts),
            reduced_by=Reduce.NOTES.value,
            citations=citations,
            parts=tuple(parts),
            cost=cost,
        )

    # -- nouns

    def _read(self, text: str, progress: ProgressCallback | None) -> Document:
        return self._in_turn(lambda: self.runtime.read(text, progress, system=self.system, tenant=self.tenant))

    def _cut(self, pages: PageMap, window: Window) -> list[Excerpt]:
        return self._in_turn(lambda: cut(pages, window.pages, lambda text: window.holds(self.runtime.measure(text)), self.rules.parts))

    def _part_answer(self, excerpt: Excerpt, document: Document, answer: Answer) -> PartAnswer:
        return PartAnswer(
            excerpt=excerpt,
            pages=self._page_numbers(excerpt),
            text=answer.text,
            thinking=answer.thinking,
            finish_reason=answer.finish_reason or "",
            found=not is_absent(answer.text),
            places=excerpt.find(answer.text),
            cost=Cost.of(document, answer),
        )

    def _long_answer(self, plan: _Plan, chosen: PartAnswer, parts: Sequence[PartAnswer], reduced_by: str = "") -> LongAnswer:
        citations = self._cite(place for part in parts if part.found and part.text == chosen.text for place in part.places)
        cost = Cost.total(part.cost for part in parts)
        return LongAnswer(
            question=plan.inquiry.question,
            said=chosen.text,
            quoting=plan.inquiry.quotes,
            thinking=chosen.thinking,
            finish_reason=chosen.finish_reason,
            choice=plan.choice,
            pages=len(self._page_map()),
            pages_read=self._pages_read(parts),
            reduced_by=reduced_by,
            citations=citations,
            parts=tuple(parts),
            cost=cost,
        )

    def _cite(self, places: Iterable[Span]) -> tuple[Citation, ...]:
        """Places in the order of the text, once each."""
        pages = self._page_map()
        return tuple(Citation(start, end, pages.page_of(start)) for start, end in sorted({(place.start, place.end) for place in places}))

    def _page_numbers(self, excerpt: Excerpt) -> tuple[int, int]:
        pages = self._page_map()
        return pages.page_of(excerpt.spans[0].start), pages.page_of(excerpt.spans[-1].end - 1)

    def _pages_read(self, parts: Iterable[PartAnswer]) -> int:
        """How many different ones."""
        page_of = self._page_map().page_of
        spans = (span for part in parts for span in part.excerpt.spans)
        return len({page for span in spans for page in range(page_of(span.start), page_of(span.end - 1) + 1)})


def _alike(plans: Mapping[int, _Plan]) -> Iterator[dict[int, _Plan]]:
    """Plans whose windows are about as large."""
    rest = dict(sorted(plans.items(), key=lambda item: -item[1].window.tokens))
    while rest:
        largest = next(iter(rest.values())).window.tokens
        near = {number: plan for number, plan in rest.items() if plan.window.tokens >= ALIKE * largest}
        yield near
        rest = {number: plan for number, plan in rest.items() if number not in near}
