"""`glyph-rt ask`: one question about one file."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glyph_rt.cli.connection import Connection
from glyph_rt.cli.figures import answer_figures
from glyph_rt.cli.progress import page_progress
from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import MIB, KVDtype, Limits, parse_size, peak_rss_bytes
from glyph_rt.texts import read_text

if TYPE_CHECKING:
    from glyph_rt.documents import Answer, Document
    from glyph_rt.language import Sampling


@dataclass(frozen=True)
class Drawing:
    """How the answer is drawn: the options of `language.Sampling` as the command line spells them."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    draft: bool = True
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    json_schema: Path | None = None
    regex: str | None = None

    def sampling(self) -> Sampling:
        """Raises OptionError for values out of range, and as `values`."""
        from glyph_rt.language import JSON_SCHEMA, REGEX, Constraint, Sampling

        values = self.values()
        forms = {kind: values.pop(kind) for kind in (JSON_SCHEMA, REGEX)}
        constraint = next((Constraint(kind, source) for kind, source in forms.items() if source is not None), None)
        return Sampling(**values, constraint=constraint)

    def values(self) -> dict[str, Any]:
        """The options by name, the schema as text. Raises OptionError for two forms, InputError for a file that cannot be read."""
        if self.json_schema is not None and self.regex is not None:
            raise OptionError("an answer has one form: give --json-schema or --regex")
        return asdict(self) | {"json_schema": None if self.json_schema is None else read_text(str(self.json_schema), MIB)}


@dataclass(frozen=True)
class AskOptions:
    """The command line of `ask`."""

    file: str
    question: str
    model: Path | None
    style: str | None
    system: str
    drawing: Drawing
    thinking: bool
    encoder: str
    quant: str | None
    kv_bytes: str
    kv_dtype: str
    text_bytes: str
    as_json: bool
    stats: bool
    server: Connection | None = None  # that is to answer


def run(options: AskOptions) -> None:
    """Answer; with --stats, the memory it took is printed whether there was an answer or a refusal."""
    if options.server is not None:
        from glyph_rt.cli.ask_server import run as run_on_server

        return run_on_server(options, options.server)
    try:
        _answer(options)
    finally:
        if options.stats:
            print(f"peak memory {peak_rss_bytes() / MIB:.0f} MiB", file=sys.stderr)


def _answer(options: AskOptions) -> None:
    """Cheap checks first: torch is not even imported for a file that cannot be read."""
    limits = Limits(
        kv_bytes=parse_size(options.kv_bytes), kv_dtype=KVDtype.parse(options.kv_dtype), text_bytes=parse_size(options.text_bytes)
    )
    text = read_text(options.file, limits.text_bytes)
    from glyph_rt.language import Channel, Quant
    from glyph_rt.runtime import Runtime

    sampling = options.drawing.sampling()
    start = time.perf_counter()
    quant = Quant.parse(options.quant)
    with Runtime.open(options.model, style=options.style, encoder=options.encoder, limits=limits, quant=quant) as runtime:
        load_s = time.perf_counter() - start
        with page_progress("reading") as progress, runtime.read(text, progress, system=options.system) as document:
            answer = document.ask(options.question, sampling)
            for piece in answer.pieces():
                if piece.channel == Channel.THINKING and options.thinking:
                    print(piece.text, end="", flush=True, file=sys.stderr)
                elif piece.channel == Channel.ANSWER and not options.as_json:
                    print(piece.text, end="", flush=True)
            figures = report(document, answer, load_s)
            kv_bytes = runtime.arena.used + answer.kv_bytes
    figures["memory"] = {"kv_bytes": kv_bytes, "peak_rss_bytes": peak_rss_bytes()}
    if options.as_json:
        print(json.dumps(figures, ensure_ascii=False))
    else:
        print()
    if options.stats:
        _print_stats(figures, answer)


def report(document: Document, answer: Answer, load_s: float) -> dict[str, Any]:
    """The JSON object of an answer that has ended, without its memory. Times are seconds.

    ttft_s runs from the moment the loaded model got the text to the first piece of the answer.
    """
    usage, timings = answer.usage, answer.timings
    assert timings is not None, "the answer has not ended"
    figures = answer_figures(
        answer=answer.text,
        thinking=answer.thinking,
        finish_reason=answer.finish_reason,
        usage=usage,
        compression=usage.compression,
        characters=usage.characters,
        read=document.timings,
        timings=timings,
        first_s=timings.ttft_s,
    )
    return figures | {"timings": {"load_s": round(load_s, 4), **figures["timings"]}}


def _print_stats(figures: dict[str, Any], answer: Answer) -> None:
    usage, timings = figures["usage"], figures["timings"]
    lines = (
        f"pages {usage['pages']}, visual tokens {usage['visual_tokens']}, text tokens {usage['text_tokens']}",
        f"compression: {usage['compression']:.2f} text tokens and {answer.usage.characters_per_visual_token:.2f} characters "
        "per visual token",
        f"prompt {usage['prompt_tokens']} tokens ({usage['cached_tokens']} of the document), answer {usage['completion_tokens']} tokens, "
        f"ended by {figures['finish_reason']}; {usage['accepted_tokens']} of {usage['drafted_tokens']} drafted from the text",
        ", ".join(f"{stage} {timings[stage + '_s']:.3f} s" for stage in ("load", "typeset", "encode", "prefill", "ttft", "decode"))
        + f", {timings['tokens_per_s']:.0f} tokens/s",
        f"KV {figures['memory']['kv_bytes'] / MIB:.2f} MiB",
    )
    print("\n".join(lines), file=sys.stderr)
