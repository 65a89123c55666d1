"""How a client reaches a server: whom it trusts, and how it proves who it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from glyph_rt.errors import AddressError, OptionError
from glyph_rt.service.address import Address

CREDENTIALS_FILE_LIMIT = 2**20  # bytes; nobody's certificate is longer


@dataclass(frozen=True)
class Access:
    """ca: PEM file of the authority that the server's certificate comes from; None: no TLS, which is for servers on this machine.
    certificate, key: the client's own, PEM. token: as `glyph-rt token new` printed it. insecure: other machines without TLS.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise OptionError("a client's certificate and its key go together")
        if self.certificate is not None and self.ca is None:
            raise OptionError("a client's certificate needs TLS: give the authority of the server's")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def target(self, address: str) -> str:
        """How gRPC spells the address. Raises AddressError for one that texts would travel to in the clear."""
        found = Address.parse(address, names=True)
        if self.ca is None and not found.local and not self.insecure:
            raise AddressError(f"{address} is another machine, and without TLS anybody on the way reads along; give the server's authority")
        return found.target

    def channel(self, address: str, *, aio: bool = False) -> Any:
        """A grpc.Channel, or a grpc.aio.Channel. Connects with the first call.

        Raises AddressError, and OptionError for files that cannot be read.
        """
        make: Any = grpc.aio if aio else grpc
        # A proxy of the environment is for the web, not for a server like this.
        options = [("grpc.enable_http_proxy", 0)]
        if self.ca is None:
            return make.insecure_channel(self.target(address), options)
        key, chain = _read(self.key), _read(self.certificate)
        return make.secure_channel(self.target(address), grpc.ssl_channel_credentials(_read(self.ca), key, chain), options)


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        with file.open("rb") as source:
            return source.read(CREDENTIALS_FILE_LIMIT)
    except OSError as error:
        raise OptionError(f"{file} cannot be read ({error.strerror})") from None
