"""How far a stage has come: a bar on a terminal, and where it takes long, on the run's page in Prefect.

Without a terminal, as in cron, no bar is drawn.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.theme import Theme

Advanced = Callable[[int, int], None]
"""Takes how much is done, and of how much."""
_EVERY_S = 2.0
"""How often the page is told at most: an epoch of a small network is shorter than that."""


@contextmanager
def showing_progress(what: str, unit: str, key: str = "") -> Iterator[Advanced]:
    """Show how far `what` is, counted in `unit`, until the block ends; `key` names an artifact of the run."""
    with _bar(what, unit) as drawn, _artifact(what, key) as told:

        def advanced(done: int, of: int) -> None:
            drawn(done, of)
            told(done, of)

        yield advanced


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Advanced]:
    """It stays below the lines of the log, and is gone at the end."""
    console = _console()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    quiet = not console.is_terminal
    with (
        console.use_theme(Theme()),  # Prefect's console knows the styles of its log alone, and none of a bar
        Progress(*columns, console=console, transient=True, refresh_per_second=2, disable=quiet) as shown,
    ):
        line = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(line, completed=done, total=of)


@contextmanager
def _artifact(what: str, key: str) -> Iterator[Advanced]:
    """A server that is away just now stops no work: it hears of it the next time."""
    if not key:
        yield lambda done, of: None
        return
    made: UUID | None = None
    last = -math.inf

    def told(done: int, of: int) -> None:
        nonlocal made, last
        if done < of and time.monotonic() < last + _EVERY_S:
            return
        with suppress(httpx.HTTPError):
            if made is None:
                made = cast(UUID, create_progress_artifact(0.0, key=key, description=f"How far {what} is"))
            update_progress_artifact(made, 100 * done / of)
        last = time.monotonic()

    told(0, 1)
    yield told
    told(1, 1)


def _console() -> Console:
    """That of the log, so that bar and lines don't write over one another."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            return handler.console
    return Console(stderr=True)
