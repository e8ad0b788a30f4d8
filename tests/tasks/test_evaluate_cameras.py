"""The same faces through other cameras, and what a model then finds and answers."""

import json

import numpy as np
import pytest
from PIL import Image
from prefect.logging import disable_run_logger
from scipy import ndimage

from storage.errors import InputError
from tasks.classes import CLASSES
from tasks.evaluate.camera_figures import CLEAN, CameraFigures, Cameras, loss
from tasks.evaluate.camera_picture import draw_cameras
from tasks.evaluate.cameras import (
    CAMERAS,
    camera_figures,
    evaluate_cameras,
    evaluate_through,
    photograph,
    sample,
)
from tasks.prepare.splits import Split, load_split
from tasks.synthetic import draw_faces
from tests.tasks.small_model import prepared_data, save_keras, save_tflite

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]


@pytest.fixture(scope="module")
def faces():
    """uint8 (40, 48, 48, 1)"""
    return draw_faces(8, seed=3)[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_data(tmp_path_factory.mktemp("data"), per_class=12)


@pytest.fixture(scope="module")
def int8(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("models")
    keras_path = save_keras(folder / "model.keras", data)
    return save_tflite(folder / "model_int8.tflite", keras_path, data)


def _sharpness(images):
    x = images[..., 0].astype(float)
    return (ndimage.laplace(x, axes=(1, 2)).std((1, 2)) / x.std((1, 2))).mean()


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_gives_bytes_of_the_same_shape_the_same_every_time(faces, camera):
    once, again = photograph(faces, camera), photograph(faces, camera)
    assert once.dtype == np.uint8 and once.shape == faces.shape
    assert np.array_equal(once, again)
    assert np.array_equal(once, faces) == (camera == CLEAN)


def test_more_of_a_thing_changes_the_images_more(faces):
    for kind in ("blur", "JPEG", "noise"):
        levels = [name for name in CAMERAS if name.startswith(kind)]
        change = [np.abs(photograph(faces, name).astype(int) - faces).mean() for name in levels]
        assert change == sorted(change) and change[0] < change[-1] / 2


def test_blur_softens_noise_roughens_and_neither_moves_the_mean(faces):
    for camera, sign in (("blur 1 px", -1), ("half resolution", -1), ("noise 10 levels", 1)):
        changed = photograph(faces, camera)
        assert sign * (_sharpness(changed) - _sharpness(faces)) > 0.1
        assert abs(changed.mean() - faces.mean()) < 1


def test_lengths_grow_with_the_image():
    dots = np.zeros((1, 96, 96, 1), np.uint8)
    dots[0, 48, 48] = 255
    blurred = photograph(dots, "blur 1 px")[0, ..., 0]
    assert blurred.max() == round(255 / (2 * np.pi * 2**2))
    assert np.argwhere(photograph(dots, "moved 10 %")[0, ..., 0]).tolist() == [[58, 58]]


def test_light_gamma_and_cover_do_what_their_names_say():
    grey = np.full((2, 48, 48, 1), 128, np.uint8)
    assert (photograph(grey, "light 25 %") == 32).all()
    assert (photograph(grey, "gamma 2") == round(255 * (128 / 255) ** 2)).all()
    covered = photograph(np.zeros_like(grey), "covered 25 %")
    assert ((covered == 128).mean((1, 2, 3)) == 0.25).all()
    assert not np.array_equal(covered[0], covered[1])


def test_a_move_by_half_a_pixel_is_the_mean_of_four(faces):
    x = faces[0, ..., 0].astype(float)
    mean = (x[:-1, :-1] + x[1:, :-1] + x[:-1, 1:] + x[1:, 1:]) / 4
    moved = photograph(faces[:1], "moved 0.5 px")[0, 1:, 1:, 0]
    assert np.abs(moved - mean).max() <= 0.5


def test_colour_passes_every_camera(faces):
    colour = np.concatenate([faces[:10], faces[10:20], faces[20:30]], axis=-1)
    for camera in CAMERAS:
        assert photograph(colour, camera).shape == colour.shape


def test_a_sample_keeps_the_classes_shares_and_no_class_is_left_out():
    labels = np.repeat([0, 1, 4], [900, 98, 2])
    rows = sample(labels, 100)
    assert np.bincount(labels[rows]).tolist() == [90, 10, 0, 0, 1]
    assert (np.diff(rows) > 0).all() and np.array_equal(rows, sample(labels, 100))
    assert len(sample(labels, 1000)) == 1000


def _figures(camera, answers, labels):
    return camera_figures(camera, np.eye(5)[answers], np.asarray(labels))


def test_losses_are_shares_of_what_the_clean_images_reach():
    labels = [0] * 6 + [1] * 4
    clean = _figures(CLEAN, [0, 0, 0, 0, 0, 1, 1, 1, 0, 0], labels)
    blurred = _figures("blur", [0, 0, 0, 4, 4, 4, 1, 4, 4, 4], labels)
    assert clean.accuracy == 0.7 and clean.recall == {
        "neutral": pytest.approx(5 / 6), "stress": 0.5, "sad": None, "happy": None, "fatigue": None,
    }  # fmt: skip
    assert clean.macro_recall == pytest.approx((5 / 6 + 1 / 2) / 2)
    lost = loss(clean, blurred)
    assert lost.accuracy_kept == pytest.approx(4 / 7)
    assert lost.recall_kept["stress"] == pytest.approx(0.5) and lost.recall_kept["fatigue"] is None
    assert lost.growth == pytest.approx({"neutral": -40, "stress": -20, "sad": 0, "happy": 0, "fatigue": 60})


def test_nothing_can_be_kept_of_nothing():
    clean = _figures(CLEAN, [0, 0], [1, 1])
    lost = loss(clean, _figures("blur", [1, 1], [1, 1]))
    assert lost.accuracy_kept is None and lost.recall_kept["stress"] is None


def test_the_int8_file_is_shown_through_every_camera_and_all_is_written(int8, data, tmp_path):
    cameras = evaluate_through(int8, load_split(data.directory, "test"), tmp_path, "int8")
    assert [figures.camera for figures in cameras.cameras] == list(CAMERAS)
    assert cameras.images == 60 and cameras.truth == dict.fromkeys(CLASSES, 0.2)
    assert cameras.worst.accuracy == min(figures.accuracy for figures in cameras.cameras)
    for figures in cameras.cameras:
        assert sum(figures.answers.values()) == pytest.approx(1)
    growths = [one.growth["fatigue"] for one in cameras.losses]
    assert cameras.largest_growth["fatigue"] == max(0, *growths)
    saved = json.loads(cameras.json_path.read_text())
    assert saved["largest_growth"] == cameras.largest_growth and len(saved["losses"]) == len(CAMERAS) - 1
    with Image.open(cameras.picture) as picture:
        assert picture.height > picture.width


def test_a_class_without_an_image_is_drawn_and_written(tmp_path):
    figures = _figures(CLEAN, [0, 1], [0, 1])
    cameras = Cameras(
        model="int8", split="test", images=2, truth=dict.fromkeys(CLASSES, 0.5), cameras=(figures,),
        json_path=tmp_path / "cameras.json", picture=tmp_path / "cameras.png",
    )  # fmt: skip
    assert draw_cameras(cameras, cameras.picture).stat().st_size > 5000
    assert "NaN" not in cameras.model_dump_json()
    assert isinstance(figures, CameraFigures) and cameras.largest_growth == dict.fromkeys(CLASSES, 0)


def test_an_empty_split_is_refused(int8, data, tmp_path):
    whole = load_split(data.directory, "test")
    empty = Split(**{name: getattr(whole, name)[:0] for name in Split.__dataclass_fields__})
    with pytest.raises(InputError, match="val split has no image"):
        evaluate_through(int8, empty, tmp_path, "int8", "val")


def test_images_that_the_network_has_learnt_from_are_left_out(int8, data, tmp_path):
    test = load_split(data.directory, "test")
    np.save(tmp_path / "seen.npy", np.unique(test.digests[::3]))
    with disable_run_logger():
        cameras = evaluate_cameras.fn(int8, data, tmp_path, "int8", seen=tmp_path / "seen.npy")
    assert cameras.images == len(test.images) - len(test.images[::3])
