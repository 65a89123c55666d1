"""Which GPU this box has, asked of the driver itself: no torch, no TensorRT, and no CUDA context made."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER_LIBRARY = "libcuda.so.1"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU and its driver, as engines are bound to them."""

    name: str  # as the driver names it
    compute_capability: str  # "8.9"
    driver: str  # "580.65.06", or the CUDA version it speaks where its own cannot be read


def find_gpu(index: int = 0, load: Callable[[str], Any] = ctypes.CDLL, version_file: Path = DRIVER_VERSION) -> Gpu | None:
    """GPU number `index`, or None where there is no driver or it does not work.

    To be asked before any TensorRT runtime is made: without a driver, some versions of TensorRT give a runtime that crashes the process.
    """
    try:
        cuda = load(DRIVER_LIBRARY)
    except OSError:
        return None
    device, major, minor, spoken = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    calls: tuple[Callable[[], int], ...] = (  # each returns 0 when it worked
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), index),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        lambda: cuda.cuDriverGetVersion(ctypes.byref(spoken)),
    )
    if any(call() != 0 for call in calls):
        return None
    cuda_version = f"CUDA {spoken.value // 1000}.{spoken.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", _driver(version_file) or cuda_version)


def _driver(file: Path) -> str | None:
    """The driver's own version, from where the kernel shows it: `... Kernel Module for x86_64  580.65.06  Release ...`."""
    try:
        match = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return match[1] if match else None
