"""Content digests: the one way glyph-rt names a thing by what it is made of."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

Field: TypeAlias = str | bytes | bytearray | memoryview | int


def digest(kind: str, *fields: Field) -> str:
    """SHA-256, in hex, over length-prefixed fields.

    `kind` names what is being identified and the version of its schema ("page/1"): two kinds never collide. The length
    prefix keeps ("ab", "c") and ("a", "bc") apart.
    """
    parts: list[bytes | bytearray | memoryview] = []
    for field in (kind, *fields):
        text = str(field) if isinstance(field, int) else field
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        parts += (size.to_bytes(8, "little"), data)
    return hashlib.sha256(b"".join(parts)).hexdigest()
