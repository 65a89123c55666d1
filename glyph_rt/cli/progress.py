"""A progress bar for pages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Pages(Protocol):
    """Pages done and in all: a local reading's progress or a server's."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...


@contextmanager
def page_progress(verb: str) -> Iterator[Callable[[Pages], None] | None]:
    """A bar on standard error that fills page by page and then disappears; nothing when that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)

        def advance(progress: Pages) -> None:
            bar.update(task, completed=progress.done, total=progress.total)
            if progress.done == progress.total:
                bar.stop()

        yield advance
