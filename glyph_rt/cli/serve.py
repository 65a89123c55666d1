"""`glyph-rt serve`: the gRPC service, in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glyph_rt.memory import Limits, parse_size
from glyph_rt.service.address import Address
from glyph_rt.service.limits import ServiceLimits

if TYPE_CHECKING:
    from glyph_rt.runtime import Runtime


@dataclass(frozen=True)
class ServeOptions:
    """The command line of `serve`; times are seconds."""

    address: str
    model: Path | None
    style: str | None
    encoder: str
    kv_bytes: str
    text_bytes: str
    pages: int | None
    documents: int
    streams: int
    upload_bytes: str
    deadline: float
    idle: float
    drain: float


def run(options: ServeOptions) -> None:
    """Cheap checks first: a wrong address or limit is refused before torch is imported."""
    address = Address.parse(options.address)
    own = ServiceLimits(
        documents=options.documents,
        streams=options.streams,
        upload_bytes=parse_size(options.upload_bytes),
        deadline_s=options.deadline,
        idle_s=options.idle,
        drain_s=options.drain,
    )
    limits = Limits(kv_bytes=parse_size(options.kv_bytes), text_bytes=parse_size(options.text_bytes), pages=options.pages)
    own.check_against(limits)
    logging.basicConfig(format="glyph-rt: %(message)s", level=logging.WARNING)
    start = time.perf_counter()
    from glyph_rt.service.server import Phases, serve

    phases = Phases(start)
    phases.note("libraries loaded")

    def open_runtime() -> Runtime:
        from glyph_rt.runtime import Runtime

        return Runtime.open(options.model, style=options.style, encoder=options.encoder, limits=limits)

    asyncio.run(serve(address, own, open_runtime, phases))
