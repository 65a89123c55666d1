"""Every command that opens a model opens it as it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glyph_rt import Runtime
from glyph_rt.errors import ModelError
from glyph_rt.language import Quant
from glyph_rt.memory.limits import MIB, KVDtype
from tests.test_cli import Run, run

__all__ = ["run"]

SHARED = ("--style", "reader", "--encoder", "torch", "--kv-dtype", "int8", "--text-bytes", "1MiB")
KV, QUANT = ("--kv-bytes", "64MiB"), ("--quant", "int8")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("ask", "{file}", "?"), (*KV, *QUANT)),
        (("batch", "{file}", "{out}"), (*KV, *QUANT)),
        (("serve", "--address", "127.0.0.1:0"), (*KV, *QUANT)),
        (("eval",), KV),
        (("plan", "--budget", "2GiB"), QUANT),
    ],
    ids=lambda part: part[0],
)
def test_a_model_is_opened_as_the_command_says(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    (file := tmp_path / "in").write_text('{"text": "a", "question": "b"}\n')
    seen: list[Any] = []

    def opened(*arguments: Any, **named: Any) -> Runtime:
        seen.append((*arguments, named))
        raise ModelError("that was seen")

    monkeypatch.setattr(Runtime, "open", opened)
    filled = [part.format(file=file, out=tmp_path / "out") for part in command]
    code, _, err = run(*filled, "--model", tmp_path, *SHARED, *options)
    assert code == ModelError.exit_code and err.endswith("glyph-rt: that was seen\n")
    ((model, named),) = seen
    assert (model, named["style"], named["encoder"]) == (tmp_path, "reader", "torch")
    assert (named["limits"].kv_dtype, named["limits"].text_bytes) == (KVDtype.INT8, MIB)
    assert named["limits"].kv_bytes == (64 * MIB if KV[0] in options else 1024 * MIB)
    assert named["quant"] == (Quant.INT8 if QUANT[0] in options else None)
