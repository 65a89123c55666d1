"""The one table from errors to gRPC: code, reason, text, and google.rpc details.

RESOURCE_EXHAUSTED with RetryInfo means later, INVALID_ARGUMENT with BadRequest means never as written. Texts are the error's
`public` text or the table's, never `str(error)`: a message may name paths, options or other clients' affairs.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from glyph_rt.errors import (
    BusyError,
    ClosedError,
    ConflictError,
    ConstraintError,
    DeadlineError,
    GlyphError,
    IdentityError,
    InputError,
    LimitError,
    ModelError,
    NonFiniteError,
    NotFoundError,
    OptionError,
    UnavailableError,
)

DOMAIN = "glyph-rt"  # of every ErrorInfo
DETAILS = "grpc-status-details-bin"  # the trailer that carries google.rpc.Status
LOG = logging.getLogger("glyph_rt.service")


@dataclass(frozen=True)
class Rule:
    """How one class of errors looks to a client. `retry_s`: seconds after which trying again makes sense; None: never as it is."""

    error: type[Exception]
    code: grpc.StatusCode
    reason: str
    text: str
    retry_s: float | None = None


# The first rule that fits counts, so a subclass stands before its base.
TABLE = (
    Rule(BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY", "the server has no room for this request now", 1.0),
    Rule(LimitError, grpc.StatusCode.INVALID_ARGUMENT, "OVER_LIMIT", "the request is over a limit of this server"),
    Rule(InputError, grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT", "the request holds no readable text"),
    Rule(OptionError, grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "an option is out of range"),
    Rule(ConstraintError, grpc.StatusCode.INVALID_ARGUMENT, "CONSTRAINT", "the answer cannot be given in the form that was asked for"),
    Rule(ModelError, grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED", "the server's model cannot do what was asked"),
    Rule(NotFoundError, grpc.StatusCode.NOT_FOUND, "NO_DOCUMENT", "no such document: deleted, left idle, or never made"),
    Rule(ClosedError, grpc.StatusCode.NOT_FOUND, "NO_DOCUMENT", "no such document: deleted, left idle, or never made"),
    Rule(ConflictError, grpc.StatusCode.ABORTED, "CHANGED", "the document was changed by another call meanwhile", 1.0),
    Rule(IdentityError, grpc.StatusCode.UNAUTHENTICATED, "UNKNOWN_CALLER", "this server needs a valid token or certificate"),
    Rule(UnavailableError, grpc.StatusCode.UNAVAILABLE, "NOT_SERVING", "the server is starting or stopping", 1.0),
    Rule(DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, "SERVER_DEADLINE", "the call took longer than this server allows"),
    Rule(NonFiniteError, grpc.StatusCode.INTERNAL, "NO_VALID_OUTPUT", "the model produced no valid numbers"),
    Rule(MemoryError, grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "the server is out of memory", 5.0),
)


def to_status(error: Exception) -> tuple[grpc.StatusCode, str, status_pb2.Status]:
    """What a client is told of `error`: code, reason, and all of it.

    An error that no rule knows is logged, under an id that the client gets too.
    """
    rule = next((rule for rule in TABLE if isinstance(error, rule.error)), None)
    if rule is None:
        return _unexpected(error)
    public, field = (error.public, error.field) if isinstance(error, GlyphError) else ("", "")
    text = public or rule.text
    details: list[error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest]
    details = [error_details_pb2.ErrorInfo(reason=rule.reason, domain=DOMAIN)]
    if rule.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(rule.retry_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if rule.code == grpc.StatusCode.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text, reason=rule.reason)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    return rule.code, rule.reason, _status(rule.code, text, details)


def _unexpected(error: Exception) -> tuple[grpc.StatusCode, str, status_pb2.Status]:
    """INTERNAL. Only the error's class and the places in the code are logged: its message may hold a client's text."""
    identity = secrets.token_hex(8)
    places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(traceback.extract_tb(error.__traceback__)))
    LOG.error("internal error %s: %s at %s", identity, type(error).__name__, places)
    reason = "INTERNAL"
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"id": identity})
    code = grpc.StatusCode.INTERNAL
    return code, reason, _status(code, f"internal error {identity}; the server's log names it", [info])


def _status(
    code: grpc.StatusCode,
    text: str,
    details: list[error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest]
    | list[error_details_pb2.ErrorInfo],
) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code.name), message=text, details=packed)
