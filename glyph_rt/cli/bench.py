"""`glyph-rt bench serve`: how fast a running server answers, in the figures that others report too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glyph_rt.cli.connection import Credentials, with_credentials
from glyph_rt.errors import OptionError

if TYPE_CHECKING:
    from glyph_rt.service.load import Phase

app = typer.Typer(help="Measure.", no_args_is_help=True)
METRICS = {"ttft": "time to first token", "itl": "between tokens", "tpot": "per output token", "e2el": "end to end"}
QUESTION = "What is this document about?"


@app.callback()
def bench() -> None:
    """Makes `serve` a command of its own, though it is the only one."""


@app.command()
@with_credentials
def serve(
    file: Annotated[str, typer.Argument(help="The text that is asked about, or - for standard input.")],
    server: Annotated[str, typer.Option(metavar="ADDRESS", help="The server.")] = "127.0.0.1:50051",
    question: Annotated[list[str] | None, typer.Option(help="May be given several times; they are asked in turn.")] = None,
    requests: Annotated[int, typer.Option(help="Questions about the document that was read before (warm).")] = 64,
    cold: Annotated[int, typer.Option(help="Before these, questions that send the text along (cold).")] = 8,
    clients: Annotated[int, typer.Option(help="Closed loop: clients that each wait for their answer.")] = 1,
    rate: Annotated[float | None, typer.Option(help="Open loop: requests a second, at random, whatever the server does.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens. Default: the server's.")] = None,
    goodput: Annotated[
        list[str] | None, typer.Option(metavar="METRIC:MS", help="What a good request keeps to: ttft, tpot or e2el.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the distributions (.svg, .png); needs the `bench` extra.")
    ] = None,
    *,
    credentials: Credentials,
) -> None:
    """Ask a server about FILE, and print TTFT, ITL, TPOT, E2E latency and throughput: cold, and with the document read, apart."""
    import asyncio

    from glyph_rt.memory.limits import Limits
    from glyph_rt.service.load import Pace, Target, measure
    from glyph_rt.texts import read_text

    objectives = _objectives(goodput or [])
    if min(requests, cold) < 0 or clients < 1 or (rate is not None and not 0 < rate < 1e6) or requests + cold < 1:
        raise OptionError("requests and cold must be 0 or more and one of them above, clients 1 or more, rate above 0")
    access = credentials.access()
    target = Target(server, access, read_text(file, Limits().text_bytes), question or [QUESTION], max_new_tokens)
    phases = asyncio.run(measure(target, Pace(cold, clients, rate), Pace(requests, clients, rate), objectives))
    load = f"{rate:g} a second" if rate is not None else f"{clients} clients"
    print("\n\n".join(table(phase, load) for phase in phases))
    if out is not None:
        out.write_text(json.dumps({"load": load, **{phase.name: phase.summary() for phase in phases}}, indent=1) + "\n")
    if plot is not None:
        draw(phases, plot)


def _objectives(given: list[str]) -> dict[str, float]:
    """Seconds by metric. Raises OptionError."""
    found = {}
    for text in given:
        name, _, limit = text.partition(":")
        if name not in ("ttft", "tpot", "e2el") or not limit.replace(".", "", 1).isdecimal():
            raise OptionError(f"{text!r} is no objective; write ttft:MS, tpot:MS or e2el:MS")
        found[name] = float(limit) / 1e3
    return found


def table(phase: Phase, load: str) -> str:
    """The figures of a phase, for people."""
    from glyph_rt.service.load import PERCENTILES

    figures = phase.summary()
    failed = "".join(f", {count} {code}" for code, count in figures["failed"].items())
    lines = [f"{phase.name}: {figures['completed']} answered{failed}, {load}, {figures['duration_s']:.2f} s"]
    rates = f"{figures['request_throughput']:.2f} requests/s, {figures['output_throughput']:.1f} output tokens/s"
    good = f", {figures['request_goodput']:.2f} good requests/s" if "request_goodput" in figures else ""
    columns = ("mean", *(f"p{p}" for p in PERCENTILES))
    lines += [rates + good, f"{'ms':24}" + "".join(f"{column:>10}" for column in columns)]
    for name, about in METRICS.items():
        cells = [_cell(figures, f"{column}_{name}_ms") for column in columns]
        lines.append(f"{about + ' (' + name.upper() + ')':24}" + "".join(cells))
    return "\n".join(lines)


def _cell(figures: dict[str, Any], key: str) -> str:
    return f"{figures[key]:10.2f}" if key in figures else f"{'-':>10}"


def draw(phases: list[Phase], file: Path) -> None:
    """How many requests took at most how long, by metric. Raises OptionError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise OptionError("a plot needs matplotlib; install glyph-rt[bench]") from None
    figure = Figure(figsize=(12, 3), layout="constrained")
    for axes, (name, about) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for phase in phases:
            values = sorted(1e3 * value for value in phase.series()[name])
            axes.plot(values, [(i + 1) / len(values) for i in range(len(values))], drawstyle="steps-post", label=phase.name)
        axes.set(xlabel="ms", title=about, ylim=(0, 1))
        axes.set_xlim(left=0)
        axes.legend()
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise OptionError(f"{file} cannot be written ({error})") from None
