"""`glyph-rt top`: a live view of a running server, from what GetRuntime tells."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from glyph_rt.cli.connection import Connection
from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import MIB
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.v1 import runtime_pb2 as pb


@dataclass(frozen=True)
class Look:
    """What the server told, and when."""

    at: float
    told: pb.GetRuntimeResponse


def run(connection: Connection, interval: float, once: bool) -> None:
    """Show until Ctrl-C. Raises ServiceError when the server cannot be reached at first; later that is shown, and tried again."""
    if not 0.1 <= interval <= 3600:
        raise OptionError("interval must lie between 0.1 and 3600 seconds")
    with Client(connection.address, connection.access(), timeout_s=10.0) as client:
        before = Look(time.monotonic(), client.runtime())
        if once or not sys.stdout.isatty():
            Console().print(view(connection.address, before, before))
            return
        with Live(view(connection.address, before, before), auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(interval)
                try:
                    now = Look(time.monotonic(), client.runtime())
                except ServiceError as error:
                    live.update(str(error), refresh=True)
                else:
                    live.update(view(connection.address, before, now), refresh=True)
                    before = now


def view(address: str, before: Look, now: Look) -> Table:
    """One screen: what is held against its limit, and rates since the look before."""
    told, load, limits, memory = now.told, now.told.load, now.told.limits, now.told.memory
    table = Table(title=f"glyph-rt {told.version} at {address}", box=None, title_justify="left", show_header=False, padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "left"):
        table.add_column(justify=justify)
    owner = f", seen as {told.tenant}" if told.tenant else ""
    table.add_row("model", told.model_digest[:12], told.encoder, f"style {told.style}, up {_duration(load.uptime_s)}{owner}")
    for name, used, limit, unit in (
        ("KV memory", memory.kv_used_bytes, memory.kv_budget_bytes, MIB),
        ("texts kept", load.kept_bytes, limits.kept_bytes, MIB),
        ("texts coming in", load.upload_bytes, limits.upload_bytes, MIB),
        ("documents", load.documents, limits.documents, 1),
        ("streams", load.streams, limits.streams, 1),
    ):
        suffix = " MiB" if unit == MIB else ""
        digits = ".1f" if unit == MIB else ".0f"
        table.add_row(name, f"{used / unit:{digits}}{suffix}", f"of {limit / unit:{digits}}{suffix}", ProgressBar(limit, used, width=30))
    seconds = now.at - before.at
    for name, field in (
        ("documents read", "readings"),
        ("pages", "pages"),
        ("answers", "answers"),
        ("answer tokens", "generation_tokens"),
        ("refused calls", "refusals"),
    ):
        total = getattr(load, field)
        # A server that was started anew counts from 0 again.
        since = max(0, total - getattr(before.told.load, field))
        table.add_row(name, f"{total:,}", f"{since / seconds:.1f}/s" if seconds > 0 else "")
    return table


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
