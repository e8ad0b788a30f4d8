"""A shift of what is new is told apart from chance, and named with its source."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import InputError
from tasks.classes import CLASSES
from tasks.drift import FEWEST, DataSet, DriftConfig, Shift, compare, draw_drift, published, tonights
from tasks.prepare import prepare
from tasks.prepare.blocks import STATISTICS
from tasks.prepare.dataset import publish
from tasks.prepare.facts import ImageFacts
from tests.releases import new_store
from tests.tasks.small_source import PLAIN, drawn_store, ingested

USUAL = {"brightness": (129, 34), "contrast": (54, 14), "sharpness": (45, 13)}
SHARES = (30, 30, 15, 20, 5)


def images_of(
    source: int = 0, images: int = 2000, seed: int = 0, classes: tuple[int, ...] = SHARES, **change: float
) -> ImageFacts:
    """Images whose statistics are `change` away from the usual; another seed, other images."""
    rng = np.random.default_rng(seed)
    statistics = [
        rng.normal(USUAL[name][0] + change.get(name, 0), USUAL[name][1], images) for name in STATISTICS
    ]
    return ImageFacts(
        digests=rng.integers(0, 2**63, images, dtype=np.uint64),
        sources=np.full(images, source, np.uint8),
        labels=rng.choice(len(CLASSES), images, p=np.array(classes) / sum(classes)).astype(np.uint8),
        statistics=np.stack(statistics, axis=1).astype(np.float32),
    )


def data_set(*blocks: ImageFacts, sources: tuple[str, ...] = ("fer2013", "custom")) -> DataSet:
    metadata = {
        "fingerprint": f"{len(blocks)} blocks",
        "code_version": 7,
        "classes": list(CLASSES),
        "label_set": "fer2013",
        "image_px": 48,
        "sources": list(sources),
    }
    joined = {name: np.concatenate([vars(one)[name] for one in blocks]) for name in vars(blocks[0])}
    return DataSet(metadata, ImageFacts(**joined))


OLD = images_of()
CHAMPIONS = data_set(OLD)


@pytest.mark.parametrize("images", [FEWEST, 200, 20_000])
def test_new_images_like_the_old_ones_show_no_drift_whatever_their_number(images: int) -> None:
    new = (data_set(OLD, images_of(images=images, seed=seed)) for seed in range(1, 21))
    assert sum(len(compare(CHAMPIONS, one).shifted) for one in new) <= 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"brightness": 40}, "brightness"),
        ({"contrast": -15}, "contrast"),
        ({"sharpness": 20}, "sharpness"),
        ({"classes": (30, 10, 15, 5, 40)}, "class shares"),
    ],
)
def test_a_shift_is_named_with_its_size(change: dict[str, Any], name: str) -> None:
    report = compare(CHAMPIONS, data_set(OLD, images_of(seed=1, **change)))
    assert report.shifted == (f"{name} of 2,000 new images of fer2013",)
    [shift] = [one for one in report.shifts if one.shifted]
    assert (shift.name, shift.source, shift.images) == (name, "fer2013", 2000)
    assert shift.psi > 0.25 > shift.chance
    if name in change:
        assert shift.effect_size == pytest.approx(change[name] / USUAL[name][1], abs=0.15)
        assert shift.reference_mean is not None and shift.new_mean is not None
        assert shift.new_mean - shift.reference_mean == pytest.approx(change[name], abs=3)


def test_a_few_darker_images_are_seen_among_all_the_old_ones() -> None:
    """6 in 100, three standard deviations darker: compared as a whole, the sets are alike."""
    new = data_set(OLD, images_of(images=120, seed=9, brightness=-102))
    assert compare(data_set(images_of(seed=50)), new).shifted == ()
    assert compare(CHAMPIONS, new).shifted == ("brightness of 120 new images of fer2013",)


def test_only_the_source_that_has_shifted_is_named() -> None:
    custom = images_of(source=1, images=300, seed=7)
    added = (images_of(images=60, seed=8), images_of(source=1, images=120, seed=9, brightness=-102))
    new = data_set(OLD, custom, *added)
    report = compare(data_set(OLD, custom), new)
    assert report.shifted == ("brightness of 120 new images of custom",)
    assert _by_source(report.shifts) == {"fer2013": 60, "custom": 120}


def _by_source(shifts: tuple[Shift, ...]) -> dict[str, int]:
    return {shift.source: shift.images for shift in shifts}


def test_a_new_source_is_compared_with_all_the_champions_images() -> None:
    alike, dark = (
        data_set(OLD, images_of(source=1, images=400, seed=4, brightness=change), sources=("fer2013", "new"))
        for change in (0, -80)
    )
    champions = data_set(OLD, sources=("fer2013",))
    assert compare(champions, alike).shifted == ()
    assert compare(champions, dark).shifted == ("brightness of 400 new images of new",)


def test_sources_are_told_apart_by_their_names_not_their_places() -> None:
    bright = images_of(source=1, images=500, seed=3, brightness=80)
    turned = ImageFacts(
        bright.digests + np.uint64(1), np.zeros(500, np.uint8), bright.labels, bright.statistics
    )
    champions = data_set(OLD, bright, sources=("fer2013", "custom"))
    assert compare(champions, data_set(turned, sources=("custom",))).shifted == ()
    assert compare(champions, data_set(turned, sources=("fer2013",))).shifted != ()


def test_of_too_few_new_images_it_is_told_how_many_they_are_and_nothing_else() -> None:
    report = compare(CHAMPIONS, data_set(OLD, images_of(images=FEWEST - 1, seed=2, brightness=-100)))
    assert (report.shifts, report.few) == ((), {"fer2013": FEWEST - 1})


def test_where_nothing_is_new_there_is_nothing_to_tell_or_draw(tmp_path: Path) -> None:
    less = data_set(OLD.where(np.arange(500)))
    report = compare(CHAMPIONS, less)
    assert (report.shifts, report.few) == ((), {})
    assert draw_drift(CHAMPIONS, less, tmp_path / "drift.png") is None


def test_the_threshold_is_the_configs() -> None:
    new = data_set(images_of(seed=1, brightness=40))
    assert compare(CHAMPIONS, new, DriftConfig(max_psi=9)).shifted == ()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("label_set", "label_set: expected the champion's fer2013, got other"),
        ("code_version", "code_version"),
    ],
)
def test_data_sets_that_were_prepared_otherwise_are_not_compared(key: str, said: str) -> None:
    other = DataSet(CHAMPIONS.metadata | {key: "other"}, CHAMPIONS.facts)
    with pytest.raises(InputError, match=said):
        compare(CHAMPIONS, other)


def test_the_picture_shows_both(tmp_path: Path) -> None:
    new = data_set(OLD, images_of(seed=1, brightness=40), images_of(source=1, seed=2))
    path = draw_drift(CHAMPIONS, new, tmp_path / "drift.png")
    assert path is not None
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000) or []}
        assert picture.height > 400
    assert {(31, 119, 180), (255, 127, 14)} <= colours


def test_what_prepare_publishes_of_its_images_is_what_the_next_night_compares_with(tmp_path: Path) -> None:
    data = prepare(ingested(drawn_store(tmp_path), tmp_path), PLAIN, tmp_path)
    ours, store = tonights(data), new_store(tmp_path / "published")
    publish(store, data)
    theirs = published(store, data.fingerprint)
    counts = sum(sum(data.counts[split].values()) for split in ("train", "val", "test"))
    assert len(ours.facts.digests) == len(theirs.facts.digests) == counts
    assert np.bincount(theirs.of("custom").labels, minlength=5).tolist()[:4] == [0, 0, 0, 0]
    assert compare(theirs, ours).shifts == ()
    assert 20 < theirs.of("fer2013").statistics[:, 0].mean() < 235
    assert (data.directory / "images.npz").stat().st_size < 1200 + 22 * counts
    store.write(f"prepared/{data.fingerprint}/images.npz", b"half")
    with pytest.raises(InputError, match=r"images.npz: expected the facts that prepare wrote"):
        published(store, data.fingerprint)
