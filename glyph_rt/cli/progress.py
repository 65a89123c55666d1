"""Progress bars: for pages, and for the questions of an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


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
        shown = (0, 0)

        def advance(progress: Pages) -> None:
            nonlocal shown
            if shown == (shown := (progress.done, progress.total)):
                return  # told again at every token
            bar.update(task, completed=progress.done, total=progress.total)
            if progress.done == progress.total:
                bar.stop()

        yield advance


@contextmanager
def question_progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on standard error per task that fills question by question and stays; nothing when that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(*Bar.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield advance
