"""Who is calling, and which addresses may be served to whom.

A tenant owns documents and sees no other's. Its name comes from the caller's token where the server has a token file, else from the
caller's certificate where it has a client authority; without either everyone who reaches the server is the one tenant "".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from glyph_rt.errors import AddressError, IdentityError
from glyph_rt.service.address import Address
from glyph_rt.service.failures import DETAILS, to_status
from glyph_rt.service.tls import TlsFiles
from glyph_rt.service.tokens import TokenFile

Handler = Any  # grpc.RpcMethodHandler of some request and response
_OPEN = "/grpc.health.v1."  # probes have no secrets, and health tells none
_LONGEST_NAME = 256  # characters of a certificate's name
_tenant: ContextVar[str] = ContextVar("tenant")  # of the call that this task handles


@dataclass(frozen=True)
class Security:
    """How a server is protected. insecure: whoever starts it accepts that what is missing is missing."""

    tls: TlsFiles | None = None
    tokens: Path | None = None
    insecure: bool = False

    @property
    def identifies(self) -> bool:
        """Whether callers are told apart."""
        return self.tokens is not None or (self.tls is not None and self.tls.client_ca is not None)

    def missing(self, address: Address) -> str:
        """What an address that other machines reach needs and does not have; empty: nothing."""
        if address.local:
            return ""
        if self.tls is None:
            return "TLS (--tls-cert and --tls-key), so that nobody on the way reads texts and tokens"
        return "" if self.identifies else "to know its callers (--tokens or --client-ca), since anybody could read and ask"

    def check(self, address: Address) -> None:
        """Raises AddressError unless the address is safe to serve at."""
        missing = self.missing(address)
        if missing and not self.insecure:
            raise AddressError(f"{address.target} can be reached from other machines and needs {missing}; --insecure does without")


class TokenAuthentication(grpc.aio.ServerInterceptor):
    """Lets calls pass that carry `authorization: Bearer TOKEN` of some tenant. Refuses others before their request is read."""

    def __init__(self, tokens: TokenFile, refused: Callable[[], None]) -> None:
        self._tokens, self._refused = tokens, refused

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        if handler_call_details.method.startswith(_OPEN):
            return await continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        scheme, _, token = given.partition(" ") if isinstance(given, str) else ("", "", "")
        tenant = self._tokens.tenant(token.strip()) if scheme.lower() == "bearer" else None
        if tenant is None:
            self._refused()
            return _REFUSAL
        _tenant.set(tenant)  # every call is handled by a task of its own, which this runs in
        return await continuation(handler_call_details)


async def _refuse(requests: object, context: Any) -> None:
    code, _, status = to_status(IdentityError("no valid token"))
    await context.abort(code, status.message, ((DETAILS, status.SerializeToString()),))


# Taken as a stream, so that not even one message is received from a caller who has no token.
_REFUSAL: Handler = grpc.stream_stream_rpc_method_handler(_refuse)


def tenant_of(context: Any) -> str:
    """The tenant of the call. Raises IdentityError for a certificate that names nobody."""
    tenant = _tenant.get(None)
    if tenant is not None:
        return tenant
    peer = context.auth_context()
    if "x509_pem_cert" not in peer:
        return ""  # gRPC refuses the handshake where certificates are required
    names = [*peer.get("x509_subject_alternative_name", ()), *peer.get("x509_common_name", ())]
    name = bytes(names[0]).decode("utf-8", "replace") if names else ""
    if not 0 < len(name) <= _LONGEST_NAME:
        raise IdentityError("the client's certificate names nobody")
    return name
