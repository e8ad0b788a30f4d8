"""Shifting the outputs towards classes that are found too rarely."""

import json

import numpy as np
import pytest

from tasks.classes import CLASSES
from tasks.prepare.splits import load_split
from tasks.train import ModelConfig, TrainConfig, train
from tasks.train.balance import best_shift
from tests.tasks.small_model import prepared_data


def _hesitant(rare: float) -> tuple[np.ndarray, np.ndarray]:
    """Images of two classes that are told apart well, though the second is never the likeliest."""
    labels = np.array([0] * 90 + [4] * 10)
    second = np.where(labels == 4, rare, rare / 4)
    return np.stack([1 - second, *[np.full(100, 1e-6)] * 3, second], axis=1), labels


def test_a_rare_class_that_is_told_apart_is_found_after_the_shift():
    probabilities, labels = _hesitant(rare=0.3)
    assert (probabilities.argmax(1) == 0).all()
    shift = best_shift(probabilities, labels)
    assert ((np.log(probabilities) + shift).argmax(1) == labels).all()
    assert not shift[1:4].any()


def test_no_shift_exceeds_its_bound_and_none_is_made_without_gain():
    probabilities, labels = _hesitant(rare=1e-7)
    assert np.abs(best_shift(probabilities, labels)).max() <= 3.0001
    sure = np.eye(5)[[0, 1, 2, 3, 4]]
    assert not best_shift(sure, np.arange(5)).any()


@pytest.mark.slow
@pytest.mark.parametrize("emotions", [False, True])
def test_the_kept_model_is_no_worse_on_validation_and_says_what_was_shifted(tmp_path, emotions):
    data = prepared_data(tmp_path / "data", per_class=20)
    config = TrainConfig(
        model=ModelConfig(
            architecture="resnet_native", filters=(4, 4, 8, 8), blocks=(0, 1, 1, 1), emotions=emotions
        ),
        epochs=2,
        batch_size=20,
    )
    validation = load_split(data.directory, "val")
    scores, shifts = [], []
    for name, balanced in (("plain", False), ("balanced", True)):
        config = config.model_copy(update={"balance_outputs": balanced})
        result = train(data, config, tmp_path / name, report=lambda _: None)
        scores.append(_score(result.model_path, validation))
        shifts.append(json.loads((result.directory / "model_config.json").read_bytes())["output_shift"])
    assert set(shifts[0]) == set(CLASSES) and not any(shifts[0].values()) and any(shifts[1].values())
    assert scores[1] > scores[0]


def _score(path, split) -> float:
    import keras

    right = keras.models.load_model(path).predict(split.images, verbose=0).argmax(1) == split.labels
    return right.mean() + np.mean([right[split.labels == place].mean() for place in range(len(CLASSES))])
