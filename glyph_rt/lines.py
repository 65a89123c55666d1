"""LineFile: JSON lines in a file, each there whole and exactly once, whatever ended the process that wrote them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glyph_rt.durable import sync_folder
from glyph_rt.errors import InputError, OutputError

_BLOCK = 1 << 16


class LineFile:
    """Appends objects to `file`, one a line; a line is on disk before `append` returns.

    A crash, a kill or a full disk leaves whole lines and at most the beginning of one more. That is overwritten by the next line that
    somebody appends, and not before: a file that turns out to be something else stays as it was. One process at a time has it open.

    Raises InputError when another process has it open, OutputError when it cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = file.open("ab", buffering=0)
        except OSError as error:
            raise OutputError(f"{file} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sync_folder(file.parent)  # so that the file itself, if it is new, outlives a crash of the machine
            self._end = self._whole_lines()
        except BlockingIOError:
            self.close()
            raise InputError(f"another process writes {file}; wait for it, or choose another file") from None
        except OSError as error:
            self.close()
            raise OutputError(f"{file} cannot be written ({error.strerror})") from None

    def read(self) -> Iterator[dict[str, Any]]:
        """Every whole line, one at a time. Raises ValueError for one that is no JSON object."""
        with self.file.open("rb") as stream:
            while stream.tell() < self._end:
                line = json.loads(stream.readline())
                if not isinstance(line, dict):
                    raise ValueError("a line is not a JSON object")
                yield line

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, on disk before this returns. Raises OutputError, and then the line is not there."""
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        descriptor = self._stream.fileno()
        try:
            if os.fstat(descriptor).st_size != self._end:
                os.ftruncate(descriptor, self._end)
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):  # else the next line does it
                os.ftruncate(descriptor, self._end)
            raise OutputError(
                f"{self.file} cannot be written ({error.strerror}); what is in it is whole, and can be gone on from"
            ) from None
        self._end += len(data)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _whole_lines(self) -> int:
        """Bytes up to the end of the last whole line."""
        with self.file.open("rb") as stream:
            at = stream.seek(0, os.SEEK_END)
            while at > 0:
                start = max(0, at - _BLOCK)
                stream.seek(start)
                found = stream.read(at - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                at = start
        return 0
