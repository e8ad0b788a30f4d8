"""Where a report goes: the experiment's folder in the store, the release, and Prefect's artifacts.

In: the `Night` and its experiment's local directory. Out: the path of report.html there.
"""

from pathlib import Path

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.candidate import Candidate
from tasks.night import Night
from tasks.report.formats import data_uri
from tasks.rollout import FleetOutcome
from tasks.train.progress import finished_files

_ARTIFACT_BYTES = 100_000
"""Prefect keeps artifacts in its database: a picture larger than this stays in the report only."""


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
    from tasks.report import summary_markdown, write_model_card, write_report

    pages = [write_report(night, directory)]
    if night.candidate:
        pages += write_model_card(night, directory)
    store = open_store(store_uri)
    upload_experiment(store, directory)
    if night.release:
        for path in pages:
            Registry(store).attach(night.release.version, path)
    create_markdown_artifact(summary_markdown(night), key="retraining", description=night.headline)
    if night.candidate:
        create_picture_artifacts(night.candidate)
    if night.fleet:
        create_fleet_artifact(night.fleet)
    return pages[0]


def create_picture_artifacts(candidate: Candidate) -> None:
    """Confusion matrix and training history on the run's page in Prefect."""
    pictures = {"confusion-matrix": candidate.int8.pictures, "training-history": candidate.trained.pictures}
    for key, files in pictures.items():
        path = files.get(key.replace("-", "_"))
        if path and len(picture := data_uri(path)) < _ARTIFACT_BYTES:
            create_image_artifact(picture, key=key, description=f"{key} of {candidate.trained.experiment_id}")


def create_fleet_artifact(fleet: FleetOutcome) -> None:
    """The devices on the run's page in Prefect."""
    create_table_artifact(
        fleet.table(), key="fleet", description=f"Devices after rolling out {fleet.release}"
    )


@task(name="publish-fleet", task_run_name="publish-fleet")
def publish_fleet(fleet: FleetOutcome) -> None:
    """Show the devices on the run's page in Prefect."""
    create_fleet_artifact(fleet)
