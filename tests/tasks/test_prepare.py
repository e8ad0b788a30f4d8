"""The prepare stage as a whole, from ingested drawn faces to files on disk."""

import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage import files
from storage.errors import InputError, StoreError
from storage.opening import open_store
from tasks.classes import CLASSES, EMOTIONS, FER2013_EMOTIONS, TO_CLASS, emotion_of
from tasks.config.prepare import SPLITS
from tasks.ingest import IngestConfig, Ingested, Source, ingest
from tasks.prepare import PrepareConfig, PreparedData, archive, audit, dataset, load_split, prepare
from tasks.prepare.blocks import hash_images, statistics_of
from tasks.prepare.dataset import publish
from tasks.prepare.labels import DISPUTED
from tasks.prepare.pixels import PixelFile
from tests.tasks.small_source import (
    PLAIN,
    csv_lines,
    drawn_store,
    ingested,
    pixels_of,
    row,
    write_lines,
    write_votes,
)

STORED = PrepareConfig(target_per_class=60, store_augmented=True)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return drawn_store(tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedData, Ingested]:
    """30 drawn faces a class, split and filled up to 60 with stored copies."""
    folder = tmp_path_factory.mktemp("plain")
    source = ingested(drawn_store(folder), folder / "work")
    return prepare(source, STORED, folder / "work"), source


def metadata(data: PreparedData) -> dict:
    return json.loads(data.metadata_path.read_text())


def run(store: Path, work: Path, config: PrepareConfig = PLAIN) -> PreparedData:
    return prepare(ingested(store, work), config, work)


def folders(directory: Path) -> list[Path]:
    """Finished and unfinished data sets; what is known of pairs lies beside them in a file."""
    return [path for path in directory.iterdir() if path.is_dir()]


def all_ids(data: PreparedData) -> list[bytes]:
    return [name for split in SPLITS for name in load_split(data.directory, split).ids.tolist()]


def test_every_image_is_in_one_split_with_its_own_pixels_and_label(plain):
    data, _ = plain
    lines = csv_lines(data.directory.parents[2] / "store")
    seen = Counter()
    for name in SPLITS:
        split = load_split(data.directory, name)
        real = ~split.augmented
        seen.update(split.ids[real].tolist())
        for image, label, one in zip(split.images[real], split.labels[real], split.ids[real], strict=True):
            source, *_, number = one.decode().split(":")
            if source == "fer2013":
                line = lines[int(number)]
                assert (image[..., 0] == pixels_of(line)).all()
                assert CLASSES[label] == TO_CLASS[FER2013_EMOTIONS[int(line[0])]]
            else:
                assert CLASSES[label] == "fatigue"
    assert len(seen) == 150
    assert set(seen.values()) == {1}


def test_shares_hold_in_every_class_up_to_chance(plain):
    data, _ = plain
    for name in CLASSES:
        shares = np.array([data.counts[split][name] for split in SPLITS])
        assert np.abs(shares - [21, 4.5, 4.5]).max() <= 6  # thrice what chance gives 30 images


def test_classes_are_filled_up_by_drawing_their_images_more_often_and_no_copy_is_stored(
    store: Path, tmp_path: Path
):
    data = run(store, tmp_path, PrepareConfig(target_per_class=60))
    train = load_split(data.directory, "train")
    assert not train.augmented.any()
    assert list(data.counts["train"].values()) == np.bincount(train.labels).tolist()
    assert set(data.counts["train_augmented"].values()) == {0}
    assert set(data.counts["train_drawn"].values()) == {data.drawing.target} == {60}


def test_only_training_images_are_copied_and_only_up_to_the_target(plain):
    data, _ = plain
    train = load_split(data.directory, "train")
    assert np.bincount(train.labels).tolist() == [60] * 5
    assert set(train.ids[train.augmented]) <= set(train.ids[~train.augmented])
    assert data.counts["train_augmented"] == dict(
        zip(CLASSES, np.bincount(train.labels[train.augmented]).tolist(), strict=True)
    )
    for name in ("val", "test"):
        assert not load_split(data.directory, name).augmented.any()


