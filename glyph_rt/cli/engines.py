"""`glyph-rt engines list|verify|prune`: what is in the engine store, and whether it may be loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glyph_rt.errors import EngineRefusedError
from glyph_rt.memory.limits import MIB

if TYPE_CHECKING:  # importing it imports torch, and this module is part of `--help`
    from glyph_rt.vision.manifest import Manifest

app = typer.Typer(help="The TensorRT engines of this box.", no_args_is_help=True)
StoreOption = Annotated[Path | None, typer.Option("--store", metavar="DIR", help="Engine store. Default: in the user's cache.")]


@app.command(name="list")
def list_engines(store: StoreOption = None) -> None:
    """Print every engine, the most recently used first. Checks nothing."""
    from glyph_rt.vision.store import EngineStore, default_engines

    engines = EngineStore(store or default_engines())
    entries = engines.entries()
    for entry in entries:
        about = "unreadable manifest" if entry.manifest is None else _describe(entry.manifest)
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used / 1e9))
        print(f"{entry.path.name}  {entry.size / MIB:.1f} MiB  used {used}  {about}")
    total = sum(entry.size for entry in entries)
    print(f"{len(entries)} engines, {total / MIB:.1f} MiB of at most {engines.limit / MIB:,.0f} MiB, in {engines.root}")


@app.command()
def verify(store: StoreOption = None) -> None:
    """Check signature, length and digest of every engine; exit code 1 when one would be refused."""
    from glyph_rt.vision.store import EngineStore, default_engines

    engines = EngineStore(store or default_engines())
    refused = []
    for entry in engines.entries():
        refusal = engines.verify(entry)
        print(f"{entry.path.name}  {'sound' if refusal is None else f'{refusal.reason}: {refusal}'}")
        if refusal is not None:
            refused.append(refusal)
    if refused:
        raise EngineRefusedError(refused[0].reason, f"{len(refused)} engines would be refused; glyph-rt engines prune removes them")


@app.command()
def prune(
    store: StoreOption = None,
    limit: Annotated[str | None, typer.Option("--limit", metavar="SIZE", help="Keep at most this much, the most recently used.")] = None,
) -> None:
    """Remove engines that would be refused, then the least recently used beyond the limit."""
    from glyph_rt.memory.limits import parse_size
    from glyph_rt.vision.store import DEFAULT_LIMIT, EngineStore, default_engines

    removed = EngineStore(store or default_engines(), limit=DEFAULT_LIMIT if limit is None else parse_size(limit)).prune()
    for entry in removed:
        print(f"removed {entry.path.name}")
    print(f"{len(removed)} engines removed, {sum(entry.size for entry in removed) / MIB:.1f} MiB")


def _describe(made: Manifest) -> str:
    box = "any such GPU" if made.gpu == "any" else f"{made.gpu}, driver {made.driver}"
    parity = ", ".join(f"{name} {value:.6g}" for name, value in made.parity.items()) or "not run yet"
    fused = f"{made.fused} of {made.depth} attentions fused"
    return f"{made.tensorrt} {made.version}, {made.compute_capability} ({box}), {made.kind.name}, {fused}, parity: {parity}"
