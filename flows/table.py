"""A table on the terminal."""

import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNFOLDED = 1000
"""Columns of a table that nothing has to be folded in: it takes no more than it needs."""


def print_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """One line a row; cells are text, whatever brackets they hold."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = (row.get(name) for name in columns)
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    # who reads a pipe or a log wants whole names, and has no width of its own
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNFOLDED
    Console(highlight=False, width=width).print(table)


def print_error(said: str) -> None:
    """What ends a command, for a person: on standard error, as it is."""
    Console(stderr=True, highlight=False).print("[bold red]error:[/]", Text(said), soft_wrap=True)