def test_a_stored_copy_differs_from_its_base_but_shows_the_same_as_sharp_as_it(plain):
    data, _ = plain
    train = load_split(data.directory, "train")
    bases = dict(zip(train.ids[~train.augmented], train.images[~train.augmented], strict=True))
    pairs = [
        (image, bases[name])
        for image, name in zip(train.images[train.augmented], train.ids[train.augmented], strict=True)
    ]
    assert np.mean([(image != base).any() for image, base in pairs]) > 0.6
    brightness = np.array([[image.mean(), base.mean()] for image, base in pairs])
    assert np.corrcoef(brightness.T)[0, 1] > 0.9
    sharpness = [statistics_of(np.array(images))[:, 1:].T for images in zip(*pairs, strict=True)]
    copies, bases = (edges / contrast for contrast, edges in sharpness)
    assert np.allclose(copies, bases, rtol=1e-4)


def test_members_have_the_promised_types_and_numpy_reads_them_too(plain):
    data, _ = plain
    split = load_split(data.directory, "val")
    types = {name: column.dtype.kind + str(column.dtype.itemsize) for name, column in vars(split).items()}
    assert types | {"ids": "S"} == {
        "images": "u1", "labels": "u1", "emotions": "f4", "sources": "u1", "ids": "S", "augmented": "b1",
        "digests": "u8", "groups": "i4",
    }  # fmt: skip
    assert split.images.shape[1:] == (48, 48, 1)
    assert np.allclose(split.votes.sum(axis=1), 1)
    with np.load(data.directory / "val_data.npz") as archive:
        assert all((archive[name] == column).all() for name, column in vars(split).items())


def test_a_digest_is_that_of_the_pixels_and_an_augmented_image_has_its_originals(plain) -> None:
    data, _ = plain
    for name in SPLITS:
        split = load_split(data.directory, name)
        real = split.where(~split.augmented)
        assert (real.digests == hash_images(real.images)).all()
    train = load_split(data.directory, "train")
    originals = dict(zip(train.ids[~train.augmented], train.digests[~train.augmented], strict=True))
    assert train.augmented.any()
    assert all(originals[one] == digest for one, digest in zip(train.ids, train.digests, strict=True))


