"""The comparison with the champion: on which images, and what is said where there can be none."""

import numpy as np
import pytest

from storage.opening import open_store
from tasks.champion import compare_with_champion
from tasks.evaluate import evaluate_predictions
from tasks.prepare import load_split
from tasks.train.seen import SEEN_IMAGES, write_seen
from tests.releases import make_champion, new_store
from tests.tasks.small_model import prepared_data, save_split


@pytest.fixture
def data(tmp_path):
    return prepared_data(tmp_path / "prepared", per_class=4)


def learnt(store, data, test_images: int, experiment: str) -> None:
    """Record that an experiment's network has learnt from some of today's test images."""
    split = load_split(data.directory, "test")
    write_seen(data.directory, [split.where(np.arange(test_images))], np.empty(0, np.uint64))
    store.upload(data.directory / SEEN_IMAGES, f"experiments/{experiment}/{SEEN_IMAGES}")


@pytest.fixture
def store(tmp_path, tiny_releases):
    """A store whose champion is a release of experiment 20260101_000000."""
    store = new_store(tmp_path / "store")
    make_champion(store, tiny_releases[0])
    return store


def candidate(data, folder):
    labels = load_split(data.directory, "test").labels
    return evaluate_predictions(np.eye(5, dtype=np.float32)[labels], folder / "m", data, folder, "int8")


def test_before_the_first_champion_there_is_no_comparison(data, tmp_path):
    assert compare_with_champion(open_store(tmp_path), data, candidate(data, tmp_path), tmp_path) is None


def test_test_images_that_the_champion_learnt_from_are_counted_and_left_out(data, store, tmp_path):
    learnt(store, data, 3, "20260101_000000")
    against = compare_with_champion(store, data, candidate(data, tmp_path), tmp_path)
    assert (against.reason, against.seen) == ("", 3)
    assert against.paired.images == len(load_split(data.directory, "test").labels) - 3


def test_the_champion_answers_only_for_the_images_that_the_candidate_was_measured_on(data, store, tmp_path):
    test = load_split(data.directory, "test")
    np.save(tmp_path / "seen.npy", np.unique(test.digests[:5]))
    answers = np.eye(5, dtype=np.float32)[test.labels[5:]]
    measured = evaluate_predictions(
        answers, tmp_path / "m", data, tmp_path, "int8", seen=tmp_path / "seen.npy"
    )
    against = compare_with_champion(store, data, measured, tmp_path)
    assert against.paired.images == len(test.labels) - 5
    assert against.paired.champion_only == against.paired.neither == 0


def test_where_it_is_not_recorded_what_the_champion_learnt_from_the_number_is_unknown(data, store, tmp_path):
    against = compare_with_champion(store, data, candidate(data, tmp_path), tmp_path)
    assert against.seen is None and against.paired.images == len(load_split(data.directory, "test").labels)


def test_a_champion_for_other_images_is_named_with_the_way_out(store, tiny_releases, tmp_path):
    data = prepared_data(tmp_path / "prepared", per_class=2)
    for name in ("train", "val", "test"):
        split = load_split(data.directory, name)
        large = np.repeat(np.repeat(split.images, 2, 1), 2, 2)
        save_split(data.directory, name, large, np.array(split.labels), np.array(split.sources))
    against = compare_with_champion(store, data, candidate(data, tmp_path), tmp_path)
    assert against.paired is None
    assert "image_px" in against.reason and "champion.json" in against.reason
