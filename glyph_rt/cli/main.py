"""Entry point: the commands, and the one place where errors become exit codes.

Exit codes: 0 done, 1 it failed, 2 the request cannot be served as written, 130 interrupted. An error is one line on
standard error. Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from glyph_rt.cli.bench import app as bench
from glyph_rt.cli.connection import Connection, Credentials, with_credentials
from glyph_rt.cli.engines import app as engines
from glyph_rt.cli.opening import Opening
from glyph_rt.cli.options import (
    CudaGraphsOption,
    DecoderDeviceOption,
    EncoderOption,
    KVBytesOption,
    KVDtypeOption,
    ModelOption,
    PartsOption,
    PrecisionOption,
    QuantOption,
    QuotesOption,
    ReduceOption,
    ReserveOption,
    StrategyOption,
    StyleOption,
    SystemOption,
    TextBytesOption,
    WindowOption,
)
from glyph_rt.cli.research import app as research
from glyph_rt.cli.token import app as token
from glyph_rt.errors import GlyphError

app = typer.Typer(
    name="glyph-rt",
    help="Read very long documents on one box: text to page images to visual tokens to answers.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
@with_credentials
def ask(
    file: Annotated[str, typer.Argument(help="A text file in UTF-8, or - for standard input.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: ModelOption = None,
    style: StyleOption = None,
    system: SystemOption = "",
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens. Default: 512, or what the context leaves.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token every time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="With a temperature: the same seed gives the same answer.")] = 0,
    draft: Annotated[
        bool, typer.Option("--draft/--no-draft", help="Check guesses from the document's text, several tokens a step; changes no token.")
    ] = True,
    top_k: Annotated[int, typer.Option(help="With a temperature: draw among so many likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="With a temperature: draw among the likeliest that together have this probability.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="With a temperature: draw among tokens at least this share as likely as the likeliest.")
    ] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: what was said before becomes less likely.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End the answer before this text; may be given again.")] = None,
    json_schema: Annotated[Path | None, typer.Option(metavar="FILE", help="The answer is JSON that this schema allows.")] = None,
    regex: Annotated[str | None, typer.Option(metavar="PATTERN", help="The whole answer matches this pattern, in Rust's syntax.")] = None,
    quotes: QuotesOption = "mark",
    thinking: Annotated[bool, typer.Option("--thinking", help="Show on standard error what the model thinks before it answers.")] = False,
    encoder: EncoderOption = "auto",
    quant: QuantOption = None,
    kv_bytes: KVBytesOption = "1GiB",
    kv_dtype: KVDtypeOption = "model",
    device: DecoderDeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    cuda_graphs: CudaGraphsOption = False,
    text_bytes: TextBytesOption = "16MiB",
    strategy: StrategyOption = "auto",
    window: WindowOption = None,
    parts: PartsOption = 64,
    reduce: ReduceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of streaming the answer.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Afterwards, print figures on standard error.")] = False,
    server: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Have a running `glyph-rt serve` answer; no model is loaded here.")
    ] = None,
    *,
    credentials: Credentials,
) -> None:
    """Answer QUESTION from FILE: render it to pages, encode them, and decode the answer."""
    from glyph_rt.cli.ask import AskOptions, Drawing, Length, run
    from glyph_rt.quotes import Quoting

    at = None if server is None else Connection(server, credentials)
    drawing = Drawing(
        max_new_tokens, temperature, seed, draft, top_k, top_p, min_p, repetition_penalty, tuple(stop or ()), json_schema, regex
    )
    run(
        AskOptions(
            file=file,
            question=question,
            opening=Opening(model, style, encoder, quant, kv_bytes, kv_dtype, text_bytes, device, precision, cuda_graphs),
            system=system,
            drawing=drawing,
            quotes=Quoting.parse(quotes),
            thinking=thinking,
            length=Length(strategy, window, parts, reduce),
            as_json=as_json,
            stats=stats,
            server=at,
        )
    )


@app.command()
def batch(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN.jsonl", help='A question a line: {"id", "file" or "text", "question", "options"}; see docs/long.md.'),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="A line with an answer or an error for each; run again to go on.")],
    model: ModelOption = None,
    style: StyleOption = None,
    system: SystemOption = "",
    quotes: QuotesOption = "mark",
    encoder: EncoderOption = "auto",
    quant: QuantOption = None,
    kv_bytes: KVBytesOption = "1GiB",
    kv_dtype: KVDtypeOption = "model",
    device: DecoderDeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    cuda_graphs: CudaGraphsOption = False,
    text_bytes: TextBytesOption = "16MiB",
    strategy: StrategyOption = "auto",
    window: WindowOption = None,
    parts: PartsOption = 64,
    reduce: ReduceOption = None,
) -> int:
    """Answer the questions of IN.jsonl into OUT.jsonl, each once, whatever interrupts it. Exit code 1: some lines are errors."""
    from glyph_rt.cli.ask import Length
    from glyph_rt.cli.batch import BatchOptions, run
    from glyph_rt.quotes import Quoting

    opening = Opening(model, style, encoder, quant, kv_bytes, kv_dtype, text_bytes, device, precision, cuda_graphs)
    return run(BatchOptions(source, target, opening, system, Quoting.parse(quotes), Length(strategy, window, parts, reduce)))


@app.command()
def render(
    file: Annotated[str, typer.Argument(help="A text file in UTF-8, or - for standard input.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pages go, as page-0001.png and so on.")],
    model: ModelOption = None,
    style: StyleOption = None,
    text_bytes: TextBytesOption = "16MiB",
) -> None:
    """Write the pages of FILE as PNG images for people, after saying what they come to."""
    from glyph_rt.cli.render import run

    run(file, out, model, style, text_bytes)


@app.command()
def serve(
    address: Annotated[
        str,
        typer.Option(metavar="IP:PORT|unix:PATH", help="Where to listen. What other machines reach needs TLS, and tokens or --client-ca."),
    ] = "127.0.0.1:50051",
    model: ModelOption = None,
    style: StyleOption = None,
    encoder: EncoderOption = "auto",
    quant: QuantOption = None,
    budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory for everything; --kv-bytes then follows from a dry run at start.")
    ] = None,
    reserve: ReserveOption = "1GiB",
    kv_bytes: KVBytesOption = "1GiB",
    kv_dtype: KVDtypeOption = "model",
    device: DecoderDeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    cuda_graphs: CudaGraphsOption = False,
    text_bytes: TextBytesOption = "16MiB",
    pages: Annotated[int | None, typer.Option(help="Most pages of one text. Default: what the model's context holds.")] = None,
    documents: Annotated[int, typer.Option(help="Documents kept at once.")] = 64,
    streams: Annotated[int, typer.Option(help="Readings and answers under way at once.")] = 32,
    tenant_documents: Annotated[int | None, typer.Option(help="Of the documents, one tenant's. Default: all.")] = None,
    tenant_streams: Annotated[int | None, typer.Option(help="Of the readings and answers, one tenant's. Default: all.")] = None,
    upload_bytes: Annotated[str, typer.Option(metavar="SIZE", help="All texts being uploaded or read together.")] = "64MiB",
    long_bytes: Annotated[
        str, typer.Option(metavar="SIZE", help="All texts together that are read by a strategy other than whole; indexing takes more.")
    ] = "4MiB",
    parts: PartsOption = 64,
    window: WindowOption = None,
    open_text_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Texts of all documents together, with their layouts.")] = "256MiB",
    deadline: Annotated[float, typer.Option(help="Longest call, in seconds.")] = 600.0,
    idle: Annotated[float, typer.Option(help="Seconds without a question after which a document is forgotten.")] = 3600.0,
    drain: Annotated[float, typer.Option(help="Seconds that calls under way get to end after SIGTERM.")] = 30.0,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The server's certificate chain, PEM; a renewed one is taken up.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM, not encrypted.")] = None,
    client_ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Clients must have a certificate of this authority.")] = None,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Callers must have a token of this file; see: glyph-rt token new.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without what that needs: anybody on the way may read along, or ask.")
    ] = False,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append a JSON line for every call: who, what, when; never a text.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="IP:PORT", help="Serve Prometheus metrics there; loopback only.")] = None,
    traces: Annotated[
        str | None, typer.Option(metavar="URL", help="Export OpenTelemetry traces there, by OTLP over gRPC; needs the `otel` extra.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON objects instead of lines for people.")] = False,
) -> None:
    """Serve gRPC (proto/glyph_rt/v1) until SIGTERM or Ctrl-C."""
    from glyph_rt.cli.serve import ServeOptions, run

    run(
        ServeOptions(
            address=address,
            opening=Opening(model, style, encoder, quant, kv_bytes, kv_dtype, text_bytes, device, precision, cuda_graphs),
            budget=budget,
            reserve=reserve,
            pages=pages,
            documents=documents,
            streams=streams,
            tenant_documents=tenant_documents,
            tenant_streams=tenant_streams,
            upload_bytes=upload_bytes,
            long_bytes=long_bytes,
            parts=parts,
            window=window,
            open_text_bytes=open_text_bytes,
            deadline=deadline,
            idle=idle,
            drain=drain,
            tls_cert=tls_cert,
            tls_key=tls_key,
            client_ca=client_ca,
            tokens=tokens,
            insecure=insecure,
            audit=audit,
            metrics=metrics,
            traces=traces,
            log_json=log_json,
        )
    )


@app.command()
@with_credentials
def top(
    server: Annotated[str, typer.Option(metavar="ADDRESS", help="The server.")] = "127.0.0.1:50051",
    interval: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and print it; so also when the output is no terminal.")] = False,
    *,
    credentials: Credentials,
) -> None:
    """Watch a running server: what it does, and what it holds of what it may hold."""
    from glyph_rt.cli.top import run

    run(Connection(server, credentials), interval, once)


@app.command()
def plan(
    budget: Annotated[str, typer.Option(metavar="SIZE", help="Memory to plan: of this process on a CPU, of the GPU on one.")],
    model: ModelOption = None,
    style: StyleOption = None,
    encoder: EncoderOption = "auto",
    quant: QuantOption = None,
    kv_dtype: KVDtypeOption = "model",
    reserve: ReserveOption = "1GiB",
    text_bytes: TextBytesOption = "16MiB",
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Open the model and run its worst case, or estimate from config.json alone.")
    ] = True,
    device: DecoderDeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    cuda_graphs: CudaGraphsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how a memory budget is spent, and how many pages and documents it leaves room for."""
    from glyph_rt.cli.plan import PlanOptions, run

    opening = Opening(
        model, style, encoder, quant, kv_dtype=kv_dtype, text_bytes=text_bytes, device=device, precision=precision, cuda_graphs=cuda_graphs
    )
    run(PlanOptions(budget, opening, reserve, measure, as_json))


DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="LIBRARY", help="What holds GPU memory for TensorRT: torch, pycuda, or auto (pycuda where torch has no CUDA)."
    ),
]


@app.command()
def doctor(
    model: ModelOption = None,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what this box has, and which parts glyph-rt will use."""
    from glyph_rt.cli.doctor import run

    run(model, device, as_json)


@app.command()
def export(
    model: ModelOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Store of exported graphs. Default: the user's cache.")] = None,
    flavour: Annotated[
        str, typer.Option(help="portable (opset 18, runs everywhere) or modern (opset 23, one attention operator).")
    ] = "portable",
    precision: Annotated[str, typer.Option(help="Of the matrices: fp32, fp16, bf16, or int8 (blocks only; minutes).")] = "fp32",
    colour: Annotated[bool, typer.Option("--colour", help="Take pages with colour; grey ones then cost no more than their input.")] = False,
) -> None:
    """Export the model's vision tower to ONNX, with golden pages to check it by. Needs the `export` extra."""
    from glyph_rt.cli.export import run
    from glyph_rt.vision.graph import GraphKind

    run(model, out, GraphKind(flavour, precision, colour))


@app.command()
def build(
    profile: Annotated[str, typer.Option(metavar="NAME|FILE", help="What to build for which box: a name, or a .yaml file.")],
    model: ModelOption = None,
    colour: Annotated[bool, typer.Option("--colour", help="Take pages with colour, too.")] = False,
    onnx: Annotated[Path | None, typer.Option("--onnx", metavar="FILE", help="An exported graph. Default: exported as needed.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="STORE", help="Engine store. Default: in the user's cache.")] = None,
    limit: Annotated[str, typer.Option(metavar="SIZE", help="Most the store may hold; the least recently used engines leave.")] = "16GiB",
    device: DeviceOption = "auto",
) -> None:
    """Build the vision tower's TensorRT engine for one box. Needs TensorRT, or the `rtx` extra, and the `export` extra."""
    from glyph_rt.cli.build import BuildOptions, run
    from glyph_rt.memory.limits import parse_size
    from glyph_rt.vision import GpuUse

    run(BuildOptions(model, profile, colour, onnx, out, parse_size(limit), GpuUse(device)))


app.add_typer(engines, name="engines")
app.add_typer(token, name="token")
app.add_typer(research)  # without a name: its commands are ours
app.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line and exit."""
    sys.exit(_run())


def _run() -> int:
    try:
        code: Any = app(standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except GlyphError as error:
        return _fail(str(error), error.exit_code)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "glyph-rt"
        return _fail(f"{error.format_message()} (see: {command} --help)", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has gone, which is not an error of ours: glyph-rt ask ... | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory; lower --kv-bytes or --text-bytes, or close other programs", 1)
    except Exception as error:  # the last line of defence: a user never sees a traceback unless they ask for one
        if os.environ.get("GLYPH_RT_TRACEBACK"):
            raise
        return _fail(f"internal error: {type(error).__name__}: {error} (set GLYPH_RT_TRACEBACK=1 to see where)", 1)


def _fail(message: str, code: int) -> int:
    print("glyph-rt: " + " ".join(message.split()), file=sys.stderr)
    return code
