"""Where a report goes: the experiment's folder in the store, the release, and Prefect's artifacts.

In: the `Night` and its experiment's local directory. Out: the path of report.html there.
"""

import os
from pathlib import Path

from prefect import task

from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.night import Night
from tasks.report.artifacts import show_fleet, show_night
from tasks.report.history import champion_version, past_night, read_history, remember
from tasks.report.pages import (
    model_card_markdown,
    summary_markdown,
    write_history,
    write_model_card,
    write_report,
    write_verdict,
)
from tasks.rollout import FleetOutcome
from tasks.train.progress import finished_files


def upload_experiment(store: ObjectStore, directory: Path) -> None:
    """Keep the experiment's files under experiments/<id>/ in the store."""
    for path in finished_files(directory):
        store.upload(path, f"experiments/{directory.name}/{path.relative_to(directory).as_posix()}")


def fetch_experiment(store: ObjectStore, directory: Path) -> None:
    """Bring the files of experiments/<id>/ that aren't in `directory` back there."""
    folder = f"experiments/{directory.name}/"
    for info in store.list(folder):
        path = directory / info.key.removeprefix(folder)
        if not path.exists():
            store.download(info.key, path)


@task(name="keep-experiment", task_run_name="keep-experiment")
def keep_experiment(store_uri: str, directory: Path) -> None:
    """What a release was made of, in the store before the release is: nights to come start from it."""
    upload_experiment(open_store(store_uri), directory)


@task(name="report", task_run_name="report")
def publish_report(store_uri: str, night: Night, directory: Path) -> Path:
    """Write the report, keep it in the store with the experiment and the release, and show it in Prefect."""
    store = open_store(store_uri)
    ended = night.outcome is not None  # a report by hand may be of a night that has no word yet
    if ended:
        remember(store, past_night(night))
    past, champion = read_history(store) if ended else (), champion_version(store)
    pages = [write_report(night, directory, past, champion), write_verdict(night, directory)]
    if night.candidate:
        pages += write_model_card(night, directory)
    upload_experiment(store, directory)
    if ended:
        # beside experiments/ here as in the store, so that the report's link leads to it
        store.upload(write_history(past, champion, directory.parents[1]), "history.html")
    if night.release:
        for path in pages:
            Registry(store).attach(night.release.version, path)
    card = model_card_markdown(night) if night.candidate else ""
    show_night(night, summary_markdown(night), card, report_link(store, directory))
    return pages[0]


def report_link(store: ObjectStore, directory: Path) -> str:
    """Where a browser finds the report: at the server that STRESS_VISION_REPORTS names, or in the store."""
    address = os.environ.get("STRESS_VISION_REPORTS", "") or store.uri
    place = address if "://" in address else Path(address).absolute().as_uri()
    return f"{place}/experiments/{directory.name}/report.html"


@task(name="publish-fleet", task_run_name="publish-fleet")
def publish_fleet(fleet: FleetOutcome) -> None:
    """Show the devices on the run's page in Prefect."""
    show_fleet(fleet)
