"""Tonight's data against the data of the champion.

In: the prepared data and the store with the champion. Out: `Drift`, a table and a picture, or None before the
first champion and where the two were prepared in different ways.
"""

import json
from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.errors import InputError, MissingObject
from storage.opening import open_store
from storage.registry import Registry
from tasks.prepare import PreparedData
from tasks.prepare.drift import DriftConfig, DriftReport, compare, draw_drift


class Drift(BaseModel, frozen=True):
    """What has shifted since the champion, and the picture of it."""

    champion: str
    report: DriftReport
    picture: Path


@task(name="drift", task_run_name="drift")
def watch_drift(store_uri: str, data: PreparedData, config: DriftConfig, directory: Path) -> Drift | None:
    """Compare with the champion's data, draw it into `directory`, and warn of what has shifted."""
    store, log = open_store(store_uri), get_run_logger()
    champion = Registry(store).champion()
    if champion is None:
        return None
    fingerprint = Registry(store).manifest(champion.version).data_fingerprint
    new = json.loads(data.metadata_path.read_text())
    try:
        old = json.loads(store.read(f"prepared/{fingerprint}/metadata.json"))
        report = compare(old, new, config)
    except (InputError, MissingObject) as error:
        log.warning("no comparison with the data of champion %s: %s", champion.version, error)
        return None
    if report.shifted:
        log.warning("shifted against champion %s: %s", champion.version, ", ".join(report.shifted))
    return Drift(
        champion=champion.version, report=report, picture=draw_drift(old, new, directory / "drift.png")
    )
