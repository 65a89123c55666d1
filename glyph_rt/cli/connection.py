"""How a command reaches a server: the options of `ask --server`, `top` and `bench serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glyph_rt.errors import OptionError

if TYPE_CHECKING:  # importing it imports grpc, and this module is part of `--help`
    from glyph_rt.service.access import Access

CaOption = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", envvar="GLYPH_RT_CA", help="The authority of the server's certificate, PEM: use TLS.")
]
CertOption = Annotated[
    Path | None,
    typer.Option("--cert", metavar="FILE", envvar="GLYPH_RT_CERT", help="Our own certificate, PEM, for a server that asks for one."),
]
KeyOption = Annotated[Path | None, typer.Option("--key", metavar="FILE", envvar="GLYPH_RT_KEY", help="Its key, PEM.")]
# A token on the command line could be seen by every user of this machine.
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", envvar="GLYPH_RT_TOKEN_FILE", help="A file with our token for the server.")
]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="Send texts to another machine without TLS.")]


@dataclass(frozen=True)
class Connection:
    """A server, and the files that go with reaching it."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    insecure: bool = False

    def access(self) -> Access:
        """Raises OptionError for files that cannot be read."""
        from glyph_rt.service.access import Access

        return Access(self.ca, self.certificate, self.key, self._token(), self.insecure)

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise OptionError(f"{self.token_file} holds no token; it is what glyph-rt token new printed") from None
