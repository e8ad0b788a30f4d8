"""The comparison with champion and anchor: on which images, and what is said where there can be none."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from storage.errors import MissingObject
from storage.identity import store_identity
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.champion import AgainstRelease, Role, compare_with_releases, new_anchor
from tasks.evaluate import Evaluation, Paired, evaluate_predictions
from tasks.prepare import PreparedData, load_split
from tasks.train.seen import SEEN_IMAGES, write_seen
from tests.releases import make_champion, new_store
from tests.tasks.small_model import prepared_data, save_split

Releases = tuple[Path, Path]


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    return prepared_data(tmp_path / "prepared", per_class=4)


def learnt(store: ObjectStore, data: PreparedData, test_images: int, experiment: str) -> None:
    """Record that an experiment's network has learnt from some of today's test images."""
    split = load_split(data.directory, "test")
    write_seen(data.directory, [split.where(np.arange(test_images))], np.empty(0, np.uint64))
    store.upload(data.directory / SEEN_IMAGES, f"experiments/{experiment}/{SEEN_IMAGES}")


@pytest.fixture
def store(tmp_path: Path, tiny_releases: Releases) -> ObjectStore:
    """A store whose champion is a release of experiment 20260101_000000."""
    store = new_store(tmp_path / "store")
    make_champion(store, tiny_releases[0])
    return store


def promote(store: ObjectStore, release: Path, anchor: str) -> str:
    """Make a further release the champion."""
    registry, store_id = Registry(store), store_identity(store)
    version, last = registry.publish(release, store_id=store_id), registry.champion()
    assert last is not None
    registry.promote(version, expected=last.version, store_id=store_id, anchor=anchor)
    return version


def candidate(data: PreparedData, folder: Path) -> Evaluation:
    """One that is right on every test image."""
    labels = load_split(data.directory, "test").labels
    return evaluate_predictions(np.eye(5, dtype=np.float32)[labels], folder / "m", data, folder, "int8")


def images_of(against: AgainstRelease) -> int:
    assert against.paired is not None, against.reason
    return against.paired.images


def test_before_the_first_champion_there_is_no_comparison(data: PreparedData, tmp_path: Path) -> None:
    assert compare_with_releases(open_store(tmp_path), data, candidate(data, tmp_path), tmp_path) == ()


def test_a_champion_that_is_the_anchor_too_is_measured_once(
    data: PreparedData, store: ObjectStore, tiny_releases: Releases, tmp_path: Path
) -> None:
    [against] = compare_with_releases(store, data, candidate(data, tmp_path), tmp_path)
    assert (against.role, against.version) == ("champion", tiny_releases[0].name)


def test_a_class_that_the_champion_tells_and_tonights_data_lacks_is_named(
    data: PreparedData, store: ObjectStore, tmp_path: Path
) -> None:
    counts = {split: one | {"fatigue": 0} for split, one in data.counts.items()}
    poorer = data.model_copy(update={"counts": counts})
    [against] = compare_with_releases(store, poorer, candidate(data, tmp_path), tmp_path)
    assert against.lost == ("fatigue",)


def test_champion_and_anchor_are_measured_each_on_images_that_it_has_not_seen(
    data: PreparedData, store: ObjectStore, tiny_releases: Releases, tmp_path: Path
) -> None:
    anchor = tiny_releases[0].name
    champion = promote(store, tiny_releases[1], anchor)
    learnt(store, data, 3, "20260101_000000")
    learnt(store, data, 7, "20260102_000000")
    against = compare_with_releases(store, data, candidate(data, tmp_path), tmp_path)
    told = [(one.role, one.version, one.seen, images_of(one)) for one in against]
    assert told == [("champion", champion, 7, 13), ("anchor", anchor, 3, 17)]


def test_an_anchor_that_is_gone_from_the_store_is_an_error_that_names_it(
    data: PreparedData, store: ObjectStore, tiny_releases: Releases, tmp_path: Path
) -> None:
    anchor = tiny_releases[0].name
    promote(store, tiny_releases[1], anchor)
    store.delete(f"models/{anchor}/manifest.json")
    with pytest.raises(MissingObject, match=anchor):
        compare_with_releases(store, data, candidate(data, tmp_path), tmp_path)


def test_the_champion_answers_only_for_the_images_that_the_candidate_was_measured_on(
    data: PreparedData, store: ObjectStore, tmp_path: Path
) -> None:
    test = load_split(data.directory, "test")
    np.save(tmp_path / "seen.npy", np.unique(test.digests[:5]))
    answers = np.eye(5, dtype=np.float32)[test.labels[5:]]
    measured = evaluate_predictions(
        answers, tmp_path / "m", data, tmp_path, "int8", seen=tmp_path / "seen.npy"
    )
    [against] = compare_with_releases(store, data, measured, tmp_path)
    assert images_of(against) == len(test.labels) - 5
    assert against.paired is not None
    assert against.paired.champion_only == against.paired.neither == 0


def test_frames_of_one_person_count_for_less_in_the_comparison(
    data: PreparedData, store: ObjectStore, tmp_path: Path
) -> None:
    test = load_split(data.directory, "test")
    columns = (np.array(test.images), np.array(test.labels), np.array(test.sources))
    save_split(data.directory, "test", *columns, groups=np.arange(20) // 5)
    [against] = compare_with_releases(store, data, candidate(data, tmp_path), tmp_path)
    assert images_of(against) == 20
    assert against.paired is not None and against.paired.independent_images is not None
    assert against.paired.independent_images < 15


def test_where_it_is_not_recorded_what_the_champion_learnt_from_the_number_is_unknown(
    data: PreparedData, store: ObjectStore, tmp_path: Path
) -> None:
    [against] = compare_with_releases(store, data, candidate(data, tmp_path), tmp_path)
    assert against.seen is None and images_of(against) == 20


def test_a_champion_for_other_images_is_named_with_the_way_out(store: ObjectStore, tmp_path: Path) -> None:
    data = prepared_data(tmp_path / "prepared", per_class=2)
    for name in ("train", "val", "test"):
        split = load_split(data.directory, name)
        large = np.repeat(np.repeat(split.images, 2, 1), 2, 2)
        save_split(data.directory, name, large, np.array(split.labels), np.array(split.sources))
    [against] = compare_with_releases(store, data, candidate(data, tmp_path), tmp_path)
    assert against.paired is None
    assert "image_px" in against.reason and "champion.json" in against.reason


def against(role: Role, version: str, better: int, worse: int, images: int = 5000) -> AgainstRelease:
    same = images - better - worse
    paired = Paired(both_right=same, candidate_only=better, champion_only=worse, neither=0)
    return AgainstRelease(role=role, version=version, paired=paired)


def test_the_first_release_is_the_anchor_and_stays_it_until_one_is_better_for_sure() -> None:
    assert new_anchor("first", ()) == "first"
    for better, worse, anchor in ((240, 160, "new"), (201, 200, "old"), (160, 240, "old")):
        assert new_anchor("new", [against("champion", "old", better, worse)]) == anchor
    both = [against("champion", "mid", 240, 160), against("anchor", "old", 210, 200)]
    assert new_anchor("new", both) == "old"


def test_an_anchor_that_could_not_be_compared_with_stays_the_anchor() -> None:
    silent = AgainstRelease(role="anchor", version="old", paired=None, reason="other images")
    assert new_anchor("new", [against("champion", "mid", 240, 160), silent]) == "old"


MARGIN = 0.01


def sixty_nights(with_anchor: bool, seed: int) -> float:
    """True accuracy after 60 nights of candidates 0.05 points below the champion, each on new images."""
    rng = np.random.default_rng(seed)
    true = {"first": 0.868}
    champion = anchor = "first"
    for night in range(60):
        version = f"night {night}"
        true[version] = true[champion] - 0.0005
        compared = [measured(rng, "champion", champion, true[version] - true[champion])]
        if with_anchor and anchor != champion:
            compared.append(measured(rng, "anchor", anchor, true[version] - true[anchor]))
        if all(lowest(one.paired) >= -MARGIN for one in compared if one.paired):
            anchor, champion = new_anchor(version, compared), version
    return true[champion]


def measured(rng: np.random.Generator, role: Role, version: str, difference: float) -> AgainstRelease:
    better, worse, _ = rng.multinomial(5000, [0.04 + difference / 2, 0.04 - difference / 2, 0.92])
    return against(role, version, int(better), int(worse))


@cache
def lowest(paired: Paired) -> float:
    return paired.interval(0.9)[0]


def test_what_erodes_night_after_night_is_bounded_by_the_anchor() -> None:
    champion_alone = [sixty_nights(False, seed) for seed in range(5)]
    with_anchor = [sixty_nights(True, seed) for seed in range(5)]
    assert max(champion_alone) < 0.868 - 2 * MARGIN
    assert min(with_anchor) > 0.868 - 1.2 * MARGIN
