"""Tonight's candidate against releases of the past, on the same test images.

In: the store, the prepared data and the candidate's evaluation. Out: an `AgainstRelease` for the champion and
one for the anchor, the best release so far; a release that is both is measured once, as champion.

Against the champion alone, a little may be lost every night: the anchor bounds the sum. Some of tonight's
test images may be ones that a release learnt from (`tasks.train.seen`). It would know them by heart: they are
counted, and left out of the comparison.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.errors import InputError, MissingObject, ModelError
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Champion, Registry
from tasks.evaluate import Evaluation, Paired, compare, load_predictions, predict
from tasks.prepare import PreparedData, Split, load_split
from tasks.train import SEEN_IMAGES

Role = Literal["champion", "anchor"]

_SURE = 0.95
_WAY_OUT = (
    "Prepare the data as it was for the {role}, or, to begin with a new kind of model, "
    "delete models/champion.json from the store"
)


class AgainstRelease(BaseModel, frozen=True, extra="forbid"):
    """The paired comparison with a release; `paired` is None where it can't run on these images."""

    role: Role
    version: str
    paired: Paired | None
    lost: tuple[str, ...] = ()
    """Classes that it has learnt and that tonight's data has no image of."""
    seen: int | None = None
    """Test images that it trained on or was chosen by, left out of `paired`; None: not recorded."""
    reason: str = ""


def compare_with_releases(
    store: ObjectStore, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> tuple[AgainstRelease, ...]:
    """Run the releases' own INT8 files on the candidate's test images and count who is right on each.

    Empty before the first champion.
    """
    opponents = _opponents(Registry(store).champion())
    if not opponents:
        return ()
    answers, _, ids = load_predictions(candidate)
    test = load_split(data.directory, "test")
    test = test.where(np.isin(test.ids, ids))
    return tuple(
        _compare(store, version, role, answers, test, work_dir).model_copy(
            update={"lost": _lost(store, version, data)}
        )
        for version, role in opponents.items()
    )


def new_anchor(version: str, against: Sequence[AgainstRelease]) -> str:
    """Which release is the anchor once `version` is promoted, by the comparisons that it passed.

    The one that was it, until a release is better for sure (one-sided, 95 %): were it enough not to be below
    it on one night's images, chance alone would lead the anchor down, a little every night.
    """
    if not against:
        return version
    anchor = next((one for one in against if one.role == "anchor"), against[0])
    better = anchor.paired is not None and anchor.paired.interval(2 * _SURE - 1)[0] > 0
    return version if better else anchor.version


def seen_before(store: ObjectStore, experiment: str, digests: np.ndarray) -> np.ndarray | None:
    """Which images of `digests` (N,) an experiment's network learnt from, bool (N,); None: not recorded."""
    try:
        seen = np.load(io.BytesIO(store.read(f"experiments/{experiment}/{SEEN_IMAGES}")))
    except MissingObject:
        return None
    return np.isin(digests, seen)


def _opponents(champion: Champion | None) -> dict[str, Role]:
    if champion is None:
        return {}
    opponents: dict[str, Role] = {champion.version: "champion"}
    if champion.anchor:
        opponents.setdefault(champion.anchor, "anchor")
    return opponents


def _lost(store: ObjectStore, version: str, data: PreparedData) -> tuple[str, ...]:
    known = Registry(store).manifest(version)
    return tuple(name for name in data.absent if name not in known.absent_classes)


def _compare(
    store: ObjectStore, version: str, role: Role, answers: np.ndarray, test: Split, work_dir: Path
) -> AgainstRelease:
    registry = Registry(store)
    directory, manifest = registry.fetch(version, work_dir / "releases"), registry.manifest(version)
    try:
        theirs = predict(directory / manifest.model, test.images)
        seen = seen_before(store, manifest.experiment_id, test.digests)
        fresh = np.ones(len(answers), bool) if seen is None else ~seen
        paired = compare(answers[fresh], theirs[fresh], test.labels[fresh], test.groups[fresh])
    except (InputError, ModelError) as error:
        reason = f"{error}. {_WAY_OUT.format(role=role)}"
        return AgainstRelease(role=role, version=version, paired=None, reason=reason)
    return AgainstRelease(
        role=role, version=version, paired=paired, seen=None if seen is None else int(seen.sum())
    )


@task(name="compare-with-releases", task_run_name="compare-with-releases")
def measure_against_releases(
    store_uri: str, data: PreparedData, candidate: Evaluation, work_dir: Path
) -> tuple[AgainstRelease, ...]:
    """Compare with champion and anchor in the store, and log the differences."""
    log = get_run_logger()
    against = compare_with_releases(open_store(store_uri), data, candidate, work_dir)
    if not against:
        log.info("there is no champion yet")
    for one in against:
        if one.paired is None:
            log.warning("%s %s can't be compared: %s", one.role, one.version, one.reason)
            continue
        log.info("%+.4f accuracy against %s %s", one.paired.difference, one.role, one.version)
        if one.seen or one.seen is None:
            how_many = "an unknown number" if one.seen is None else one.seen
            log.warning("%s %s has seen %s of the test images before", one.role, one.version, how_many)
    return against
