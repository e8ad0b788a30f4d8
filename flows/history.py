"""The nights so far, for a terminal or a program."""

import json

from flows.config import store_uri
from flows.table import print_table
from storage.identity import expect_begun
from storage.opening import open_store
from tasks.report.formats import count, milliseconds, outcome_words, percent
from tasks.report.history import PastNight, champion_version, read_history

_COLUMNS = ("night (UTC)", "outcome", "accuracy", "stress", "images", "p95", "preset", "release")


def history(store: str, last: int, *, as_json: bool) -> int:
    """Print the last nights, the newest last; with `as_json` an object a line. InputError without a store."""
    opened = open_store(store_uri(store))
    nights, champion = read_history(opened, last), champion_version(opened)
    if not nights:
        expect_begun(opened)
    if as_json:
        for night in nights:
            print(json.dumps({**night.model_dump(mode="json"), "champion": night.release == champion}))
        return 0
    print_table([_row(night, champion) for night in nights], _COLUMNS)
    if nights:
        print(f"\nas pictures: {opened.uri}/history.html")
    return 0


def _row(night: PastNight, champion: str | None) -> dict[str, object]:
    ours = " (champion)" if night.release and night.release == champion else ""
    return {
        "night (UTC)": f"{night.started_at:%Y-%m-%d %H:%M}",
        "outcome": outcome_words(night.outcome),
        "accuracy": percent(night.accuracy),
        "stress": percent(night.stress_recall),
        "images": count(night.images),
        "p95": milliseconds(night.slowest_ms),
        "preset": night.preset,
        "release": f"{night.release or ''}{ours}",
    }
