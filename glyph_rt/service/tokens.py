"""Bearer tokens: made once, shown once, kept as hashes in a file that may change while the server runs.

A line of the file is `TENANT sha256:HEX`, and `#` begins a comment. A tenant may have several lines, so that a token is replaced by
adding the new one, moving clients over, and then taking the old line out. A token is `glyph-rt.TENANT.SECRET`; its secret has 256
random bits, which no dictionary holds, so a plain SHA-256 keeps it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from pathlib import Path

from glyph_rt.errors import OptionError
from glyph_rt.service.watched import WatchedFiles

LOG = logging.getLogger("glyph_rt.service")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LINE = re.compile(rf"({_TENANT.pattern}) sha256:([0-9a-f]{{64}})")
_PREFIX = "glyph-rt"
_NOBODY = hashlib.sha256(b"").hexdigest()  # compared against for unknown tenants, so that they take the same time

Hashes = dict[str, tuple[str, ...]]


def new_token(tenant: str) -> tuple[str, str]:
    """A new token, and its line for the file. Raises OptionError for what is no tenant's name."""
    if not _TENANT.fullmatch(tenant):
        raise OptionError(f"{tenant!r} is no tenant; use 1 to 64 of a-z, 0-9, _ and -, not beginning with _ or -")
    token = f"{_PREFIX}.{tenant}.{secrets.token_urlsafe(32)}"
    return token, f"{tenant} sha256:{_digest(token)}"


def add_token(file: Path, tenant: str) -> str:
    """Make a token and append its line to `file`, which is made for this user only. Raises OptionError."""
    token, line = new_token(tenant)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as out:
            out.write(line + "\n")
    except OSError as error:
        raise OptionError(f"{file} cannot be written ({error.strerror}); choose another --tokens") from None
    return token


class TokenFile:
    """The tokens that a server accepts. A change of the file counts from the next call on."""

    def __init__(self, file: Path) -> None:
        """Raises OptionError for a file that cannot be read, is malformed or names nobody."""
        self._hashes = WatchedFiles((file,), lambda: _parse(file))

    def tenant(self, token: str) -> str | None:
        """Whose token this is; None: nobody's."""
        prefix, _, rest = token.partition(".")
        name = rest.partition(".")[0]
        known = self._hashes.value.get(name, ()) if prefix == _PREFIX else ()
        given = _digest(token)
        # Every hash is compared, and each in constant time: how long it takes tells nothing of the secret.
        matches = [hmac.compare_digest(given, digest) for digest in known or (_NOBODY,)]
        return name if any(matches) and known else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(file: Path) -> Hashes:
    try:
        lines = file.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise OptionError(f"the token file {file} cannot be read ({reason})") from None
    found: Hashes = {}
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip()
        match = _LINE.fullmatch(entry)
        if match is not None:
            found[match[1]] = (*found.get(match[1], ()), match[2])
        elif entry:
            raise OptionError(f"line {number} of the token file {file} is malformed; glyph-rt token new writes such lines")
    if not found:
        raise OptionError(f"the token file {file} holds no token; make one with: glyph-rt token new TENANT --tokens {file}")
    return found
