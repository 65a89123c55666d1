"""Between the contract's messages about answers and the runtime's nouns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from glyph_rt.documents import Answer, AnswerTimings, ReadTimings, Usage
from glyph_rt.errors import InternalError, OptionError
from glyph_rt.language import Channel, Piece, Sampling
from glyph_rt.language.sampling import MOST_STOPS
from glyph_rt.long import Choice, LongAnswer, LongText, Strategy
from glyph_rt.quotes import Quote, QuoteKind, Quoting
from glyph_rt.service.documents import timings_message
from glyph_rt.v1 import answers_pb2 as pb

if TYPE_CHECKING:
    from glyph_rt.typeset import Layout, Place

_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}
_QUOTING = {pb.QUOTE_MODE_UNSPECIFIED: Quoting.MARK, pb.QUOTE_MODE_MARK: Quoting.MARK, pb.QUOTE_MODE_EXACT: Quoting.EXACT}
_STRATEGIES = {
    pb.STRATEGY_WHOLE: Strategy.WHOLE,
    pb.STRATEGY_AUTO: Strategy.AUTO,
    pb.STRATEGY_MAP_REDUCE: Strategy.MAP_REDUCE,
    pb.STRATEGY_RETRIEVE_PAGES: Strategy.RETRIEVE_PAGES,
}
_STRATEGY_NUMBERS = {strategy: number for number, strategy in _STRATEGIES.items()}
_KINDS = {
    QuoteKind.VERBATIM: pb.CITATION_KIND_VERBATIM,
    QuoteKind.MISREAD: pb.CITATION_KIND_MISREAD,
    QuoteKind.AMBIGUOUS: pb.CITATION_KIND_AMBIGUOUS,
}
_CHANNELS = {Channel.THINKING: pb.ANSWER_CHANNEL_THINKING, Channel.ANSWER: pb.ANSWER_CHANNEL_ANSWER}


# -- what is asked


def sampling_of(options: pb.SamplingOptions) -> Sampling:
    """Raises OptionError for values out of range."""
    form = options.WhichOneof("constraint")
    return Sampling.of(
        max_new_tokens=options.max_new_tokens if options.HasField("max_new_tokens") else None,
        temperature=options.temperature,
        seed=options.seed,
        draft=options.draft if options.HasField("draft") else True,
        top_k=options.top_k,
        top_p=options.top_p if options.HasField("top_p") else 1.0,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty if options.HasField("repetition_penalty") else 1.0,
        stop=tuple(options.stop[: MOST_STOPS + 1]),  # one too many is refused, however many there are
        **({form: getattr(options, form)} if form else {}),
    )


def quoting_of(mode: pb.QuoteMode) -> Quoting:
    """Raises OptionError for a mode that this server does not know."""
    if mode not in _QUOTING:
        told = f"no quote mode has the number {mode}"
        raise OptionError(told, public=told, field="quotes")
    return _QUOTING[mode]


def strategy_of(request: pb.AskRequest) -> Strategy:
    """Raises OptionError for a strategy that this server does not know, and for any with a document."""
    if request.strategy == pb.STRATEGY_UNSPECIFIED:
        return Strategy.WHOLE
    if request.strategy not in _STRATEGIES:
        told = f"no strategy has the number {request.strategy}"
        raise OptionError(told, public=told, field="strategy")
    if request.WhichOneof("subject") == "document_id":
        told = "a strategy says how a text sent along is read; this document was read before, as a whole"
        raise OptionError(told, public=told, field="strategy")
    return _STRATEGIES[request.strategy]


# -- what is answered


def piece_message(piece: Piece) -> pb.AnswerPiece:
    return pb.AnswerPiece(text=piece.text, channel=_CHANNELS[piece.channel])


def choice_message(choice: Choice) -> pb.StrategyChoice:
    return pb.StrategyChoice(strategy=_STRATEGY_NUMBERS[choice.strategy], reason=choice.reason)


def answer_message(answer: Answer, inline: bool) -> pb.AnswerDone:
    """Of an answer that has ended. inline: its document was read for it only."""
    if answer.timings is None:
        raise InternalError("an answer ended without its timings")
    return pb.AnswerDone(
        finish_reason=_finish_reason(answer.finish_reason),
        usage=_usage(answer.usage, 0 if inline else answer.usage.cached_tokens),
        timings=_timings(answer.timings, answer.document.timings if inline else None),
        citations=_citations(answer.quotes, answer.document.layout),
        text=answer.text if answer.quoting == Quoting.EXACT else None,
    )


def long_answer_message(answer: LongAnswer, text: LongText) -> pb.AnswerDone:
    """Of an answer about a long text."""
    reading = pb.TextReading(
        choice=choice_message(answer.choice),
        pages=answer.pages,
        pages_read=answer.pages_read,
        parts=[
            pb.PartAnswer(
                first_page=part.pages[0],
                last_page=part.pages[1],
                text=part.text,
                finish_reason=_finish_reason(part.finish_reason),
                found=part.found,
            )
            for part in answer.parts
        ],
        reduced_by=answer.reduced_by,
        sources=[pb.SourceSpan(start=place.start, end=place.end, page=place.page) for place in answer.citations],
    )
    return pb.AnswerDone(
        finish_reason=_finish_reason(answer.finish_reason),
        usage=_usage(answer.cost.usage, 0),
        timings=_timings(answer.cost.timings, answer.cost.read),
        citations=_citations(answer.quotes, text.layout) if answer.quotes else (),
        text=answer.text if answer.quoting == Quoting.EXACT else None,
        reading=reading,
    )


def _finish_reason(reason: str | None) -> pb.FinishReason:
    if reason not in _REASONS:
        raise InternalError("an answer ended without saying why")
    return _REASONS[reason]


def _usage(usage: Usage, cached_tokens: int) -> pb.AnswerUsage:
    return pb.AnswerUsage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=usage.completion_tokens,
        visual_tokens=usage.visual_tokens,
        text_tokens=usage.text_tokens,
        pages=usage.pages,
        drafted_tokens=usage.drafted_tokens,
        accepted_tokens=usage.accepted_tokens,
        characters=usage.characters,
    )


def _timings(timings: AnswerTimings, read: ReadTimings | None) -> pb.AnswerTimings:
    return pb.AnswerTimings(
        read=None if read is None else timings_message(read),
        prefill_s=timings.prefill_s,
        first_piece_s=timings.ttft_s,
        decode_s=timings.decode_s,
        tokens_per_s=timings.tokens_per_s,
        restore_s=timings.restore_s,
    )


def _citations(quotes: Iterable[Quote], layout: Layout) -> Iterator[pb.Citation]:
    """One per place of a quote."""
    for quote in quotes:
        for place in quote.places:
            yield pb.Citation(
                start=place.start,
                end=place.end,
                boxes=[_box(line) for line in layout.find_all(place.start, place.end)],
                answer_start=quote.start,
                answer_end=quote.end,
                kind=_KINDS[quote.kind],
                text="" if quote.kind == QuoteKind.VERBATIM else layout.text[place.start : place.end],
            )


def _box(place: Place) -> pb.PageBox:
    box = place.box
    return pb.PageBox(page=place.page, left=box.left, top=box.top, right=box.right, bottom=box.bottom)
