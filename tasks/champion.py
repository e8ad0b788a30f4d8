"""The champion on tonight's test images, so that a candidate is compared on the same pictures.

In: the store's registry, the prepared data and the candidate's evaluation. Out: `AgainstChampion`, or None
before the first champion.
"""

from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.errors import InputError, ModelError
from storage.objects import open_store
from storage.registry import Registry
from tasks.evaluate import Evaluation, Paired, compare, load_predictions, predict
from tasks.prepare import PreparedData, load_split


class AgainstChampion(BaseModel, frozen=True):
    """The paired comparison with the champion; `paired` is None where it can't run on these images."""

    version: str
    paired: Paired | None
    reason: str = ""


def compare_with_champion(
    registry: Registry, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> AgainstChampion | None:
    """Run the champion's own INT8 file on the candidate's test images and count who is right on each."""
    champion = registry.champion()
    if champion is None:
        return None
    version = champion["version"]
    directory = registry.fetch(version, work_dir / "releases")
    model = directory / registry.manifest(version)["model"]
    try:
        theirs = predict(model, load_split(data.directory, "test").images)
    except (InputError, ModelError) as error:
        return AgainstChampion(version=version, paired=None, reason=str(error))
    ours, labels = load_predictions(candidate)
    return AgainstChampion(version=version, paired=compare(ours, theirs, labels))


@task(name="compare-with-champion", task_run_name="compare-with-champion")
def measure_against_champion(
    store_uri: str, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> AgainstChampion | None:
    """Compare with the champion in the store, and log the difference."""
    against = compare_with_champion(Registry(open_store(store_uri)), data, candidate, work_dir)
    if against is None:
        get_run_logger().info("there is no champion yet")
    elif against.paired is None:
        get_run_logger().warning("champion %s can't be compared: %s", against.version, against.reason)
    else:
        change = against.paired.difference
        get_run_logger().info("%+.4f accuracy against champion %s", change, against.version)
    return against
