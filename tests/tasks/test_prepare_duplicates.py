"""One photo in two guises is found; two people are not taken for one."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from storage.errors import InputError
from tasks.ingest import SourceFile
from tasks.prepare.config import PrepareConfig
from tasks.prepare.duplicates import candidates, compare, describe_images, join, number_copies
from tasks.prepare.persons import neighbouring_frames, read_persons, same_person
from tasks.prepare.pixels import PixelFile
from tasks.prepare.threads import Pool
from tasks.synthetic import draw_faces

THRESHOLD = PrepareConfig().near_duplicate
FACES = draw_faces(16, seed=11)[0][..., 0]


def jpeg(image: np.ndarray) -> np.ndarray:
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=50)
    return np.asarray(Image.open(packed))


def cropped(left: int, top: int, right: int, bottom: int):
    box = (left, top, 48 - right, 48 - bottom)
    return lambda image: np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BILINEAR, box))


GUISES = {
    "encoded again": jpeg,
    "darker": lambda image: (image * 0.8).astype(np.uint8),
    "brighter": lambda image: np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and encoded again": lambda image: jpeg(np.ascontiguousarray(image[:, ::-1])),
    "cropped by 1 px": cropped(1, 1, 1, 1),
    "cropped by 2 px": cropped(2, 2, 2, 2),
    "cropped at two sides": cropped(2, 2, 0, 0),
}


def find(images: np.ndarray, folder: Path) -> set[tuple[int, int]]:
    """Near duplicates among uint8 (n, 48, 48)."""
    with Pool(2) as pool, PixelFile(folder / "pixels", 48, 1) as pixels:
        pixels.append(images)
        numbers = np.arange(len(images))
        descriptors, inner = describe_images(pixels.chunks(numbers), pool)
        pairs = candidates(descriptors, inner, pool)
        near = compare(pixels, numbers, descriptors, pairs, pool) > THRESHOLD
    return {(a, b) for a, b in pairs[near].tolist()}


@pytest.mark.parametrize("guise", GUISES)
def test_a_photo_in_another_guise_is_found(guise: str, tmp_path: Path):
    twins = np.stack([GUISES[guise](face) for face in FACES])
    found = find(np.concatenate([FACES, twins]), tmp_path)
    known = {(place, place + len(FACES)) for place in range(len(FACES))}
    assert len(known & found) >= 0.9 * len(known)


def test_different_faces_are_not_taken_for_one(tmp_path: Path):
    possible = len(FACES) * (len(FACES) - 1) / 2
    assert len(find(FACES, tmp_path)) < 0.01 * possible


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_the_search_by_bounds_and_blocks_finds_what_all_pairs_would(monkeypatch, share: float):
    with Pool(2) as pool:
        whole, inner = describe_images([FACES[:40, ..., None], FACES[40:, ..., None]], pool)
        pairs = np.stack(np.triu_indices(len(FACES), 1), axis=1)
        turned = pairs[:, ::-1]
        ways = (
            whole.similarity(whole, pairs),
            inner.similarity(whole, pairs),
            inner.similarity(whole, turned),
        )
        alike = np.max(ways, axis=(0, 1))
        cut = float(np.quantile(alike, 1 - share))
        monkeypatch.setattr("tasks.prepare.duplicates.CANDIDATE", cut)
        monkeypatch.setattr("tasks.prepare.duplicates._BLOCK", (7, 16))
        assert candidates(whole, inner, pool).tolist() == pairs[alike > cut].tolist()


def test_equal_hashes_are_one_image():
    first, copies = number_copies(np.array([7, 9, 7, 3, 9, 7], np.uint64))
    assert copies.tolist() == [1, 2, 1, 0, 2, 1]
    assert first.tolist() == [3, 0, 1]


def test_pairs_chain_into_groups():
    assert join(6, np.array([[0, 2], [2, 5], [1, 3]])).tolist() == [0, 1, 0, 1, 2, 0]
    assert join(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


@settings(max_examples=50, deadline=None)
@given(some.lists(some.tuples(some.integers(0, 29), some.integers(0, 29)), min_size=1, max_size=60))
def test_groups_are_the_connected_components(pairs: list[tuple[int, int]]):
    together = [{number} for number in range(30)]
    for a, b in pairs:
        merged = together[a] | together[b]
        for number in merged:
            together[number] = merged
    groups = join(30, np.array(pairs))
    assert [set(np.flatnonzero(groups == group).tolist()) for group in groups] == together


def test_frames_are_photos_of_one_folder_with_near_numbers():
    ids = np.array(
        [
            b"custom:sad/7.jpg",
            b"custom:sad/9.jpg",
            b"custom:sad/40.jpg",
            b"custom:happy/8.jpg",
            b"fer2013:Training:8",
        ]
    )
    assert neighbouring_frames({}, ids).tolist() == [[0, 1]]
    assert neighbouring_frames({"custom:sad/9.jpg": "custom:anna"}, ids).tolist() == []


def groups_csv(tmp_path: Path, text: str) -> dict[str, SourceFile]:
    path = tmp_path / "ab" / "abc"
    path.parent.mkdir()
    path.write_text(text)
    return {key: SourceFile(key, 1, "abc") for key in ("groups.csv", "sad/a.png", "happy/b.png", "sad/c.png")}


def test_groups_csv_says_who_is_who(tmp_path: Path):
    files = groups_csv(tmp_path, "file,group\nsad/a.png,anna\nhappy/b.png,anna\nsad/c.png,ben\n")
    persons = read_persons("custom", files, tmp_path)
    ids = np.array([b"custom:sad/c.png", b"custom:sad/a.png", b"custom:happy/b.png"])
    assert same_person(persons, ids).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo,person\n", "expected the header file,group"),
        ("file,group\nsad/z.png,anna\n", "line 2: expected a file"),
    ],
)
def test_a_faulty_groups_csv_is_one_clear_error(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=f"custom: groups.csv: {message}"):
        read_persons("custom", groups_csv(tmp_path, text), tmp_path)
