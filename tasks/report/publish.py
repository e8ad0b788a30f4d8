"""Where a report goes: the experiment's folder in the store, the release, and Prefect's artifacts.

In: `ReportInputs` and the experiment's local directory. Out: the path of report.html there.
"""

from pathlib import Path

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.report.formats import data_uri
from tasks.report.inputs import DriftedInputs, ReportInputs
from tasks.rollout import FleetOutcome
from tasks.train.progress import finished_files

_ARTIFACT_BYTES = 100_000
"""Prefect keeps artifacts in its database: a picture larger than this stays in the report only."""


def upload_experiment(store: ObjectStore, directory: Path) -> None:
    """Keep the experiment's files under experiments/<id>/ in the store."""
    for path in finished_files(directory):
        store.upload(path, f"experiments/{directory.name}/{path.relative_to(directory).as_posix()}")


def create_artifacts(inputs: ReportInputs, markdown: str) -> None:
    """Summary, devices and pictures on the run's page in Prefect."""
    create_markdown_artifact(markdown, key="retraining", description=inputs.headline)
    pictures = {"confusion-matrix": inputs.int8.pictures, "training-history": inputs.trained.pictures}
    for key, files in pictures.items():
        picture = data_uri(files[key.replace("-", "_")])
        if len(picture) < _ARTIFACT_BYTES:
            create_image_artifact(picture, key=key, description=f"{key} of {inputs.experiment_id}")
    if inputs.fleet:
        create_fleet_artifact(inputs.fleet)


def create_fleet_artifact(fleet: FleetOutcome) -> None:
    create_table_artifact(
        fleet.table(), key="fleet", description=f"Devices after rolling out {fleet.release}"
    )


@task(name="publish-report", task_run_name="publish-report")
def publish_report(store_uri: str, inputs: ReportInputs, directory: Path) -> Path:
    """Write the report, keep it in the store with the experiment and the release, and show it in Prefect."""
    from tasks.report import summary_markdown, write_model_card, write_report

    report = write_report(inputs, directory)
    card = write_model_card(inputs, directory)
    store = open_store(store_uri)
    upload_experiment(store, directory)
    if inputs.release:
        for path in (report, *card):
            Registry(store).attach(inputs.release.version, path)
    create_artifacts(inputs, summary_markdown(inputs))
    return report


@task(name="publish-drift-report", task_run_name="publish-drift-report")
def publish_drift_report(store_uri: str, inputs: DriftedInputs, directory: Path) -> Path:
    """The same for a night that drift stopped."""
    from tasks.report import drift_markdown, write_drift_report

    report = write_drift_report(inputs, directory)
    upload_experiment(open_store(store_uri), directory)
    create_markdown_artifact(drift_markdown(inputs), key="retraining", description=inputs.headline)
    return report


@task(name="publish-fleet", task_run_name="publish-fleet")
def publish_fleet(fleet: FleetOutcome) -> None:
    """Show the devices on the run's page in Prefect."""
    create_fleet_artifact(fleet)
