"""How a command reaches a server: the options that `ask --server`, `top` and `bench serve` share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glyph_rt.errors import OptionError

if TYPE_CHECKING:  # importing it imports grpc, and this module is part of `--help`
    from glyph_rt.service.access import Access


@dataclass(frozen=True)
class Credentials:
    """Whom we trust, and how we prove who we are. Each field is an option of the command line."""

    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", envvar="GLYPH_RT_CA", help="The authority of the server's certificate, PEM: use TLS."),
    ] = None
    cert: Annotated[
        Path | None,
        typer.Option("--cert", metavar="FILE", envvar="GLYPH_RT_CERT", help="Our own certificate, PEM, for a server that asks for one."),
    ] = None
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", envvar="GLYPH_RT_KEY", help="Its key, PEM.")] = None
    # A token on the command line could be seen by every user of this machine.
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", envvar="GLYPH_RT_TOKEN_FILE", help="A file with our token for the server."),
    ] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="Send texts to another machine without TLS.")] = False

    def access(self) -> Access:
        """Raises OptionError for files that cannot be read."""
        from glyph_rt.service.access import Access

        return Access(self.ca, self.cert, self.key, self._token(), self.insecure)

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise OptionError(f"{self.token_file} holds no token; it is what glyph-rt token new printed") from None


@dataclass(frozen=True)
class Connection:
    """A server, and what goes with reaching it."""

    address: str
    credentials: Credentials

    def access(self) -> Access:
        """Raises OptionError for files that cannot be read."""
        return self.credentials.access()


def with_credentials(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, which takes a parameter `credentials`, with the options of `Credentials` in its place."""
    options = inspect.signature(Credentials, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    def run(**given: Any) -> None:
        credentials = Credentials(**{name: given.pop(name) for name in options})
        command(credentials=credentials, **given)

    parameters = [p for p in own.parameters.values() if p.name != "credentials"] + list(options.values())
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
