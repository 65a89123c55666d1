"""The limits a runtime is given; plan.py says how a budget is spent."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from enum import Enum

from glyph_rt.errors import OptionError
from glyph_rt.named import by_name

KIB, MIB, GIB = 2**10, 2**20, 2**30
_UNITS = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "k": KIB, "m": MIB, "g": GIB}


class KVDtype(Enum):
    """What the keys and values of documents are kept in: the model's own numbers, or a byte for each and a scale for each token and head.
    Those of questions and answers, which are short, stay the model's."""

    MODEL = "model"
    INT8 = "int8"
    FP8 = "fp8"

    @classmethod
    def parse(cls, text: str) -> KVDtype:
        """Raises OptionError."""
        return by_name(cls, text, "KV dtype")


@dataclass(frozen=True)
class Limits:
    """What a runtime takes on. The command line has options for the first four.

    An idle document gives its KV memory to whoever needs it. What is kept of it then, from fast to slow: a copy of its KV in host memory
    (of use on a GPU only), its encoded pages, its text.
    """

    kv_bytes: int = GIB  # KV memory of all documents and turns together: --kv-bytes
    kv_dtype: KVDtype = KVDtype.MODEL  # of documents: --kv-dtype
    cuda_graphs: bool = False  # capture decode steps, on a GPU: --cuda-graphs; not proven on one yet
    text_bytes: int = 16 * MIB  # UTF-8 size of one document: --text-bytes
    page_bytes: int = 64 * MIB  # drawn pages kept, in case they are read again; 0: none
    pages: int | None = None  # of one document; None: what the model's context holds
    host_kv_bytes: int = 0  # KV of idle documents kept in host memory
    encoded_bytes: int = 128 * MIB  # encoded pages kept, in case they are read again
    open_text_bytes: int = 256 * MIB  # texts of all open documents, with their layouts
    waiting: int = 32  # requests that may wait for KV memory at a time; 0: none waits
    wait_s: float = 10.0  # how long one waits

    def __post_init__(self) -> None:
        if self.kv_bytes < 1 or self.text_bytes < 1 or self.open_text_bytes < 1:
            raise OptionError("kv-bytes, text-bytes and open-text-bytes must be at least 1")
        for name in ("page_bytes", "host_kv_bytes", "encoded_bytes", "waiting", "wait_s"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name.replace('_', '-')} must not be negative")
        if self.pages is not None and self.pages < 1:
            raise OptionError("pages must be at least 1")

    @property
    def host_bytes(self) -> int:
        """Most that texts, and what is kept of them beside keys and values on the decoder's device, take in host memory."""
        return self.text_bytes + self.page_bytes + self.host_kv_bytes + self.encoded_bytes + self.open_text_bytes


def parse_size(text: str) -> int:
    """ "512MiB" or "2GiB" or a number of bytes. Raises OptionError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise OptionError(f"{text!r} is not a size; write bytes, or a number with KiB, MiB or GiB")
    return int(float(match[1]) * unit)


def peak_rss_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB  # macOS counts in bytes, Linux in KiB
