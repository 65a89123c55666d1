"""`glyph-rt ask --server`: the same question, answered by a running server. Loads no model and no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from glyph_rt.cli.ask import AskOptions, Length, print_answer, print_choice, print_piece
from glyph_rt.cli.figures import answer_figures
from glyph_rt.cli.opening import Opening
from glyph_rt.cli.progress import page_progress
from glyph_rt.cli.quoted import citation_figures
from glyph_rt.errors import OptionError
from glyph_rt.service.client import Client, Reply
from glyph_rt.texts import read_text
from glyph_rt.v1 import answers_pb2, documents_pb2

if TYPE_CHECKING:
    from glyph_rt.cli.connection import Connection


def run(options: AskOptions, server: Connection) -> None:
    """Ask about the text, sent along; to be read whole it is uploaded first, since then it may be longer than a message. Raises OptionError
    for options that are the server's own, ServiceError for what it refuses.
    """
    if replace(options.opening, text_bytes=Opening.text_bytes) != Opening():
        own = "--model, --style, --encoder, --quant, --kv-bytes, --kv-dtype, --device, --precision and --cuda-graphs"
        raise OptionError(f"{own} are the server's own; start it with them")
    strategy = options.length.strategy
    if replace(options.length, strategy=Length.strategy) != Length():
        raise OptionError("--window, --parts and --reduce are the server's own; start it with --window and --parts")
    drawing = options.drawing.values()
    text = read_text(options.file, options.opening.limits().text_bytes)
    with Client(server.address, server.access()) as client, ExitStack() as cleanup:
        progress = _reading(cleanup.enter_context(page_progress("reading")))
        document: documents_pb2.Document | None = None
        subject: dict[str, Any] = {"text": text, "system": options.system, "strategy": strategy}
        if strategy == "whole":
            document = client.read(text, progress, system=options.system)
            cleanup.callback(client.delete, document.id)
            subject = {"document": document.id}
        thinking = options.thinking or options.as_json  # which reports thoughts in any case
        asked = client.ask(
            options.question, **subject, thinking=thinking, quotes=options.quotes, on_wait=_tell_place, progress=progress, **drawing
        )
        with asked as reply:
            for piece in reply.pieces():
                print_piece(options, piece.text, thought=piece.channel == answers_pb2.ANSWER_CHANNEL_THINKING)
    figures = report(reply, text, document)
    print_answer(options, figures)
    if "reading" in figures:
        print_choice(options, figures["reading"]["strategy"], figures["reading"]["reason"])
    if options.stats:
        print(
            "\n".join(f"{group}: " + ", ".join(f"{k} {v}" for k, v in figures[group].items()) for group in ("usage", "timings")),
            file=sys.stderr,
        )


def _reading(show: Callable[[documents_pb2.ReadProgress], None] | None) -> Callable[[documents_pb2.ReadProgress], None]:
    """`show` for the stage that is counted in pages, and a line for every place in a queue."""

    def advance(progress: documents_pb2.ReadProgress) -> None:
        if progress.stage == documents_pb2.READ_STAGE_WAIT:
            _tell_place(progress.total)
        elif progress.stage == documents_pb2.READ_STAGE_READ and show is not None:
            show(progress)

    return advance


def _tell_place(place: int) -> None:
    print(f"the server is busy: place {place} in its queue", file=sys.stderr)


def report(reply: Reply, text: str, document: documents_pb2.Document | None) -> dict[str, Any]:
    """The JSON object of an answer that has ended: the keys of a local `ask`, without load and memory. Seconds are the server's.

    document: what was asked about, if not a text sent along.
    """
    done = reply.done
    assert done is not None, "the answer has not ended"
    figures = answer_figures(
        answer=reply.text,
        quotes=citation_figures(done.citations, reply.said, text),
        thinking=reply.thinking,
        finish_reason=_finish_reason(done.finish_reason),
        usage=done.usage,
        read=done.timings.read if document is None else document.timings,
        timings=done.timings,
        first_s=done.timings.first_piece_s,
    )
    if done.HasField("reading"):
        figures["reading"] = _reading_figures(done.reading)
        figures["citations"] = [{"start": span.start, "end": span.end, "page": span.page} for span in done.reading.sources]
    return figures


def _reading_figures(reading: answers_pb2.TextReading) -> dict[str, Any]:
    """As `LongAnswer.to_json` has it."""
    figures: dict[str, Any] = {
        "strategy": answers_pb2.Strategy.Name(reading.choice.strategy).removeprefix("STRATEGY_").lower(),
        "reason": reading.choice.reason,
        "pages": reading.pages,
        "pages_read": reading.pages_read,
    }
    if reading.reduced_by:
        figures["reduced_by"] = reading.reduced_by
        figures["parts"] = [
            {
                "pages": [part.first_page, part.last_page],
                "answer": part.text,
                "finish_reason": _finish_reason(part.finish_reason),
                "found": part.found,
            }
            for part in reading.parts
        ]
    return figures


def _finish_reason(reason: answers_pb2.FinishReason) -> str:
    return answers_pb2.FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower()
