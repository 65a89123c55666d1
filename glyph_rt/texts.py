"""Text files as users have them: read within a byte limit, as UTF-8, or refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

from glyph_rt.errors import InputError, LimitError

STDIN = "-"


def read_text(source: str, limit: int) -> str:
    """The text of a file, or of standard input for "-". Never holds more than `limit` bytes of it.

    Raises InputError for what is not a readable UTF-8 text, LimitError for more than `limit` bytes.
    """
    name = "standard input" if source == STDIN else source
    data = _read(source, limit)
    if len(data) > limit:
        raise LimitError(f"{name} has more than {limit:,} bytes, the limit for one text; split it or raise --text-bytes")
    return decode_text(data, name)


def decode_text(data: bytes, name: str) -> str:
    """The text that `data` is in UTF-8, without a byte order mark. Raises InputError for what is none."""
    if not data:
        raise InputError(f"{name} is empty; there is nothing to read", public="the text is empty", field="text")
    if b"\0" in data:
        raise InputError(
            f"{name} is not a text file (it holds NUL bytes); give plain text in UTF-8", public="the text holds NUL bytes", field="text"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"is not valid UTF-8 (byte {error.start}, line {line})"
        convert = "convert it, for example: iconv -f LATIN1 -t UTF-8"
        raise InputError(f"{name} {where}; {convert}", public=f"the text {where}", field="text") from None


def _read(source: str, limit: int) -> bytes:
    """At most limit + 1 bytes: enough to know that there are more."""
    if source == STDIN:
        return sys.stdin.buffer.read(limit + 1)
    path = Path(source)
    try:
        if path.is_dir():
            raise InputError(f"{source} is a directory; give one text file")
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise InputError(f"no file {source}; give the path of a text file, or - for standard input") from None
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror})") from None
