"""The champion on tonight's test images, so that a candidate is compared on the same pictures.

In: the store with the champion, the prepared data and the candidate's evaluation. Out: `AgainstChampion`, or
None before the first champion.

A data set that grows moves a few images between splits, so some of tonight's test images may be ones that the
champion learnt from. It would know them by heart: they are counted, and left out of the comparison.
"""

import tempfile
from hashlib import blake2b
from pathlib import Path

import numpy as np
from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.errors import InputError, MissingObject, ModelError
from storage.objects import ObjectStore, open_store
from storage.registry import Registry
from tasks.evaluate import Evaluation, Paired, compare, load_predictions, predict
from tasks.prepare import PreparedData, load_split

_WAY_OUT = (
    "Prepare the data as it was for the champion, or, to begin with a new kind of model, "
    "delete models/champion.json from the store"
)


class AgainstChampion(BaseModel, frozen=True):
    """The paired comparison with the champion; `paired` is None where it can't run on these images."""

    version: str
    paired: Paired | None
    seen: int | None = None
    """Test images that it trained on or was chosen by, left out of `paired`; None: its data is gone."""
    reason: str = ""


def compare_with_champion(
    store: ObjectStore, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> AgainstChampion | None:
    """Run the champion's own INT8 file on the candidate's test images and count who is right on each."""
    registry = Registry(store)
    champion = registry.champion()
    if champion is None:
        return None
    version = champion["version"]
    directory, manifest = registry.fetch(version, work_dir / "releases"), registry.manifest(version)
    images = load_split(data.directory, "test").images
    try:
        theirs = predict(directory / manifest["model"], images)
        seen = seen_before(store, manifest["data_fingerprint"], data, images)
        ours, labels = load_predictions(candidate)
        fresh = np.ones(len(images), bool) if seen is None else ~seen
        paired = compare(ours[fresh], theirs[fresh], labels[fresh])
    except (InputError, ModelError) as error:
        return AgainstChampion(version=version, paired=None, reason=f"{error}. {_WAY_OUT}")
    return AgainstChampion(version=version, paired=paired, seen=None if seen is None else int(seen.sum()))


def seen_before(
    store: ObjectStore, fingerprint: str, data: PreparedData, images: np.ndarray
) -> np.ndarray | None:
    """Which of uint8 (N, P, P, C) were training or validation images of the data set of that fingerprint.

    By their pixels, because a row that is inserted into a CSV file renames those below it. None where the
    store has that data set no more.
    """
    if fingerprint == data.fingerprint:
        return np.zeros(len(images), bool)
    known: set[bytes] = set()
    with tempfile.TemporaryDirectory() as fetched:
        for name in ("train", "val"):
            directory = data.directory.parent / fingerprint
            if not directory.is_dir():
                directory = Path(fetched)
                try:
                    store.download(f"prepared/{fingerprint}/{name}_data.npz", directory / f"{name}_data.npz")
                except MissingObject:
                    return None
            known.update(map(_digest, load_split(directory, name).images))
    return np.array([_digest(image) in known for image in images])


def _digest(image: np.ndarray) -> bytes:
    return blake2b(image.tobytes(), digest_size=16).digest()


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
