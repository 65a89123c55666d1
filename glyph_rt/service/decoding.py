"""How services are added to a server, so that requests that are no valid messages are answered like any other bad input.

grpc.aio would end such a call as INTERNAL and log it as a defect of the server. Here the request becomes None, which the handlers
refuse as INVALID_ARGUMENT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from glyph_rt.service.failures import LOG

Handler = Any  # grpc.RpcMethodHandler of some request and response
_KINDS = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}


class Registry:
    """Takes services in a server's stead, for the generated `add_..._to_server`.

    Methods are not registered with gRPC's core but looked up by name. grpc.aio (1.85) has the core write each call of a registered method
    into memory set aside for it, and frees all of that when its accept loop ends by an error (`_server_main_loop`): the next call of such
    a method corrupts the process. One request is enough to end the loop, see `Server._keep`.

    lenient: handlers get malformed requests as None. An interceptor would do it too, and cost every call a good part of what gRPC itself
    does.
    """

    def __init__(self, server: grpc.aio.Server, *, lenient: bool = False) -> None:
        self._server, self._lenient = server, lenient

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """The service's methods by name."""
        if self._lenient:
            handlers = {name: _with_lenient_decoding(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same methods in another form, which the other method makes itself."""


def _with_lenient_decoding(handler: Handler) -> Handler:
    make, name = _KINDS[handler.request_streaming, handler.response_streaming]
    return make(getattr(handler, name), _lenient(handler.request_deserializer), handler.response_serializer)


def _lenient(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def attempt(data: bytes) -> object:
        try:
            return decode(data)
        except DecodeError:
            LOG.debug("a malformed request of %d bytes", len(data))
            return None

    return attempt
