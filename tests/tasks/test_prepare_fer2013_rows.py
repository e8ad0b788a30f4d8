"""Images of FER-2013 in folders, found among the rows of fer2013.csv by their content."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import InputError
from storage.opening import open_store
from tasks.classes import FER2013_EMOTIONS
from tasks.config.prepare import SPLITS
from tasks.ingest import IngestConfig, Source, ingest
from tasks.prepare import PrepareConfig, PreparedData, fer2013_rows, prepare
from tasks.prepare.fer2013 import read_fer2013
from tasks.prepare.fer2013_rows import (
    AMBIGUOUS,
    ROWS,
    TABLE,
    UNKNOWN,
    fingerprints,
    photos,
    recognise,
    write_table,
)
from tasks.prepare.threads import Pool
from tests.tasks.small_source import (
    PLAIN,
    csv_lines,
    csv_path,
    drawn_store,
    ingested,
    pixels_of,
    write_votes,
)

REAL = Path(os.environ.get("STRESS_VISION_DATA", "../shared/data"))
EMOTIONS = ("happiness", "neutral", "sadness", "anger", "fear", "surprise")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """120 drawn faces as fer2013.csv with votes; the table of fingerprints is theirs."""
    store = drawn_store(tmp_path)
    write_votes(store, [{EMOTIONS[number % 6]: 6, "disgust": 4} for number in range(len(csv_lines(store)))])
    monkeypatch.setattr(fer2013_rows, "ROWS", len(csv_lines(store)))
    monkeypatch.setattr(fer2013_rows, "TABLE", tmp_path / "rows.npy")
    fer2013_rows._known.cache_clear()
    write_table(csv_path(store), tmp_path / "rows.npy")
    yield store
    fer2013_rows._known.cache_clear()


def as_jpeg(image: np.ndarray, quality: int = 75) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def into_folders(store: Path) -> None:
    """The images of fer2013.csv as folders of JPEGs, as Kaggle has them; the numbers say nothing."""
    folder, numbers = store / "datasets/fer2013", np.random.default_rng(1).permutation(len(csv_lines(store)))
    for line, number in zip(csv_lines(store), numbers.tolist(), strict=True):
        emotion, _, usage = line.split(",")
        split = "train" if usage == "Training" else "test"
        path = folder / split / FER2013_EMOTIONS[int(emotion)] / f"{usage}_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_jpeg(pixels_of(line)))
    csv_path(store).unlink()


def run(store: Path, work: Path, config: PrepareConfig = PLAIN) -> PreparedData:
    return prepare(ingested(store, work), config, work)


def metadata(data: PreparedData) -> dict:
    return json.loads(data.metadata_path.read_text())


def per_class(data: PreparedData) -> dict[str, int]:
    return {name: sum(data.counts[split][name] for split in SPLITS) for name in data.counts["train"]}


@pytest.mark.parametrize("canvas", [{}, {"image_px": 64, "channels": 3}])
def test_folders_of_jpegs_get_the_votes_that_the_csv_gets(
    store: Path, tmp_path: Path, canvas: dict[str, int]
) -> None:
    config = PLAIN.model_copy(update=canvas)
    table = run(store, tmp_path, config)
    into_folders(store)
    folders = run(store, tmp_path, config)
    assert folders.label_set == "ferplus_votes"
    assert metadata(folders)["origins"]["fer2013"]["recognised"] == 120
    assert per_class(folders) == per_class(table)
    assert any(note.startswith("fer2013: 120 of 120 images (100.00%)") for note in metadata(folders)["notes"])


def test_an_image_that_is_not_of_fer2013_keeps_its_folders_label_and_is_counted(
    store: Path, tmp_path: Path
) -> None:
    into_folders(store)
    stranger = np.random.default_rng(2).integers(0, 255, (48, 48), np.uint8)
    (store / "datasets/fer2013/train/sad/mine.jpg").write_bytes(as_jpeg(stranger))
    data = run(store, tmp_path)
    origin = metadata(data)["origins"]["fer2013"]
    assert (origin["recognised"], origin["strange"]) == (120, 1)
    before = per_class(data)
    (store / "datasets/fer2013/train/sad/mine.jpg").unlink()
    after = per_class(run(store, tmp_path))
    assert {name: before[name] - after[name] for name in before if before[name] != after[name]} == {"sad": 1}


def test_a_mapping_that_the_votes_overrule_is_told(store: Path, tmp_path: Path) -> None:
    into_folders(store)

    def warnings(label_set: str, **mapping: str) -> list[str]:
        fer = Source(name="fer2013", prefix="datasets/fer2013", mapping=mapping)
        ingested = ingest(open_store(store), IngestConfig(sources=(fer,)), tmp_path)
        config = PLAIN.model_copy(update={"label_set": label_set})
        told = metadata(prepare(ingested, config, tmp_path))["warnings"]
        return [one for one in told if "mapping" in one]

    (told,) = warnings("auto", surprise="stress", sad="sad", fear="")
    assert told.startswith(
        "fer2013: its mapping of surprise counts only for the images that are not recognised"
    )
    assert warnings("fer2013", surprise="stress") == []


def test_votes_beside_images_that_are_not_fer2013s_are_refused(store: Path, tmp_path: Path) -> None:
    shutil.copy(store / "datasets/fer2013/fer2013new.csv", store / "datasets/custom")
    noise = np.random.default_rng(3).integers(0, 255, (30, 48, 48), np.uint8)
    for path, image in zip(sorted((store / "datasets/custom/fatigue").iterdir()), noise, strict=True):
        path.write_bytes(as_jpeg(image))
    with pytest.raises(
        InputError, match=r"custom: fer2013new\.csv lies beside 30 images, of which only 0 are"
    ):
        run(store, tmp_path)
    assert run(store, tmp_path, PLAIN.model_copy(update={"label_set": "fer2013"})).label_set == "fer2013"


def test_votes_of_another_length_cannot_be_given_by_content(store: Path, tmp_path: Path) -> None:
    into_folders(store)
    write_votes(store, [{"happiness": 10}] * 119)
    with pytest.raises(InputError, match=r"fer2013new\.csv has 119 rows, expected 120"):
        run(store, tmp_path)


def test_rows_that_show_one_photo_give_it_all_their_votes_and_two_alike_photos_none(store: Path) -> None:
    images = np.stack([pixels_of(line) for line in csv_lines(store)])
    assert (recognise(images) == photos()).all()
    assert recognise(255 - images[:1]).tolist() == [UNKNOWN]
    table = fingerprints(images)
    table[1] = table[0]
    table[2] = table[0] ^ np.array([1, 0], np.uint64)
    np.save(fer2013_rows.TABLE, table)
    fer2013_rows._known.cache_clear()
    assert photos()[0] == photos()[1]
    assert recognise(images[:1]).tolist() == [AMBIGUOUS]


def test_a_table_of_half_a_file_is_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fer2013_rows, "ROWS", ROWS)
    with pytest.raises(InputError, match=r"expected 35887 good rows, got 120"):
        write_table(csv_path(store), tmp_path / "half.npy")
    assert not (tmp_path / "half.npy").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL / "fer2013/fer2013.csv.xz").exists(), reason="needs FER-2013 (STRESS_VISION_DATA)"
)
def test_the_shipped_table_is_that_of_fer2013_and_finds_its_images_as_jpegs() -> None:
    path = REAL / "fer2013/fer2013.csv.xz"
    with Pool(0) as pool:
        images = np.concatenate([block.images for block in read_fer2013(path, path.name, pool)])
    assert (fingerprints(images) == np.load(TABLE)).all()
    chosen = np.arange(0, ROWS, 36)
    chosen = chosen[images[chosen].std(axis=(1, 2)) > 5]
    jpegs = np.stack([np.asarray(Image.open(io.BytesIO(as_jpeg(images[row])))) for row in chosen.tolist()])
    assert (recognise(jpegs) == photos()[chosen]).mean() > 0.99
