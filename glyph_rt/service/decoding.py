"""Requests that are no valid messages are answered like any other bad input.

grpc.aio would end such a call as INTERNAL and log it as a defect of the server. Here the request becomes None, which the handlers
refuse as INVALID_ARGUMENT.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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


class LenientDecoding(grpc.aio.ServerInterceptor):
    """Hands malformed requests of glyph_rt's own services to their handlers as None."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/glyph_rt."):
            return handler
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
