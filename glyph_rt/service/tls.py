"""TLS of a server: its certificate, and the authority that its clients' certificates come from. Renewed files count without a restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from glyph_rt.errors import OptionError
from glyph_rt.service.watched import WatchedFiles


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. client_ca: the authority whose certificates clients must present; None: clients need none."""

    certificate: Path  # the server's, followed by the ones between it and the authority
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which looks for renewed files before every handshake; connections that are there stay. Raises OptionError."""
        files = (self.certificate, self.key, *(() if self.client_ca is None else (self.client_ca,)))
        watched: WatchedFiles[Any] = WatchedFiles(files, self._load)
        last = watched.value

        def renewed() -> Any:
            nonlocal last
            current = watched.value
            if current is last:
                return None  # gRPC keeps what it has
            last = current
            return current

        return grpc.dynamic_ssl_server_credentials(last, renewed, require_client_authentication=self.client_ca is not None)

    def _load(self) -> Any:
        """A grpc.ServerCertificateConfiguration, of files that belong together. Raises OptionError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            pair = self.key.read_bytes(), self.certificate.read_bytes()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise OptionError(
                f"{self.certificate} and {self.key} are no certificate and key in PEM that belong together ({_why(error)})"
            ) from None
        if self.client_ca is None:
            return grpc.ssl_server_certificate_configuration([pair])
        try:
            context.load_verify_locations(self.client_ca)
            return grpc.ssl_server_certificate_configuration([pair], self.client_ca.read_bytes())
        except OSError as error:
            raise OptionError(f"{self.client_ca} holds no certificate in PEM ({_why(error)})") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # rather than asking at a terminal that a service has not


def _why(error: Exception) -> str:
    return (
        error.reason if isinstance(error, ssl.SSLError) else error.strerror if isinstance(error, OSError) else str(error)
    ) or "unreadable"
