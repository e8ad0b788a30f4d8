"""Processes of this machine, as /proc tells of them."""

from contextlib import suppress
from pathlib import Path


def pids_with(*words: str) -> list[int]:
    """Processes that have all of the words in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # of one that has ended since
            line = path.read_text(errors="replace")
            if all(word in line for word in words):
                found.append(int(path.parent.name))
    return found
