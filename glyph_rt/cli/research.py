"""Commands about models rather than documents: `glyph-rt eval`, `tune` and `train-reader`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glyph_rt.cli.opening import Opening
from glyph_rt.cli.options import (
    DecoderDeviceOption,
    EncoderOption,
    KVBytesOption,
    KVDtypeOption,
    ModelOption,
    PrecisionOption,
    QuotesOption,
    StyleOption,
    TextBytesOption,
)

app = typer.Typer()


@app.command(name="eval")
def evaluate(
    suite: Annotated[str, typer.Option(help="reader, ocr, needle, ruler, longbench or mrcr.")] = "reader",
    model: ModelOption = None,
    style: StyleOption = None,
    encoder: EncoderOption = "auto",
    quotes: QuotesOption = "mark",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Keep every answer, the figures and the plots there; run again to resume.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE|DIR", help="The benchmark's own files (longbench, mrcr; ruler, ocr).")] = None,
    config: Annotated[Path | None, typer.Option(metavar="DIR", help="LongBench's folder with dataset2prompt.json.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Questions of a task, or of a grid's cell. Default: the suite's own.")] = None,
    lengths: Annotated[str, typer.Option(metavar="N,N,..", help="Characters of made-up texts (needle, ruler).")] = "500,1000,2000,4000",
    kv_bytes: KVBytesOption = "1GiB",
    kv_dtype: KVDtypeOption = "model",
    device: DecoderDeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    text_bytes: TextBytesOption = "16MiB",
    failures: Annotated[int, typer.Option(help="Print so many answers that are not right, on standard error.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how well a model reads. Needs the `eval` extra."""
    from glyph_rt.cli.eval import EvalOptions, run
    from glyph_rt.quotes import Quoting

    opening = Opening(model, style, encoder, None, kv_bytes, kv_dtype, text_bytes, device, precision)
    run(EvalOptions(suite, opening, Quoting.parse(quotes), out, data, config, size, lengths, failures, as_json))


@app.command()
def tune(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Keep the search there, and its front; run again to go on.")],
    model: ModelOption = None,
    style: Annotated[
        str | None, typer.Option("--style", metavar="NAME|FILE", help="Page style to search around. Default: the model's own.")
    ] = None,
    vary: Annotated[str | None, typer.Option(metavar="KEY,KEY,..", help="Keys to vary. Default: all that the style leaves free.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Start no new style after so long.")] = 20.0,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Styles to try, those of earlier runs included. Default: as time allows.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Questions about a style that may be on the front; others are asked fewer.")] = 216,
    held_out: Annotated[int, typer.Option("--held-out", min=1, help="Questions that the front is judged by.")] = 600,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Your own questions: JSON lines of text, question and answer.")] = None,
    rule: Annotated[str, typer.Option(help="When an answer is right: exact, or contains.")] = "exact",
    neighbours: Annotated[int, typer.Option(min=0, help="Styles to begin with that differ from the reference in one key.")] = 48,
    population: Annotated[int, typer.Option(min=2, help="Styles of a generation.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    critic_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Have a language model propose styles: the base of an OpenAI-compatible endpoint.")
    ] = None,
    critic_model: Annotated[str | None, typer.Option(metavar="NAME", help="The critic's name at that endpoint.")] = None,
    critic_key_env: Annotated[str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds its key.")] = None,
    encoder: EncoderOption = "auto",
    kv_bytes: KVBytesOption = "1GiB",
    as_json: Annotated[bool, typer.Option("--json", help="Print front.json instead of the table.")] = False,
) -> None:
    """Search page styles for what reads more accurately, in fewer visual tokens, or faster. Needs the `tune` extra."""
    from glyph_rt.cli.tune import TuneOptions, run

    run(
        TuneOptions(
            out=out,
            model=model,
            style=style,
            vary=vary,
            minutes=minutes,
            trials=trials,
            size=size,
            held_out=held_out,
            data=data,
            rule=rule,
            neighbours=neighbours,
            population=population,
            seed=seed,
            critic_url=critic_url,
            critic_model=critic_model,
            critic_key_env=critic_key_env,
            encoder=encoder,
            kv_bytes=kv_bytes,
            as_json=as_json,
        )
    )


@app.command(name="train-reader")
def train_reader(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the run keeps its state, its log and, at the end, the model.")],
    minutes: Annotated[float, typer.Option(help="Length of the schedule, in minutes of training.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    start: Annotated[
        Path | None, typer.Option(metavar="MODEL|RUN", help="Go on from the weights of a model or a run instead of from scratch.")
    ] = None,
    style: Annotated[str, typer.Option(metavar="NAME|FILE", help="Pages to train on: a grid of character cells.")] = "reader",
    replicas: Annotated[int, typer.Option(min=1, help="Batches computed side by side in every step, each by a process.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda; on cuda: --replicas 1, and more of the next two.")] = "cpu",
    makers: Annotated[int, typer.Option(help="Processes that make batches; 0: a thread.")] = 0,
    scale: Annotated[int, typer.Option(min=1, help="Times the documents in every batch.")] = 1,
) -> None:
    """Train the embedded reader; run it again to resume."""
    from glyph_rt.export.reader.train import Options, train
    from glyph_rt.typeset import load_style

    begun = None if start is None else str(start)
    options = Options(minutes, seed, begun, replicas=replicas, device=device, makers=makers, scale=scale)
    train(out, options, load_style(style))
