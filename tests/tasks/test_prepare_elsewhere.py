"""Sources that a network is only measured on: never in a split, and nothing of training in them."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from storage.errors import InputError
from storage.opening import open_store
from tasks.classes import CLASSES
from tasks.config.prepare import SPLITS
from tasks.ingest import IngestConfig, Source, ingest
from tasks.prepare import PrepareConfig, PreparedData, load_elsewhere, load_split, prepare
from tasks.prepare.dataset import publish
from tasks.prepare.splits import SplitName
from tasks.synthetic import draw_faces
from tests.tasks.small_source import PLAIN, csv_lines, drawn_store, pixels_of

ELSEWHERE = Source(name="lab", prefix="datasets/lab", use="evaluate")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """30 drawn faces of each class to learn from, 8 others of each in the set from elsewhere."""
    store = drawn_store(tmp_path)
    images, labels = draw_faces(8, seed=77)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(store, f"{CLASSES[label]}/{number:03}.png", image[..., 0])
    return store


def save(store: Path, key: str, image: np.ndarray) -> None:
    path = store / "datasets/lab" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def run(store: Path, work: Path, sources: Iterable[Source] = (ELSEWHERE,)) -> PreparedData:
    config = IngestConfig(sources=(*IngestConfig().sources, *sources))
    return prepare(ingest(open_store(store), config, work), PLAIN, work)


def metadata(data: PreparedData) -> dict:
    return json.loads(data.metadata_path.read_text())


def test_a_set_from_elsewhere_is_in_no_split_and_moves_no_image(store: Path, tmp_path: Path) -> None:
    data, without = run(store, tmp_path / "with"), run(store, tmp_path / "without", ())
    assert data.fingerprint != without.fingerprint
    assert (data.elsewhere, without.elsewhere) == (("lab",), ())
    assert data.sources == without.sources == ("fer2013", "custom")
    for name in SPLITS:
        alone = load_split(without.directory, name)
        for member, column in vars(load_split(data.directory, name)).items():
            assert (column == vars(alone)[member]).all(), member
    found = load_elsewhere(data.directory, "lab")
    assert np.bincount(found.labels).tolist() == [8] * 5
    assert metadata(data)["elsewhere"]["lab"]["counts"] == dict.fromkeys(CLASSES, 8)
    assert metadata(data)["audit"]["elsewhere"] == {
        "images_in_splits": 0, "exact_in_training": 0, "near_in_training": 0,
    }  # fmt: skip


def test_photos_of_the_canvas_own_size_keep_every_pixel(store: Path, tmp_path: Path) -> None:
    found = load_elsewhere(run(store, tmp_path).directory, "lab")
    for name, image in zip(found.ids.tolist(), found.images, strict=True):
        with Image.open(store / "datasets/lab" / name.decode().removeprefix("lab:")) as photo:
            assert (np.asarray(photo) == image[..., 0]).all()


def row_numbers(data: PreparedData, split: SplitName) -> list[int]:
    """Of the FER-2013 images in a split."""
    ids = load_split(data.directory, split).ids.tolist()
    return [int(name.rpartition(b":")[2]) for name in ids if name.startswith(b"fer2013:")]


def test_images_that_training_knows_are_dropped_from_the_set_and_counted(store: Path, tmp_path: Path) -> None:
    plain = run(store, tmp_path / "plain")
    lines = csv_lines(store)
    images = {split: pixels_of(lines[row_numbers(plain, split)[0]]) for split in SPLITS}
    save(store, "happy/copy.png", images["train"])
    save(store, "happy/brighter.png", np.clip(images["val"].astype(int) + 15, 0, 255).astype(np.uint8))
    save(store, "happy/of_test.png", images["test"])
    data = run(store, tmp_path / "known")
    told = metadata(data)
    lab = told["elsewhere"]["lab"]
    assert (lab["copies_of_training"], lab["near_training"], lab["images"]) == (1, 1, 41)
    assert data.leaked_pairs == 0
    assert data.twin_share == 0
    kept = {name.decode() for name in load_elsewhere(data.directory, "lab").ids.tolist()}
    assert "lab:happy/of_test.png" in kept
    assert not {"lab:happy/copy.png", "lab:happy/brighter.png"} & kept
    for split in SPLITS:
        assert (load_split(data.directory, split).ids == load_split(plain.directory, split).ids).all()


def test_people_of_its_groups_csv_share_a_group(store: Path, tmp_path: Path) -> None:
    lab = store / "datasets/lab"
    keys = sorted(path.relative_to(lab).as_posix() for path in lab.rglob("*.png"))
    lines = [f"{key},person-{place % 4}" for place, key in enumerate(keys)]
    (lab / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    data = run(store, tmp_path)
    assert len(np.unique(load_elsewhere(data.directory, "lab").groups)) == 4
    assert metadata(data)["elsewhere"]["lab"]["groups"] == 4


def test_sets_from_elsewhere_are_published_with_the_splits(store: Path, tmp_path: Path) -> None:
    data = run(store, tmp_path)
    (tmp_path / "published").mkdir()
    target = open_store(tmp_path / "published")
    publish(target, data)
    assert target.exists(f"prepared/{data.fingerprint}/elsewhere_lab.npz")


def test_what_a_source_is_for_must_be_known_and_one_must_be_to_learn_from() -> None:
    with pytest.raises(ValidationError, match="'train' or 'evaluate'"):
        Source(name="lab", prefix="datasets/lab", use="tune")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="lab have use = 'evaluate'; at least one must"):
        IngestConfig(sources=(ELSEWHERE,))


def test_a_set_without_images_or_with_an_unknown_class_is_one_clear_error(
    store: Path, tmp_path: Path
) -> None:
    missing = Source(name="other", prefix="datasets/other", use="evaluate")
    with pytest.raises(InputError, match=r"datasets/other: no data of source 'other'"):
        run(store, tmp_path, (missing,))
    save(store, "contempt/1.png", np.zeros((48, 48), np.uint8))
    with pytest.raises(InputError, match=r"no class is known for 'contempt' \(images: 1\)"):
        run(store, tmp_path)


def test_a_set_of_which_training_knows_all_images_is_an_error(store: Path, tmp_path: Path) -> None:
    for path in (store / "datasets/lab").rglob("*.png"):
        Image.fromarray(np.full((48, 48), 90, np.uint8)).save(path)
    with pytest.raises(InputError, match="lab: none of 40 images is left to measure on: 40 blank"):
        run(store, tmp_path)


def test_without_a_source_to_learn_from_there_is_one_clear_error(store: Path, tmp_path: Path) -> None:
    config = IngestConfig(sources=(ELSEWHERE, Source(name="gone", prefix="datasets/gone", required=False)))
    source = ingest(open_store(store), config, tmp_path)
    with pytest.raises(InputError, match="no image to learn from, only sources with use = 'evaluate'"):
        prepare(source, PrepareConfig(), tmp_path)
