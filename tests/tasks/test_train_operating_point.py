"""Shifting the outputs towards classes that are found too rarely."""

import json

import numpy as np
import pytest

from tasks.classes import CLASS_OF_EMOTION, CLASSES
from tasks.prepare.splits import Split, load_split
from tasks.train import ModelConfig, OptimizerConfig, TrainConfig, operating_point, train
from tasks.train.networks import HEAD
from tasks.train.operating_point import Point, best_shift, choose_point
from tests.tasks.small_model import prepared_data


def _hesitant(rare: float, images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Images of two classes that are told apart well, though the second is never the likeliest."""
    labels = np.array([0] * 9 * images + [4] * images)
    second = np.where(labels == 4, rare, rare / 4)
    return np.stack([1 - second, *[np.full(10 * images, 1e-6)] * 3, second], axis=1), labels


def test_a_rare_class_that_is_told_apart_is_found_after_the_shift():
    probabilities, labels = _hesitant(rare=0.4)
    assert (probabilities.argmax(1) == 0).all()
    shift = best_shift(probabilities, labels, 0.01)
    assert ((np.log(probabilities) + shift).argmax(1) == labels).all()
    assert not shift[1:4].any()


def test_a_class_of_too_few_images_to_choose_by_stays_as_it_is():
    probabilities, labels = _hesitant(rare=0.4, images=199)
    shift = best_shift(probabilities, labels, 0.01)
    assert shift[4] == 0
    assert ((np.log(probabilities) + shift).argmax(1) == labels).all(), "the other class has enough and moves"
    few, few_labels = _hesitant(rare=0.4, images=20)
    assert not best_shift(few, few_labels, 0.01).any(), "no class has enough"


def test_which_classes_were_too_few_is_said():
    import keras

    probabilities, labels = _hesitant(rare=0.4, images=199)
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, "softmax", name=HEAD)])
    network.set_weights([np.eye(5), np.zeros(5)])
    logits = np.log(probabilities).astype(np.float32)
    rows = np.arange(len(labels))
    validation = Split(
        images=logits,
        labels=labels,
        **dict.fromkeys(("emotions", "sources", "ids", "augmented", "digests", "groups"), rows),
    )
    point = choose_point(network, validation, 0.01)
    assert point.held == ("stress", "sad", "happy", "fatigue")
    assert point.shift["neutral"] < 0 and point.after.recall["fatigue"] == 1


def test_no_more_accuracy_is_given_up_than_may_be():
    """Each of ten rare images costs one common one."""
    rng = np.random.default_rng(0)
    labels = np.array([0] * 800 + [2] * 200)
    rare = np.clip(rng.normal(np.where(labels == 2, 0.45, 0.3), 0.1), 0.01, 0.99)
    probabilities = np.stack([1 - rare, np.full(1000, 1e-6), rare, *[np.full(1000, 1e-6)] * 2], axis=1)
    costs, recalls = [], []
    for given_up in (0.0, 0.01, 0.05):
        answers = (np.log(probabilities) + best_shift(probabilities, labels, given_up)).argmax(1)
        costs.append((probabilities.argmax(1) == labels).mean() - (answers == labels).mean())
        recalls.append((answers[labels == 2] == 2).mean())
        assert costs[-1] <= given_up + 1e-9
    assert (
        recalls == sorted(recalls) and recalls[2] > recalls[1] > (probabilities[800:].argmax(1) == 2).mean()
    )


def test_no_shift_exceeds_its_bound_and_none_is_made_without_gain():
    labels = np.array([0] * 800 + [4] * 200)
    rare = np.where(labels == 4, np.linspace(0.001, 0.5, 1000), 1e-4)
    probabilities = np.stack([1 - rare, *[np.full(1000, 1e-6)] * 3, rare], axis=1)
    assert np.abs(best_shift(probabilities, labels, 0.2)).max() == pytest.approx(0.6)
    probabilities, labels = _hesitant(rare=1e-7)
    assert not best_shift(probabilities, labels, 0.2).any()
    sure = np.repeat(np.arange(5), 200)
    assert not best_shift(np.eye(5)[sure], sure, 0.01).any()


@pytest.mark.slow
@pytest.mark.parametrize("emotions", [False, True])
def test_the_kept_model_is_no_worse_on_validation_and_says_what_was_shifted(tmp_path, emotions, monkeypatch):
    monkeypatch.setattr(operating_point, "FEWEST_IMAGES", 20)
    data = prepared_data(tmp_path / "data", per_class=20)
    config = TrainConfig(
        model=ModelConfig(
            architecture="resnet_native", filters=(4, 4, 8, 8), blocks=(0, 1, 1, 1), emotions=emotions
        ),
        epochs=3,
        batch_size=10,
        optimizer=OptimizerConfig(learning_rate=0.01),
    )
    validation = load_split(data.directory, "val")
    assert train(data, config, tmp_path / "plain", report=lambda _: None).operating_point is None
    traded = config.model_copy(update={"accuracy_for_recall": 0.1})
    result = train(data, traded, tmp_path / "traded", report=lambda _: None)
    point = result.operating_point
    assert point is not None and any(point.shift.values()) and point.held == ()
    described = json.loads((result.directory / "model_config.json").read_bytes())["operating_point"]
    assert described == point.model_dump(mode="json") and point.given_up == 0.1
    network = _kept(result.model_path)
    _expect_figures(point.after, network, validation)
    shift = np.array(list(point.shift.values()))
    kernel, bias = network.get_layer(HEAD).get_weights()
    network.get_layer(HEAD).set_weights(
        [kernel, bias - (shift[list(CLASS_OF_EMOTION)] if emotions else shift)]
    )
    _expect_figures(point.before, network, validation)
    assert point.after.macro_recall > point.before.macro_recall
    assert point.after.accuracy >= point.before.accuracy - 0.1


def _kept(path):
    import keras

    return keras.models.load_model(path)


def _expect_figures(point: Point, network, validation: Split) -> None:
    """The point says what the network does on these images, but for a tie that rounding may decide."""
    answers = network.predict(validation.images, batch_size=256, verbose=0).argmax(1)
    right = answers == validation.labels
    assert point.accuracy == pytest.approx(right.mean(), abs=1.5 / len(right))
    for place, name in enumerate(CLASSES):
        mine, answered = validation.labels == place, answers == place
        assert point.recall[name] == pytest.approx(right[mine].mean(), abs=1.5 / mine.sum())
        if answered.sum() > 1:
            assert point.precision[name] == pytest.approx(right[answered].mean(), abs=1.5 / answered.sum())
    assert point.macro_recall == pytest.approx(np.mean([point.recall[name] or 0.0 for name in CLASSES]))
