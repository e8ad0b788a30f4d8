"""The champion on tonight's test images, so that a candidate is compared on the same pictures.

In: the store with the champion, the prepared data and the candidate's evaluation. Out: `AgainstChampion`, or
None before the first champion.

Some of tonight's test images may be ones that the champion learnt from (`tasks.train.seen`). It would know
them by heart: they are counted, and left out of the comparison.
"""

import io
from pathlib import Path

import numpy as np
from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.errors import InputError, MissingObject, ModelError
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.evaluate import Evaluation, Paired, compare, load_predictions, predict
from tasks.prepare import PreparedData, load_split
from tasks.train import SEEN_IMAGES

_WAY_OUT = (
    "Prepare the data as it was for the champion, or, to begin with a new kind of model, "
    "delete models/champion.json from the store"
)


class AgainstChampion(BaseModel, frozen=True):
    """The paired comparison with the champion; `paired` is None where it can't run on these images."""

    version: str
    paired: Paired | None
    seen: int | None = None
    """Test images that it trained on or was chosen by, left out of `paired`; None: not recorded."""
    reason: str = ""


def compare_with_champion(
    store: ObjectStore, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> AgainstChampion | None:
    """Run the champion's own INT8 file on the candidate's test images and count who is right on each."""
    registry = Registry(store)
    champion = registry.champion()
    if champion is None:
        return None
    version = champion.version
    directory, manifest = registry.fetch(version, work_dir / "releases"), registry.manifest(version)
    ours, labels, ids = load_predictions(candidate)
    test = load_split(data.directory, "test")
    test = test.where(np.isin(test.ids, ids))
    try:
        theirs = predict(directory / manifest.model, test.images)
        seen = seen_before(store, manifest.experiment_id, test.digests)
        fresh = np.ones(len(labels), bool) if seen is None else ~seen
        paired = compare(ours[fresh], theirs[fresh], labels[fresh], test.groups[fresh])
    except (InputError, ModelError) as error:
        return AgainstChampion(version=version, paired=None, reason=f"{error}. {_WAY_OUT}")
    return AgainstChampion(version=version, paired=paired, seen=None if seen is None else int(seen.sum()))


def seen_before(store: ObjectStore, experiment: str, digests: np.ndarray) -> np.ndarray | None:
    """Which images of `digests` (N,) an experiment's network learnt from, bool (N,); None: not recorded."""
    try:
        seen = np.load(io.BytesIO(store.read(f"experiments/{experiment}/{SEEN_IMAGES}")))
    except MissingObject:
        return None
    return np.isin(digests, seen)


@task(name="compare-with-champion", task_run_name="compare-with-champion")
def measure_against_champion(
    store_uri: str, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> AgainstChampion | None:
    """Compare with the champion in the store, and log the difference."""
    log = get_run_logger()
    against = compare_with_champion(open_store(store_uri), data, candidate, work_dir)
    if against is None:
        log.info("there is no champion yet")
    elif against.paired is None:
        log.warning("champion %s can't be compared: %s", against.version, against.reason)
    else:
        log.info("%+.4f accuracy against champion %s", against.paired.difference, against.version)
        if against.seen or against.seen is None:
            how_many = "an unknown number" if against.seen is None else against.seen
            log.warning("champion %s has seen %s of the test images before", against.version, how_many)
    return against
