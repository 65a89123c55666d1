"""Every error a user of glyph-rt can meet, in one hierarchy.

A message is one line: what was wrong, what the limit is, and which knob moves it. `exit_code` is what the command line
returns: 2 when the request itself cannot be served as written, 1 when serving it failed.
"""

from __future__ import annotations

from typing import ClassVar


class GlyphError(Exception):
    """Base of all errors glyph-rt raises on purpose.

    `public` is what a remote client may be told in place of the message: figures and limits of its own request, no paths,
    options or other clients' affairs; empty: a general text of the error's class. `field` is the part of the request at fault.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, public: str = "", field: str = "") -> None:
        super().__init__(message)
        self.public, self.field = public, field


class InputError(GlyphError):
    """The text cannot be read: missing, empty, binary, or not UTF-8."""

    exit_code = 2


class StyleError(GlyphError):
    """A page style is unknown, malformed, or impossible to draw."""

    exit_code = 2


class ModelError(GlyphError):
    """A model directory is missing, incomplete, or holds a model of another class."""

    exit_code = 2


class OptionError(GlyphError):
    """An option has a value outside its range."""

    exit_code = 2


class ProfileError(GlyphError):
    """An engine profile is unknown, malformed, or asks for what no engine can be."""

    exit_code = 2


class LimitError(GlyphError):
    """The request is larger than a limit; refused before any work."""


class BusyError(LimitError):
    """The request fits the limits but not beside what is there now: it may be repeated later."""


class PlanError(LimitError):
    """The memory budget does not hold the model and room to read one page. The message holds the plan's figures."""


class NotFoundError(GlyphError):
    """No document of that id: never made, deleted, or left idle for too long."""


class ConflictError(GlyphError):
    """A document was changed by somebody else while it was being changed."""


class AddressError(GlyphError):
    """An address that cannot be served on or connected to."""

    exit_code = 2


class UnavailableError(GlyphError):
    """A server that is starting, stopping, or not there."""


class IdentityError(GlyphError):
    """A caller who did not prove who it is."""


class DeadlineError(GlyphError):
    """A call took longer than a server allows."""


class EncoderError(GlyphError):
    """A vision encoder cannot be built or opened, or did not agree with the oracle."""


class ParityError(EncoderError):
    """A vision encoder does not reproduce the golden pages: its file, its kernels or its precision are wrong, and it is not used.

    `page` is the golden page it failed on. `report` has a line for each block of the encoder, beside the oracle's; it is empty where
    nothing could look inside.
    """

    def __init__(self, message: str, page: str = "", report: str = "") -> None:
        super().__init__(message)
        self.page, self.report = page, report


class BuildError(EncoderError):
    """TensorRT could not build an engine."""


class EngineRefusedError(EncoderError):
    """An engine of the store may not be loaded. `reason` says why in one word; nothing of it was deserialised."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoreError(GlyphError):
    """The engine store cannot be read or written: no space, no permission, no key."""


class OutputError(GlyphError):
    """A file of results cannot be written: no space, no permission."""


class NonFiniteError(GlyphError):
    """The model produced NaN or infinity: its weights or its precision are wrong, and no text is made from them."""


class ConstraintError(GlyphError):
    """An answer cannot go on in the form it was asked for: the model has no token for it, or the form is too complex to follow."""


class ClosedError(GlyphError):
    """A document or a runtime was used after it was closed."""


class InternalError(GlyphError):
    """A check of our own books failed: a defect of glyph-rt, never of the input."""
