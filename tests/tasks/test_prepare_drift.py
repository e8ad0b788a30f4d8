"""A shift of the data is told apart from chance."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import InputError
from tasks.classes import CLASSES
from tasks.prepare.collection import STATISTICS
from tasks.prepare.drift import DriftConfig, compare, draw_drift, summarise


def data_set(images: int = 2000, seed: int = 0, classes=(30, 30, 15, 20, 5), **change: float) -> dict:
    """Metadata of images whose statistics are `change` away from the usual."""
    rng = np.random.default_rng(seed)
    usual = {"brightness": (129, 34), "contrast": (54, 14), "sharpness": (45, 13)}
    statistics = {
        name: summarise(name, rng.normal(usual[name][0] + change.get(name, 0), usual[name][1], images))
        for name in STATISTICS
    }
    shares = rng.multinomial(images, np.array(classes) / sum(classes))
    counts = dict(zip(CLASSES, shares.tolist(), strict=True))
    none = dict.fromkeys(CLASSES, 0)
    return {
        "fingerprint": f"{seed}",
        "classes": list(CLASSES),
        "label_set": "fer2013",
        "image_px": 48,
        "statistics": statistics,
        "counts": {"train": counts, "train_drawn": counts, "val": none, "test": none},
    }


@pytest.mark.parametrize("images", [20, 200, 20_000])
def test_samples_of_one_source_show_no_drift_whatever_their_size(images: int):
    reports = [compare(data_set(seed=seed), data_set(images, seed + 100)) for seed in range(20)]
    assert sum(len(report.shifted) for report in reports) <= 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"brightness": 40}, "brightness"),
        ({"contrast": -15}, "contrast"),
        ({"sharpness": 20}, "sharpness"),
        ({"classes": (30, 10, 15, 5, 40)}, "class shares"),
    ],
)
def test_a_shift_is_named_with_its_size(change: dict, name: str):
    report = compare(data_set(), data_set(seed=1, **change))
    assert report.shifted == (name,)
    [shift] = [one for one in report.shifts if one.name == name]
    assert shift.psi > 0.25 > shift.chance
    if name in change:
        spread = {"brightness": 34, "contrast": 14, "sharpness": 13}[name]
        assert shift.effect_size == pytest.approx(change[name] / spread, abs=0.15)


def test_the_threshold_is_the_configs():
    pair = data_set(), data_set(seed=1, brightness=40)
    assert compare(*pair, DriftConfig(max_psi=9)).shifted == ()


def test_how_often_images_are_drawn_is_not_counted():
    balanced = data_set()
    balanced["counts"]["train_drawn"] = balanced["counts"]["train"] | {"fatigue": 5000}
    assert compare(data_set(), balanced).shifts[0].psi == 0


def test_data_sets_of_other_labels_are_not_compared():
    with pytest.raises(InputError, match="label_set: expected the champion's fer2013, got ferplus"):
        compare(data_set(), data_set() | {"label_set": "ferplus"})


def test_the_picture_shows_both(tmp_path: Path):
    path = draw_drift(data_set(), data_set(seed=1, brightness=40), tmp_path / "drift.png")
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours


def test_data_sets_of_another_version_of_the_code_are_not_compared():
    with pytest.raises(InputError, match="code_version"):
        compare(data_set() | {"code_version": 1}, data_set() | {"code_version": 2})
