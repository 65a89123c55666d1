"""Limits, and sizes as people write them."""

from __future__ import annotations

import pytest

from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import Limits, parse_size, peak_rss_bytes


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("2KiB", 2048), ("1.5 MiB", 3 * 2**19), ("3g", 3 * 2**30), ("1GIB", 2**30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1TB", "1e9", "GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(OptionError, match="is not a size"):
        parse_size(text)


def test_limits_and_peak_memory() -> None:
    for bad in ({"kv_bytes": 0}, {"waiting": -1}, {"wait_s": float("nan")}, {"host_kv_bytes": -1}):
        with pytest.raises(OptionError):
            Limits(**bad)  # type: ignore[arg-type]
    assert 10 * 2**20 < peak_rss_bytes() < 2**40