def test_frames_of_one_person_share_a_group_and_strangers_do_not(store: Path, tmp_path: Path) -> None:
    folder = store / "datasets/custom"
    photos = sorted(path.relative_to(folder).as_posix() for path in folder.glob("fatigue/*.png"))
    lines = [f"{photo},driver-{place % 6}" for place, photo in enumerate(photos)]
    (folder / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    data = run(store, tmp_path)
    person = {f"custom:{photo}".encode(): place % 6 for place, photo in enumerate(photos)}
    groups: dict[int, set[Any]] = {}
    for split in (load_split(data.directory, name) for name in SPLITS):
        for one, group in zip(split.ids.tolist(), split.groups.tolist(), strict=True):
            groups.setdefault(group, set()).add(person.get(one, one))
    assert all(len(members) == 1 for members in groups.values())
    assert len({group for group, members in groups.items() if members & set(range(6))}) == 6


def test_a_split_of_an_older_version_is_one_clear_error(plain, tmp_path: Path) -> None:
    data, _ = plain
    with np.load(data.directory / "val_data.npz") as members:
        older = {name: members[name] for name in members.files if name not in ("digests", "groups")}
    np.savez(tmp_path / "val_data.npz", **older)
    with pytest.raises(InputError, match=r"val_data.npz: expected a split that prepare wrote.*digests"):
        load_split(tmp_path, "val")


def test_a_finished_data_set_is_reused(plain):
    data, source = plain
    again = prepare(source, STORED.model_copy(update={"threads": 1}), data.directory.parents[1])
    assert again == data.model_copy(update={"reused": True})


def test_equal_input_makes_equal_bytes(plain, tmp_path: Path):
    data, source = plain
    again = prepare(source, STORED, tmp_path)
    assert not again.reused
    for path in data.directory.iterdir():
        assert path.read_bytes() == (again.directory / path.name).read_bytes(), path.name


def test_metadata_says_what_it_holds(plain):
    data, _ = plain
    told = metadata(data)
    assert told["read"] == {"fer2013": 120, "custom": 30}
    assert told["label_set"] == "fer2013"
    assert told["counts_per_source"]["val"]["custom"]["fatigue"] == data.counts["val"]["fatigue"]
    assert any("fatigue comes from custom alone" in warning for warning in told["warnings"])
    assert set(data.pictures) >= {"class_balance", "samples_fer2013", "samples_custom"}
    for path in data.pictures.values():
        with Image.open(path) as picture:
            assert picture.convert("L").getextrema() != (255, 255)


def test_copies_go_to_one_split_and_the_audit_counts_what_a_naive_split_leaks(store: Path, tmp_path: Path):
    lines = csv_lines(store)
    write_lines(store, lines * 3)
    data = run(store, tmp_path)
    where = {}
    for name in SPLITS:
        for image in load_split(data.directory, name).images:
            where.setdefault(image.tobytes(), set()).add(name)
    assert all(len(splits) == 1 for splits in where.values())
    audit = metadata(data)["audit"]
    assert audit["leaked_pairs"] == data.leaked_pairs == 0
    assert audit["found"]["groups_of_copies"] == len(lines)
    assert audit["naive_random_split"]["exact_pairs_across"] > len(lines) / 2


def test_the_audit_sees_a_leak_in_the_files(plain, tmp_path: Path):
    data, _ = plain
    shutil.copytree(data.directory, tmp_path / "leaky")
    train, val = (load_split(data.directory, name) for name in ("train", "val"))
    real = np.flatnonzero(~train.augmented)[:3]
    leaky: dict[str, Any] = {
        name: np.concatenate([column, vars(train)[name][real]]) for name, column in vars(val).items()
    }
    np.savez(tmp_path / "leaky/val_data.npz", **leaky)
    assert [shared_images(folder) for folder in (data.directory, tmp_path / "leaky")] == [0, 3]


def shared_images(directory: Path) -> int:
    return len(np.intersect1d(audit._hashes(directory, "train"), audit._hashes(directory, "val")))


def test_conflicting_labels_are_settled_by_majority_and_ties_dropped(store: Path, tmp_path: Path):
    lines = csv_lines(store)
    torn, settled = (pixels_of(line) for line in lines[:2])
    more = [row(torn, 3), row(torn, 4), row(settled, 3), row(settled, 3), row(settled, 4)]
    write_lines(store, [*lines[2:], *more])
    data = run(store, tmp_path)
    labels = {
        name: CLASSES[label]
        for split in (load_split(data.directory, one) for one in SPLITS)
        for name, label in zip(split.ids.tolist(), split.labels, strict=True)
    }
    first = len(lines) - 2
    assert not {f"fer2013:Training:{first + place}".encode() for place in (0, 1)} & set(labels)
    assert {labels[f"fer2013:Training:{first + place}".encode()] for place in (2, 3, 4)} == {"happy"}
    told = metadata(data)
    assert told["conflicting_labels"] == {"distinct_images": 2, "unsettled": 1}
    assert told["dropped"]["tie"] == 2


def test_near_duplicates_with_different_labels_are_dropped_and_move_no_other_image(
    store: Path, tmp_path: Path
):
    lines = csv_lines(store)
    brighter, label = np.clip(pixels_of(lines[0]).astype(int) + 20, 0, 255), int(lines[0][0])
    made = []
    for name, emotion in (("same", label), ("other", (label + 3) % 7)):
        write_lines(store, [*lines, row(brighter, emotion)])
        made.append(run(store, tmp_path / name))
    assert [metadata(data)["dropped"][DISPUTED] for data in made] == [0, 2]
    assert ["audit_conflicts" in data.pictures for data in made] == [False, True]
    pair = (b":0", f":{len(lines)}".encode())
    for split in SPLITS:
        agreed, torn = (load_split(data.directory, split).ids.tolist() for data in made)
        assert set(torn) == {one for one in agreed if not one.endswith(pair) or one.startswith(b"custom")}


def test_blank_images_are_dropped_and_counted(store: Path, tmp_path: Path):
    lines = csv_lines(store)
    write_lines(
        store, [*lines, row(np.zeros((48, 48), int)), row(np.full((48, 48), 90) + np.eye(48, dtype=int))]
    )
    data = run(store, tmp_path)
    assert metadata(data)["dropped"]["blank"] == 2
    assert len(all_ids(data)) == 150


def test_a_few_bad_rows_and_photos_are_listed_and_skipped(store: Path, tmp_path: Path):
    lines = csv_lines(store)
    write_lines(store, [lines[0], lines[1].replace(" ", " 999 ", 1), *lines[2:]])
    (store / "datasets/custom/fatigue/notes.png").write_text("no picture")
    (store / "datasets/custom/fatigue/gone.png").symlink_to(tmp_path / "moved.png")
    data = run(store, tmp_path, PLAIN.model_copy(update={"max_bad_share": 0.1}))
    told = metadata(data)["unreadable"]
    assert (told["fer2013"]["count"], told["custom"]["count"]) == (1, 2)
    assert told["fer2013"]["listed"][0]["where"] == "fer2013: row 1 (line 3)"
    assert "got 2305" in told["fer2013"]["listed"][0]["why"]
    gone, notes = told["custom"]["listed"]
    assert gone["where"] == "custom: fatigue/gone.png" and "a link to nothing" in gone["why"]
    assert notes["where"] == "custom: fatigue/notes.png"
    assert len(all_ids(data)) == 149


def test_too_many_bad_rows_are_refused_and_nothing_is_left_behind(store: Path, tmp_path: Path):
    lines = csv_lines(store)
    write_lines(store, [*lines[:-5], *["7" + line[1:] for line in lines[-5:]]])
    with pytest.raises(InputError, match=r"fer2013: 5 of 120 .* max_bad_share = 0.01 .*row 115 \(line 117\)"):
        run(store, tmp_path)
    assert folders(tmp_path / "prepared") == []


def test_fer2013_alone_makes_a_data_set_that_names_the_class_it_has_no_image_of(store: Path, tmp_path: Path):
    shutil.rmtree(store / "datasets/custom")
    with pytest.raises(InputError, match=r"got none of \['fatigue'\]"):
        run(store, tmp_path, PLAIN.model_copy(update={"expected_classes": CLASSES}))
    data = run(store, tmp_path)
    assert data.counts["train"]["fatigue"] == 0 and data.absent == ("fatigue",)
    assert any(
        warning.startswith("no source has an image of fatigue") for warning in metadata(data)["warnings"]
    )


def test_photos_of_160_px_in_colour_are_one_option_and_what_48_px_grey_costs_is_said(
    store: Path, tmp_path: Path
):
    for path in (store / "datasets/custom/fatigue").iterdir():
        Image.open(path).resize((160, 200)).save(path)
    for number in range(31):
        path = store / f"datasets/custom/neutral/{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((48, 48), 60).save(path)
    small = run(store, tmp_path)
    assert load_split(small.directory, "train").images.shape[1:] == (48, 48, 1)
    [note] = metadata(small)["notes"]
    assert note.startswith(
        "custom: 30 photos, of 160 px in the median, stand in the data set as 48 x 48 px, grey"
    )
    large = run(store, tmp_path, PLAIN.model_copy(update={"image_px": 160}))
    assert load_split(large.directory, "train").images.shape[1:] == (160, 160, 3)
    assert (large.channels, metadata(large)["notes"]) == (3, [])


def test_one_class_alone_is_nothing_to_learn_from(store: Path, tmp_path: Path):
    shutil.rmtree(store / "datasets/fer2013")
    with pytest.raises(InputError, match=r"no data of source 'fer2013'"):
        run(store, tmp_path)
    source = IngestConfig(sources=(Source(name="custom", prefix="datasets/custom"),))
    with pytest.raises(InputError, match=r"two classes or more, got only \['fatigue'\]"):
        prepare(ingest(open_store(store), source, tmp_path), PLAIN, tmp_path)


def test_ferplus_joins_by_row_and_follows_the_papers_rule(store: Path, tmp_path: Path):
    count = len(csv_lines(store))
    special = [
        {"happiness": 10},
        {"neutral": 5, "surprise": 4, "sadness": 1},  # our neutral, the single vote an outlier
        {"anger": 3, "disgust": 2, "fear": 2, "neutral": 3},  # stress: 7 of 10
        {"sadness": 4, "neutral": 4, "fear": 2},  # no majority
        {"contempt": 8, "neutral": 2},
        {"unknown": 9},
        {"NF": 10},
    ]
    write_votes(store, special + [{"neutral": 10}] * (count - len(special)))
    hard = run(store, tmp_path, PLAIN.model_copy(update={"label_set": "ferplus"}))
    soft = run(store, tmp_path, PLAIN.model_copy(update={"label_set": "ferplus_votes"}))
    told = metadata(hard)["dropped"]
    assert [told[reason] for reason in ("tie", "contempt", "unknown", "NF")] == [1, 1, 1, 1]
    found = votes_by_row(hard)
    assert {number: found[number] for number in (0, 1, 2)} == {0: "happy", 1: "neutral", 2: "stress"}
    assert not {3, 4, 5, 6} & set(found)
    assert set(votes_by_row(soft)) == set(found) | {3}
    train = load_split(soft.directory, "train")
    [torn] = np.flatnonzero([name.endswith(b":3") for name in train.ids])
    assert np.allclose(train.votes[torn], [0.4, 0.2, 0.4, 0, 0])
    posted = PLAIN.model_copy(update={"label_set": "ferplus_votes", "posted_share": 0.5})
    blended = run(store, tmp_path, posted)
    assert np.allclose(
        load_split(blended.directory, "train").emotions,
        0.5 * train.emotions + 0.5 * own_emotions(store, train.ids, train.emotions),
    )
    for name in ("val", "test"):
        assert (
            load_split(blended.directory, name).emotions == load_split(soft.directory, name).emotions
        ).all()
        assert load_split(soft.directory, name).ids.tolist() == load_split(hard.directory, name).ids.tolist()


def own_emotions(store: Path, ids: np.ndarray, without: np.ndarray) -> np.ndarray:
    """What each row of the CSV was posted as, float32 (N, 8); `without` for photos, which say the same."""
    posted = [int(line.split(",")[0]) for line in csv_lines(store)]
    places = {row: emotion_of(FER2013_EMOTIONS[number]) for row, number in enumerate(posted)}
    return np.stack(
        [
            np.eye(len(EMOTIONS))[places[int(name.rpartition(b":")[2])]] if name.startswith(b"fer") else row
            for name, row in zip(ids.tolist(), without, strict=True)
        ]
    )


def votes_by_row(data: PreparedData) -> dict[int, str]:
    """Row number → class, of the FER-2013 images."""
    return {
        int(name.rpartition(b":")[2]): CLASSES[label]
        for split in (load_split(data.directory, one) for one in SPLITS)
        for name, label in zip(split.ids.tolist(), split.labels, strict=True)
        if name.startswith(b"fer2013:")
    }


@pytest.mark.parametrize("rows", [119, 121])
def test_a_labels_file_of_another_length_is_refused(store: Path, tmp_path: Path, rows: int):
    write_votes(store, [{"neutral": 10}] * rows)
    with pytest.raises(InputError, match=f"fer2013new.csv has {rows} rows, fer2013.csv has 120"):
        run(store, tmp_path, PLAIN.model_copy(update={"label_set": "ferplus"}))


def test_ferplus_without_its_file_says_what_to_do(store: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"ferplus needs .*fer2013new.csv.*\['fer2013'\]; put it beside"):
        run(store, tmp_path, PLAIN.model_copy(update={"label_set": "ferplus"}))


def test_auto_takes_the_votes_where_they_lie_beside_the_images_and_names_what_it_took(
    store: Path, tmp_path: Path
):
    own = run(store, tmp_path)
    assert (own.label_set, metadata(own)["label_set"]) == ("fer2013", "fer2013")
    assert any("FER+'s fer2013new.csv" in warning for warning in metadata(own)["warnings"])
    votes = [{emotion: 6, "surprise": 4} for emotion in ("happiness", "neutral", "sadness", "anger")]
    write_votes(store, votes * (len(csv_lines(store)) // len(votes)))
    voted = run(store, tmp_path)
    assert (voted.label_set, metadata(voted)["label_set"]) == ("ferplus_votes", "ferplus_votes")
    assert metadata(voted)["config"]["label_set"] == "ferplus_votes"
    asked = run(store, tmp_path, PLAIN.model_copy(update={"label_set": "ferplus_votes"}))
    assert asked.reused and asked.directory == voted.directory


def test_photos_alone_are_not_warned_of_fer2013s_labels(store: Path, tmp_path: Path) -> None:
    for name in ("fatigue", "happy"):
        for number in range(8):
            path = store / f"datasets/photos/{name}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((96, 96), 60).save(path)
    source = IngestConfig(sources=(Source(name="photos", prefix="datasets/photos"),))
    data = prepare(ingest(open_store(store), source, tmp_path), PLAIN, tmp_path)
    assert data.label_set == "fer2013"
    assert not any("FER" in warning for warning in metadata(data)["warnings"])


def test_the_official_split_is_kept(store: Path, tmp_path: Path):
    data = run(store, tmp_path, PLAIN.model_copy(update={"split": "official"}))
    for name, usage in zip(SPLITS, ("Training", "PublicTest", "PrivateTest"), strict=True):
        ids = load_split(data.directory, name).ids.tolist()
        assert {one.split(b":")[1].decode() for one in ids if one.startswith(b"fer2013")} == {usage}


def test_persons_of_groups_csv_stay_together(store: Path, tmp_path: Path):
    folder = store / "datasets/custom"
    photos = sorted(path.relative_to(folder).as_posix() for path in folder.glob("fatigue/*.png"))
    lines = [f"{photo},driver-{place % 6}" for place, photo in enumerate(photos)]
    (folder / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    data = run(store, tmp_path)
    person = {f"custom:{photo}".encode(): place % 6 for place, photo in enumerate(photos)}
    where = {}
    for name in SPLITS:
        for one in load_split(data.directory, name).ids.tolist():
            if one in person:
                where.setdefault(person[one], set()).add(name)
    assert all(len(splits) == 1 for splits in where.values())
    assert set.union(*where.values()) == set(SPLITS)


def test_a_data_set_is_published_once_with_metadata_last(plain, tmp_path: Path):
    data, _ = plain
    (tmp_path / "elsewhere").mkdir()
    store = open_store(tmp_path / "elsewhere")
    publish(store, data)
    keys = [info.key for info in store.list(f"prepared/{data.fingerprint}")]
    assert len(keys) == len(list(data.directory.iterdir()))
    newest = max(
        store.list("prepared"), key=lambda info: (tmp_path / "elsewhere" / info.key).stat().st_mtime_ns
    )
    assert newest.key.endswith("metadata.json")
    store.delete(keys[0])
    publish(store, data)
    assert not store.exists(keys[0])


def test_a_damaged_split_is_one_clear_error(plain, tmp_path: Path):
    data, _ = plain
    whole = (data.directory / "val_data.npz").read_bytes()
    (tmp_path / "val_data.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"val_data\.npz: expected a split that .*; delete .* and run again"):
        load_split(tmp_path, "val")
    with pytest.raises(InputError, match=r"test_data.npz"):
        load_split(tmp_path, "test")


def test_shares_must_make_a_whole():
    with pytest.raises(ValueError, match=r"must be 1, got 1.15"):
        PrepareConfig(train_share=0.85)


def test_blank_images_alone_are_an_error(store: Path, tmp_path: Path):
    shutil.rmtree(store / "datasets/custom")
    write_lines(store, [row(np.full((48, 48), level), emotion=level % 7) for level in range(30)])
    with pytest.raises(InputError, match=r"none of 30 images is left .* 30 are blank \(blank_std = 5\)"):
        run(store, tmp_path)


def test_the_smallest_images_allowed_can_be_prepared(store: Path, tmp_path: Path):
    data = run(store, tmp_path, PLAIN.model_copy(update={"image_px": 16}))
    assert load_split(data.directory, "val").images.shape[1:] == (16, 16, 1)
    assert data.leaked_pairs == 0


def in_a_process(work: Callable, *arguments: object, start: str = "fork") -> int | None:
    """The exit code of a process of its own that does the work."""
    context: Any = multiprocessing.get_context(start)
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def prepare_until_killed(source: Ingested, work: Path, owner: object, name: str, at: int) -> None:
    """Die, as by kill -9, at the given call of one of the stage's functions."""
    work_on, count = getattr(owner, name), itertools.count(1)

    def fatal(*arguments):
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return work_on(*arguments)

    setattr(owner, name, fatal)
    prepare(source, STORED, work)


def assert_same_files(data: PreparedData, expected: PreparedData) -> None:
    assert not data.reused
    files = {path.name: path.read_bytes() for path in data.directory.iterdir()}
    assert files == {path.name: path.read_bytes() for path in expected.directory.iterdir()}


def test_a_run_killed_at_any_point_leaves_nothing_half_done_and_the_next_ends_the_same(plain, tmp_path: Path):
    data, source = plain
    points = [
        (PixelFile, "append", 2),
        (archive, "_write", 2),  # train's images stand in its file, its labels don't
        (archive, "_write", 9),
        (dataset, "audit", 1),
        (dataset, "draw", 1),
        (Path, "write_text", 1),
        (files, "_settle", 1),
    ]
    for point in points:
        assert in_a_process(prepare_until_killed, source, tmp_path, *point) == -signal.SIGKILL, point
        assert not (tmp_path / "prepared" / data.fingerprint).exists(), point
    left = folders(tmp_path / "prepared")
    assert len(left) == len(points)
    for partial in left:
        os.utime(partial, (0, 0))
    assert_same_files(prepare(source, STORED, tmp_path), data)
    assert [path.name for path in folders(tmp_path / "prepared")] == [data.fingerprint]


def prepare_on_a_small_disk(source: Ingested, work: Path, max_file_bytes: int) -> None:
    """As far as unprivileged processes can make a disk small: no file may grow beyond a limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    with pytest.raises(StoreError, match=rf"can't write {work}/prepared/.*: a file would be larger .*ulimit"):
        prepare(source, STORED, work)


@pytest.mark.parametrize("max_file_bytes", [100_000, 500_000], ids=["while reading", "while writing train"])
def test_without_room_on_the_disk_there_is_one_clear_error_and_nothing_half_done(
    plain, tmp_path: Path, max_file_bytes: int
):
    data, source = plain
    # a new process: what a forked one has inherited may itself be unable to write to a file beyond the limit
    assert in_a_process(prepare_on_a_small_disk, source, tmp_path, max_file_bytes, start="spawn") == 0
    assert folders(tmp_path / "prepared") == []
    assert_same_files(prepare(source, STORED, tmp_path), data)
