"""What a call raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from glyph_rt.errors import GlyphError, OptionError
from glyph_rt.service.failures import DETAILS


class ServiceError(GlyphError):
    """A server refused a call, or could not be reached.

    code: the gRPC status; reason: the server's word for it, empty when the error is not the server's own; field: the part of the
    request at fault; retry_s: seconds after which trying again makes sense, None when it does not as the request stands.
    """

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error
        super().__init__(f"the server: {call.details() or call.code().name.lower()}")
        self.code: grpc.StatusCode = call.code()
        self.reason, self.retry_s = "", None
        trailers = dict(call.trailing_metadata() or ())
        for detail in status_pb2.Status.FromString(trailers.get(DETAILS, b"")).details:
            info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(retry):
                self.retry_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif detail.Unpack(bad) and bad.field_violations:
                self.field = bad.field_violations[0].field


class RefusedError(ServiceError):
    """The request cannot be served as written."""

    exit_code = 2


@contextmanager
def translated() -> Iterator[None]:
    """Raises ServiceError for gRPC's errors."""
    try:
        yield
    except grpc.RpcError as error:
        call: Any = error
        kind = RefusedError if call.code() == grpc.StatusCode.INVALID_ARGUMENT else ServiceError
        raise kind(error) from None


@contextmanager
def carried() -> Iterator[None]:
    """Raises OptionError for a value that a message cannot hold."""
    try:
        yield
    except ValueError as error:  # protobuf's: a number out of its field's range, or lone surrogates
        raise OptionError(f"the request cannot be sent: {error}") from None
