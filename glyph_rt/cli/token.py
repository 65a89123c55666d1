"""`glyph-rt token new`: a secret by which a server knows a caller."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Tokens that callers of a server have.", no_args_is_help=True)


@app.callback()
def tokens() -> None:
    """Makes `new` a command of its own, though it is the only one."""


@app.command()
def new(
    tenant: Annotated[str, typer.Argument(help="Whose documents its bearer sees: a-z, 0-9, _ and -.")],
    file: Annotated[Path, typer.Option("--tokens", metavar="FILE", help="The server's token file; a line is added.")],
) -> None:
    """Print a new token, once: the file keeps only its hash."""
    from glyph_rt.service.tokens import add_token

    print(add_token(file, tenant))
    print(f"{file} has its hash; a running server takes it up. To revoke it, remove the line.", file=sys.stderr)
