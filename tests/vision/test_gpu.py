"""The driver's answers, from a driver that is none."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from glyph_rt.vision.gpu import Gpu, find_gpu

VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\nGCC version: 13.3.0\n"


class Driver:
    """libcuda's six functions, for an RTX 4090 D."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 100 if name == self.failing else self.answer(name, arguments)

    def answer(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name == "cuDeviceGetName":
            arguments[0].value = b"NVIDIA GeForce RTX 4090 D"
        elif name == "cuDeviceGetAttribute":
            ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int))[0] = {75: 8, 76: 9}[arguments[1]]
        elif name == "cuDriverGetVersion":
            ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int))[0] = 13020
        else:
            assert name in ("cuInit", "cuDeviceGet")
        return 0


def no_driver(_: str) -> Any:
    raise OSError("libcuda.so.1: cannot open shared object file")


def test_a_gpu_is_what_the_driver_says(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text(VERSION)
    assert find_gpu(load=lambda _: Driver(), version_file=file) == Gpu("NVIDIA GeForce RTX 4090 D", "8.9", "580.65.06")
    found = find_gpu(load=lambda _: Driver(), version_file=tmp_path / "none")
    assert found is not None and found.driver == "CUDA 13.2"


def test_no_driver_is_no_gpu() -> None:
    assert find_gpu(load=no_driver) is None


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute", "cuDriverGetVersion"])
def test_a_driver_that_does_not_work_is_no_gpu(call: str) -> None:
    assert find_gpu(load=lambda _: Driver(call)) is None
