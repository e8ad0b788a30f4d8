"""The golden set exercises a model's outputs, and shows nobody."""

import numpy as np
import pytest

from tasks.convert import TfliteModel
from tasks.golden import classes_on_top, draw_candidates, spread
from tasks.litert import quantized_outputs
from tasks.prepare import PreparedData, load_split
from tasks.register import golden_set
from tasks.synthetic import draw_faces
from tests.releases import describe
from tests.tasks.small_model import prepared_data, save_keras, save_tflite

pytestmark = pytest.mark.filterwarnings("ignore")
"""What Keras and the converter warn of is no subject here."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepared_data(tmp_path_factory.mktemp("golden") / "data", per_class=12)


@pytest.fixture(scope="module")
def model(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> TfliteModel:
    """A small network, trained on drawn faces until it tells some classes apart, as an INT8 file."""
    folder = tmp_path_factory.mktemp("golden")
    keras_path = save_keras(folder / "final_model.keras", data, epochs=10)
    return describe(save_tflite(folder / "model_int8.tflite", keras_path, data))


def test_every_class_of_a_trained_model_is_on_top_and_half_are_faces(
    model: TfliteModel,
) -> None:
    inputs, outputs = golden_set(model, 16)
    assert inputs.shape == (16, 48, 48, 1) and inputs.dtype == np.uint8
    assert outputs.shape == (16, 5) and outputs.dtype == np.uint8
    assert classes_on_top(outputs) == 5
    drawn, faces = draw_candidates(48, 1)
    known = {image.tobytes() for image in drawn[:faces]}
    assert sum(image.tobytes() in known for image in inputs) >= 8


def test_the_outputs_span_more_than_those_of_as_many_faces(model: TfliteModel) -> None:
    _, chosen = golden_set(model, 16)
    plain = quantized_outputs(model.path, draw_candidates(48, 1)[0][:16])

    def span(outputs: np.ndarray) -> int:
        return int(np.ptp(outputs.astype(int), axis=0).sum())

    def smallest_gap(outputs: np.ndarray) -> int:
        gaps = np.abs(outputs[:, None].astype(int) - outputs[None]).sum(2)
        return int(gaps[~np.eye(len(outputs), dtype=bool)].min())

    assert span(chosen) > 1.3 * span(plain)
    assert smallest_gap(chosen) > 2 * smallest_gap(plain)


def test_no_image_of_the_data_set_is_in_it(model: TfliteModel, data: PreparedData) -> None:
    theirs = {
        image.tobytes()
        for name in ("train", "val", "test")
        for image in np.asarray(load_split(data.directory, name).images)
    }
    inputs, _ = golden_set(model, 256)
    assert len(theirs) == 180 and len(inputs) == 256
    assert not theirs & {image.tobytes() for image in inputs}


def test_no_face_of_it_is_one_that_drawn_data_sets_begin_with() -> None:
    candidates, faces = draw_candidates(48, 1)
    ours = {image.tobytes() for image in candidates[:faces]}
    assert len(ours) == faces
    assert not any(ours & {image.tobytes() for image in draw_faces(4, seed)[0]} for seed in range(20))


def test_it_is_the_same_every_time(model: TfliteModel) -> None:
    (inputs, outputs), (again, answers) = golden_set(model, 16), golden_set(model, 16)
    assert np.array_equal(inputs, again) and np.array_equal(outputs, answers)
    assert not np.array_equal(draw_candidates(48, 1)[0], draw_candidates(48, 1, batch=1)[0])


@pytest.mark.parametrize(("px", "channels"), [(48, 1), (100, 3)])
def test_candidates_have_the_models_own_size_and_channels_and_reach_both_ends(px: int, channels: int) -> None:
    candidates, faces = draw_candidates(px, channels)
    assert candidates.shape[1:] == (px, px, channels) and candidates.dtype == np.uint8
    assert 100 < faces < len(candidates) < 1000
    means = candidates.mean((1, 2, 3))
    assert means.min() == 0 and means.max() == 255
    if channels == 3:  # a device that swaps channels must give itself away
        assert np.mean(np.any(candidates[..., 0] != candidates[..., 2], axis=(1, 2))) > 0.9


def test_of_equal_answers_one_is_kept_for_each_class_then_the_farthest() -> None:
    answers = np.array([[200, 0], [255, 0], [130, 125], [0, 90], [120, 130]], np.uint8)
    assert spread(answers, faces=5, count=2).tolist() == [1, 3]
    assert spread(answers, faces=5, count=3).tolist() == [1, 2, 3]
    assert spread(answers, faces=5, count=99).tolist() == [0, 1, 2, 3, 4]
    assert spread(answers, faces=0, count=1).tolist() == [1]


def test_half_are_faces_even_where_others_are_farther_apart() -> None:
    answers = np.zeros((20, 2), np.uint8)
    answers[:10, 0] = np.arange(100, 110)
    answers[10:, 0] = np.arange(110, 210, 10)
    chosen = spread(answers, faces=10, count=8)
    assert sum(one < 10 for one in chosen) == 4 and len(set(chosen.tolist())) == 8


def test_a_model_that_always_says_the_same_still_gets_a_golden_set() -> None:
    answers = np.full((6, 5), [0, 9, 0, 0, 0], np.uint8)
    assert len(spread(answers, faces=3, count=4)) == 4
