"""The second look at finished splits sees twins that lie across them, and says how sure it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.prepare.second_look import look_again
from tasks.prepare.threads import Pool
from tasks.synthetic import draw_faces

FACES = draw_faces(12, seed=4)[0]


def write_splits(folder: Path, test: np.ndarray) -> None:
    for name, images in (("train", FACES[:40]), ("val", FACES[40:]), ("test", test)):
        count = len(images)
        ids = np.array([f"{name}:{place}".encode() for place in range(count)])
        columns = {
            "labels": np.zeros(count, np.uint8),
            "emotions": np.zeros((count, 8), np.float32),
            "sources": np.zeros(count, np.uint8),
            "augmented": np.zeros(count, bool),
            "digests": np.arange(count, dtype=np.uint64),
            "groups": np.arange(count),
        }
        np.savez(folder / f"{name}_data.npz", images=images, ids=ids, **columns)


def enlarged(image: np.ndarray) -> np.ndarray:
    face = Image.fromarray(image[..., 0]).resize((48, 48), Image.Resampling.BICUBIC, (3, 4, 45, 46))
    return np.asarray(face)[..., None]


def test_twins_across_splits_are_seen(tmp_path: Path):
    strangers = draw_faces(4, seed=77)[0]
    twins = [FACES[3], FACES[50, :, ::-1], enlarged(FACES[7]), enlarged(FACES[55])]
    write_splits(tmp_path, np.stack([*strangers, *twins]))
    with Pool(2) as pool:
        found = look_again(tmp_path, 1, pool)
        assert found == look_again(tmp_path, 1, pool)
    assert found["ids"] == [f"test:{len(strangers) + place}" for place in range(len(twins))]
    assert found["with_a_twin"] == len(twins)
    assert found["distinct_images_compared_with"] == len(FACES)


def test_strangers_alone_are_no_twins_and_a_small_sample_says_little(tmp_path: Path):
    write_splits(tmp_path, draw_faces(4, seed=77)[0])
    with Pool(2) as pool:
        found = look_again(tmp_path, 1, pool)
    assert found["with_a_twin"] == 0
    assert found["share_at_most"] == pytest.approx(1 - 0.05 ** (1 / 20))
