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
from glyph_rt.cli.opening import Opening
from glyph_rt.cli.progress import page_progress
from glyph_rt.cli.quoted import print_changes, quote_figures
from glyph_rt.memory.limits import MIB, peak_rss_bytes
from glyph_rt.quotes import Quoting
from glyph_rt.texts import read_text

if TYPE_CHECKING:
    from glyph_rt.language import Sampling
    from glyph_rt.long import LongAnswer, ReadingRules
    from glyph_rt.long.answer import Cost


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
        """Raises OptionError for values out of range and for two forms, and as `values`."""
        from glyph_rt.language import Sampling

        return Sampling.of(**self.values())

    def values(self) -> dict[str, Any]:
        """The options by name, the schema as text. Raises InputError for a file that cannot be read."""
        return asdict(self) | {"json_schema": None if self.json_schema is None else read_text(str(self.json_schema), MIB)}


@dataclass(frozen=True)
class Length:
    """What is done with texts that do not fit the window: the options of `ask` and `batch`."""

    strategy: str = "auto"
    window: int | None = None
    parts: int = 64
    reduce: str | None = None

    def rules(self) -> ReadingRules:
        """Raises OptionError for values out of range."""
        from glyph_rt.long import ReadingRules, Reduce

        return ReadingRules(self.window, self.parts, None if self.reduce is None else Reduce.parse(self.reduce))


@dataclass(frozen=True)
class AskOptions:
    """The command line of `ask`."""

    file: str
    question: str
    opening: Opening
    system: str
    drawing: Drawing
    quotes: Quoting
    thinking: bool
    length: Length
    as_json: bool
    stats: bool
    server: Connection | None = None  # that is to answer

    @property
    def streams(self) -> bool:
        """Whether the answer is printed as it is made: exact quotes are known only when it has ended."""
        return not self.as_json and self.quotes == Quoting.MARK


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
    text = read_text(options.file, options.opening.limits().text_bytes)
    from glyph_rt.answers import check_quoting
    from glyph_rt.language import Channel, Piece
    from glyph_rt.long import Choice, LongText, Strategy

    def show(piece: Piece) -> None:
        print_piece(options, piece.text, thought=piece.channel == Channel.THINKING)

    def tell(choice: Choice) -> None:
        print_choice(options, choice.strategy.value, choice.reason)

    sampling, strategy, rules = options.drawing.sampling(), Strategy.parse(options.length.strategy), options.length.rules()
    check_quoting(options.quotes, sampling)
    start = time.perf_counter()
    with options.opening.open() as runtime:
        load_s = time.perf_counter() - start
        with page_progress("reading") as progress, LongText(runtime, text, system=options.system, rules=rules) as subject:
            answer = subject.ask(
                options.question, sampling, strategy=strategy, quotes=options.quotes, chosen=tell, progress=progress, emit=show
            )
            figures = report(answer, quote_figures(answer.quotes, subject.layout), load_s)
    print_answer(options, figures)
    if options.stats:
        _print_stats(figures, answer.cost)


def print_piece(options: AskOptions, text: str, *, thought: bool) -> None:
    """As far as it is wanted: thoughts on standard error."""
    if thought and options.thinking:
        print(text, end="", flush=True, file=sys.stderr)
    elif not thought and options.streams:
        print(text, end="", flush=True)


def print_choice(options: AskOptions, strategy: str, reason: str) -> None:
    """On standard error, if the choice was not the user's own and is not the plain one."""
    if options.length.strategy == "auto" and strategy != "whole" and not options.as_json:
        print(f"{reason}: {strategy}", file=sys.stderr)


def print_answer(options: AskOptions, figures: dict[str, Any]) -> None:
    """What is left to print of an answer that has ended, here or on a server."""
    if options.as_json:
        print(json.dumps(figures, ensure_ascii=False))
    elif options.streams:
        print()
    else:
        print(figures["answer"])
        print_changes(figures["quotes"])


def report(answer: LongAnswer, quotes: list[dict[str, Any]], load_s: float) -> dict[str, Any]:
    """The JSON object of an answer. Times are seconds; of several readings and answers, usage and times are told together.

    ttft_s runs from the moment the loaded model got the text to the first piece of the answer.
    """
    cost = answer.cost
    figures = answer_figures(
        answer=answer.text,
        quotes=quotes,
        thinking=answer.thinking,
        finish_reason=answer.finish_reason,
        usage=cost.usage,
        read=cost.read,
        timings=cost.timings,
        first_s=cost.timings.ttft_s,
    )
    return (
        answer.to_json()
        | figures
        | {
            "timings": {"load_s": round(load_s, 4), **figures["timings"]},
            "memory": {"kv_bytes": cost.kv_bytes, "peak_rss_bytes": peak_rss_bytes()},
        }
    )


def _print_stats(figures: dict[str, Any], cost: Cost) -> None:
    usage, timings = figures["usage"], figures["timings"]
    lines = (
        f"pages {usage['pages']}, visual tokens {usage['visual_tokens']}, text tokens {usage['text_tokens']}",
        f"compression: {usage['compression']:.2f} text tokens and {cost.usage.characters_per_visual_token:.2f} characters per visual token",
        f"prompt {usage['prompt_tokens']} tokens ({usage['cached_tokens']} of the document), answer {usage['completion_tokens']} tokens, "
        f"ended by {figures['finish_reason']}; {usage['accepted_tokens']} of {usage['drafted_tokens']} drafted from the text",
        ", ".join(f"{stage} {timings[stage + '_s']:.3f} s" for stage in ("load", "typeset", "encode", "prefill", "ttft", "decode"))
        + f", {timings['tokens_per_s']:.0f} tokens/s",
        f"KV {figures['memory']['kv_bytes'] / MIB:.2f} MiB",
    )
    print("\n".join(lines), file=sys.stderr)
