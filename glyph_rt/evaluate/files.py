"""Rows of a benchmark's own files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glyph_rt.errors import InputError


def rows(file: Path, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects of a `.jsonl` or `.parquet` file. Raises InputError, naming file and line, for what is not one of this benchmark."""
    try:
        source = _parquet(file) if file.suffix == ".parquet" else _json_lines(file)
        for number, row in enumerate(source, 1):
            missing = [key for key in required if key not in row]
            if missing:
                raise InputError(f"{file}, row {number}: no {missing[0]!r}; these files hold {', '.join(required)}")
            yield row
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error})") from None


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{file}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {number}: not a JSON object")
            yield row


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet  # too large for an extra of ours; who has Parquet files has it
    except ImportError:
        raise InputError(f"{file} needs pyarrow to be read: pip install pyarrow, or convert it to JSON lines") from None
    try:
        table = pyarrow.parquet.ParquetFile(file)
        for batch in table.iter_batches(16):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InputError(f"{file} cannot be read as Parquet ({error})") from None
