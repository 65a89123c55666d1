"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="Model directory in Hugging Face layout. Default: the embedded reader.")
]
StyleOption = Annotated[
    str | None,
    typer.Option(
        "--style", metavar="NAME|FILE", help="Page style: a preset, theme or mode, joined by +, or a JSON file. Default: the model's own."
    ),
]
EncoderOption = Annotated[str, typer.Option("--encoder", help="Vision encoder: auto, torch, onnx, tensorrt, or a name that doctor lists.")]
SystemOption = Annotated[str, typer.Option("--system", metavar="TEXT", help="What the model is told before the pages.")]
QuantOption = Annotated[
    str | None, typer.Option("--quant", metavar="int8|int4", help="Keep the decoder's weights smaller; costs some quality.")
]
QuotesOption = Annotated[
    str, typer.Option("--quotes", metavar="mark|exact", help="Exact: misread quotes of the document get its own characters.")
]
KVBytesOption = Annotated[
    str, typer.Option("--kv-bytes", metavar="SIZE", help="Memory for keys and values of all documents and answers together.")
]
KVDtypeOption = Annotated[
    str,
    typer.Option("--kv-dtype", metavar="model|int8|fp8", help="What a document's keys and values are kept in; smaller costs some quality."),
]
DecoderDeviceOption = Annotated[
    str, typer.Option("--device", metavar="cpu|cuda", help="Where the decoder runs. It has not been proven on a GPU yet.")
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", metavar="fp32|bf16|fp16", help="What the decoder computes in; half of fp32 takes half the memory.")
]
CudaGraphsOption = Annotated[
    bool,
    typer.Option("--cuda-graphs", help="With --device cuda: record the steps of long answers and play them back. Not proven yet."),
]
ReserveOption = Annotated[str, typer.Option("--reserve", metavar="SIZE", help="Part of the budget that the plan leaves alone.")]
StrategyOption = Annotated[
    str,
    typer.Option(
        help="How the text is read: whole, map_reduce (part by part), retrieve_pages (the pages that share words with the question), "
        "or auto: whole where it fits, else one of the others, and standard error says which and why."
    ),
]
WindowOption = Annotated[int | None, typer.Option(metavar="PAGES", help="Read at most so many pages at a time. Default: what fits.")]
PartsOption = Annotated[int, typer.Option(help="With map_reduce: read a text in at most so many parts.")]
ReduceOption = Annotated[
    str | None,
    typer.Option(metavar="evidence|notes", help="With map_reduce: how parts' answers that differ become one. Default: as the model can."),
]
TextBytesOption = Annotated[str, typer.Option("--text-bytes", metavar="SIZE", help="Largest text to take on.")]
