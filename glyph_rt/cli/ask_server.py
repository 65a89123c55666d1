"""`glyph-rt ask --server`: the same question, answered by a running server. Loads no model and no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glyph_rt.cli.ask import AskOptions, Length, print_answer
from glyph_rt.cli.figures import answer_figures
from glyph_rt.cli.progress import page_progress
from glyph_rt.cli.quoted import citation_figures
from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import parse_size
from glyph_rt.service.client import Client, Reply
from glyph_rt.texts import read_text
from glyph_rt.v1 import answers_pb2, documents_pb2

if TYPE_CHECKING:
    from glyph_rt.cli.connection import Connection


def run(options: AskOptions, server: Connection) -> None:
    """Upload, ask, delete. Raises OptionError for options that are the server's own, ServiceError for what it refuses."""
    kept = (options.kv_bytes, options.kv_dtype, options.device, options.cuda_graphs) != ("1GiB", "model", "cpu", False)
    if options.model or options.style or options.encoder != "auto" or options.quant or kept:
        own = "--model, --style, --encoder, --quant, --kv-bytes, --kv-dtype, --device and --cuda-graphs"
        raise OptionError(f"{own} are the server's own; start it with them")
    if options.length != Length():
        raise OptionError("--strategy, --window, --parts and --reduce are for a model that is loaded here; a server reads texts whole")
    drawing = options.drawing.values()
    text = read_text(options.file, parse_size(options.text_bytes))
    with Client(server.address, server.access()) as client:
        with page_progress("reading") as progress:
            document = client.read(text, _reading(progress), system=options.system)
        try:
            thinking = options.thinking or options.as_json  # which reports thoughts in any case
            with client.ask(
                options.question,
                document=document.id,
                thinking=thinking,
                quotes=options.quotes,
                on_wait=_tell_place,
                **drawing,
            ) as reply:
                for piece in reply.pieces():
                    if piece.channel == answers_pb2.ANSWER_CHANNEL_THINKING:
                        if options.thinking:
                            print(piece.text, end="", flush=True, file=sys.stderr)
                    elif options.streams:
                        print(piece.text, end="", flush=True)
        finally:
            client.delete(document.id)
    figures = report(document, reply, text)
    print_answer(options, figures)
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


def report(document: documents_pb2.Document, reply: Reply, text: str) -> dict[str, Any]:
    """The JSON object of an answer that has ended: the keys of a local `ask`, without load and memory. Seconds are the server's."""
    assert reply.done is not None, "the answer has not ended"
    return answer_figures(
        answer=reply.text,
        quotes=citation_figures(reply.done.citations, reply.said, text),
        thinking=reply.thinking,
        finish_reason=answers_pb2.FinishReason.Name(reply.done.finish_reason).removeprefix("FINISH_REASON_").lower(),
        usage=reply.done.usage,
        compression=document.compression,
        characters=document.characters,
        read=document.timings,
        timings=reply.done.timings,
        first_s=reply.done.timings.first_piece_s,
    )
