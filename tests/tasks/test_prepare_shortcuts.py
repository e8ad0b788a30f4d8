"""What nuisance figures tell of a class, and whether that is our own doing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.classes import CLASSES
from tasks.prepare import PrepareConfig, Split, prepare
from tasks.prepare.augment import alter, plan
from tasks.prepare.shortcuts import FIGURES, MAX_ADDED, ShortcutAudit, audit_shortcuts, nuisance
from tasks.synthetic import draw_faces
from tests.tasks.small_model import EMOTION_TARGETS
from tests.tasks.small_source import drawn_store, ingested

RARE, TARGET = CLASSES.index("fatigue"), 400


@pytest.fixture(scope="module")
def originals() -> Split:
    """200 drawn faces of neutral and of happy from one source, 90 of fatigue from another."""
    images, labels = draw_faces(200, seed=3)
    kept = np.flatnonzero(np.isin(labels, (0, 3)) | (labels == RARE) & (np.cumsum(labels == RARE) <= 90))
    return split_of(images[kept], labels[kept], (labels[kept] == RARE).astype(np.uint8))


def split_of(images: np.ndarray, labels: np.ndarray, sources: np.ndarray) -> Split:
    numbers = np.arange(len(labels))
    return Split(
        images=images,
        labels=labels,
        emotions=EMOTION_TARGETS[labels],
        sources=sources,
        ids=numbers.astype("S"),
        augmented=np.zeros(len(labels), bool),
        digests=numbers.astype(np.uint64),
        groups=numbers.astype(np.int32),
    )


def with_copies(originals: Split, bases: np.ndarray, copies: np.ndarray) -> Split:
    """The originals, and behind them copies of those numbered `bases`."""
    rows = np.append(np.arange(len(originals.labels)), bases)
    columns = {name: column[rows] for name, column in vars(originals).items()}
    columns["images"] = np.concatenate([originals.images, copies])
    columns["augmented"] = np.arange(len(rows)) >= len(originals.labels)
    return Split(**columns)


def rare_bases(originals: Split) -> np.ndarray:
    return np.resize(np.flatnonzero(originals.labels == RARE), TARGET)


def turned_and_shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As copies were stored once: by up to 15 degrees and a tenth of the side, bilinear, edges repeated."""
    px, margin = image.shape[0], image.shape[0] // 2
    wide = Image.fromarray(np.pad(image[..., 0], margin, mode="edge"))
    turned = wide.rotate(
        rng.uniform(-15, 15),
        Image.Resampling.BILINEAR,
        translate=tuple(rng.uniform(-0.1, 0.1, 2) * px),
    )
    return np.asarray(turned)[margin:-margin, margin:-margin, None]


def audited(split: Split) -> ShortcutAudit:
    return audit_shortcuts(split, ("web", "car"), seed=1)


def test_copies_of_one_class_that_were_turned_and_shifted_bilinearly_are_our_error(originals: Split) -> None:
    rng = np.random.default_rng(0)
    bases = rare_bases(originals)
    copies = np.stack([turned_and_shifted(image, rng) for image in originals.images[bases]])
    found = audited(with_copies(originals, bases, copies))
    assert found.added > 0.05
    assert any("fatigue is told by" in text and "store_augmented" in text for text in found.errors)


def test_copies_as_they_are_stored_now_add_nothing_to_the_originals(originals: Split) -> None:
    rng = np.random.default_rng(0)
    extra = plan(np.arange(len(originals.labels)), originals.labels, TARGET, rng)
    found = audited(with_copies(originals, extra.bases, alter(originals.images[extra.bases], extra)))
    assert found.added <= MAX_ADDED and not found.errors


def test_without_copies_files_and_originals_are_the_same(originals: Split) -> None:
    found = audited(originals)
    assert found.added == 0 and not found.errors
    assert [(one.told, one.among) for one in found.shortcuts] == [
        ("neutral", "web"), ("happy", "web"), ("neutral", "all sources"), ("happy", "all sources"),
        ("fatigue", "all sources"), ("car", "all sources"),
    ]  # fmt: skip


def test_a_source_whose_camera_tells_a_class_is_warned_about_and_no_error_of_ours(originals: Split) -> None:
    images = originals.images.copy()
    happy, rare = originals.labels == 3, originals.labels == RARE
    images[happy] = images[happy] // 2
    images[rare] = np.clip(images[rare] * 0.3, 0, 255).astype(np.uint8)
    found = audited(split_of(images, originals.labels, originals.sources))
    assert not found.errors
    assert any(text.startswith("happy is told") and "within web" in text for text in found.warnings)
    assert any(text.startswith("fatigue comes from car alone") for text in found.warnings)


def test_figures_see_what_they_are_named_after() -> None:
    images, _ = draw_faces(8, seed=2)
    plain = nuisance(images).T
    grey = images.astype(float)
    moved = np.concatenate([grey[:, 3:], np.repeat(grey[:, -1:], 3, axis=1)], axis=1)
    noisy = np.clip(grey + np.random.default_rng(0).normal(0, 12, grey.shape), 0, 255)
    soft = (grey + np.roll(grey, 1, 1) + np.roll(grey, 1, 2) + np.roll(grey, (1, 1), (1, 2))) / 4
    blocks = grey + 20 * ((np.arange(48) // 8 % 2)[:, None] ^ (np.arange(48) // 8 % 2))[None, :, :, None]
    changes = {
        "sharpness": -soft, "noise": noisy, "brightness": grey / 2 + 100, "contrast": -(grey / 2),
        "border repetition": moved, "JPEG grid": blocks,
    }  # fmt: skip
    for place, name in enumerate(FIGURES):
        changed = nuisance(np.clip(np.abs(changes[name]), 0, 255).astype(np.uint8)).T[place]
        sign = -1 if name in ("sharpness", "contrast") else 1
        assert (np.sign(changed - plain[place]) == sign).mean() > 0.9, name


def test_the_audit_stands_in_the_metadata_of_a_prepared_data_set(tmp_path: Path) -> None:
    source = ingested(drawn_store(tmp_path, per_class=60), tmp_path / "work")
    data = prepare(source, PrepareConfig(target_per_class=90, store_augmented=True), tmp_path / "work")
    assert data.shortcut_added is not None and data.shortcut_added <= MAX_ADDED
