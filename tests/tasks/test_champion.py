"""The comparison with the champion: on which images, and what is said where there can be none."""

import json
import shutil

import numpy as np
import pytest

from storage.objects import open_store
from storage.registry import Registry
from tasks.champion import compare_with_champion, seen_before
from tasks.evaluate import evaluate_predictions
from tasks.prepare import load_split
from tests.tasks.small_model import prepared_data, save_split


@pytest.fixture
def data(tmp_path):
    return prepared_data(tmp_path / "prepared" / "0123456789abcdef", per_class=4)


def older(data, moved: int):
    """The data set of a champion in which `moved` of today's test images were training images."""
    directory = data.directory.parent / "old"
    shutil.copytree(data.directory, directory)
    test = load_split(data.directory, "test")
    save_split(directory, "train", test.images[:moved], test.labels[:moved], test.sources[:moved])
    return directory


@pytest.fixture
def store(tmp_path, tiny_releases):
    """A store whose champion is a release, made of the data set `old`."""
    store = open_store(tmp_path / "store")
    Registry(store).promote(Registry(store).publish(tiny_releases[0]))
    return store


def made_of(store, version: str, fingerprint: str) -> None:
    key = f"models/{version}/manifest.json"
    store.write(key, json.dumps({**json.loads(store.read(key)), "data_fingerprint": fingerprint}).encode())


def candidate(data, folder):
    labels = load_split(data.directory, "test").labels
    return evaluate_predictions(np.eye(5, dtype=np.float32)[labels], folder / "m", data, folder, "int8")


def test_before_the_first_champion_there_is_no_comparison(data, tmp_path):
    assert compare_with_champion(open_store(tmp_path), data, candidate(data, tmp_path), tmp_path) is None


def test_test_images_that_the_champion_learnt_from_are_counted_and_left_out(
    data, store, tiny_releases, tmp_path
):
    older(data, moved=3)
    made_of(store, tiny_releases[0].name, "old")
    against = compare_with_champion(store, data, candidate(data, tmp_path), tmp_path)
    assert against.reason == ""
    assert against.seen == 3
    assert against.paired.images == len(load_split(data.directory, "test").labels) - 3


def test_a_champions_data_comes_from_the_store_where_this_machine_has_not_got_it(data, tmp_path):
    store, images = open_store(tmp_path / "store"), load_split(data.directory, "test").images
    assert seen_before(store, "old", data, images) is None
    directory = older(data, moved=2)
    for name in ("train", "val"):
        store.upload(directory / f"{name}_data.npz", f"prepared/old/{name}_data.npz")
    shutil.rmtree(directory)
    assert np.flatnonzero(seen_before(store, "old", data, images)).tolist() == [0, 1]


def test_a_champion_for_other_images_is_named_with_the_way_out(store, tiny_releases, tmp_path):
    data = prepared_data(tmp_path / "prepared" / "0123456789abcdef", per_class=2)
    for name in ("train", "val", "test"):
        split = load_split(data.directory, name)
        large = np.repeat(np.repeat(split.images, 2, 1), 2, 2)
        save_split(data.directory, name, large, np.array(split.labels), np.array(split.sources))
    against = compare_with_champion(store, data, candidate(data, tmp_path), tmp_path)
    assert against.paired is None
    assert "image_px" in against.reason and "champion.json" in against.reason
