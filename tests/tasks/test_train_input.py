"""Batches: order, augmentation, soft labels and weights."""

from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.config.prepare import Drawing
from tasks.synthetic import draw_faces
from tasks.train import AugmentationConfig, ModelConfig, TrainConfig
from tasks.train.input_pipeline import class_weights, count_drawn, count_steps, training_batches
from tests.tasks.small_model import EMOTION_TARGETS

PLAIN = TrainConfig(augmentation=AugmentationConfig(enabled=False), batch_size=8, epochs=3)
STILL = {
    "rotation_degrees": 0,
    "shift_share": 0,
    "zoom_share": 0,
    "brightness_share": 0,
    "horizontal_flip": False,
}


@dataclass(frozen=True)
class Labelled:
    """What training takes of a split."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def emotions(self) -> np.ndarray:
        return EMOTION_TARGETS[self.labels]

    @property
    def votes(self) -> np.ndarray:
        return np.eye(5, dtype=np.float32)[self.labels]


def _numbered(labels: np.ndarray) -> Labelled:
    """Images that carry their own number, so that a batch can be traced back."""
    numbers = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return Labelled(np.broadcast_to(numbers, (len(labels), 4, 4, 1)).copy(), labels)


RARE = np.array([0] * 25 + [1] * 10 + [4] * 3)
"""25 images of a class, 10 and 3 of others, none of two."""


def _numbers(batches):
    return np.array([images.numpy()[:, 0, 0, 0] for images, *_ in batches])


def _augmented(images, **options):
    import tensorflow as tf

    from tasks.train.augmentation import augment

    votes = tf.one_hot(np.arange(len(images)) % 5, 5)
    config = AugmentationConfig(**{**STILL, **options})
    changed, labels = augment(tf.constant(images), votes, config, tf.constant([7, 0], tf.int64))
    return changed.numpy(), labels.numpy()


def test_every_epoch_shows_each_image_at_most_once_and_in_another_order():
    split = _numbered(np.arange(37) % 5)
    steps = count_steps(37, 8)
    epochs = _numbers(training_batches(split, PLAIN)).reshape(3, steps * 8)
    for epoch in epochs:
        assert len(set(epoch)) == 32
    assert not np.array_equal(epochs[0], epochs[1])
    assert set(epochs[0]) != set(epochs[1])


def test_an_epoch_draws_rare_classes_up_to_the_target_and_every_image_of_a_class_alike_often():
    split = _numbered(RARE)
    assert count_drawn(RARE, Drawing(20)).tolist() == [25, 20, 0, 0, 20]
    config = PLAIN.model_copy(update={"batch_size": 13})
    epochs = _numbers(training_batches(split, config, drawing=Drawing(20))).reshape(3, 65)
    for epoch in epochs:
        assert np.bincount(RARE[epoch]).tolist() == [25, 20, 0, 0, 20]
        times = np.bincount(epoch, minlength=38)
        assert set(times[:25]) == {1} and set(times[25:35]) == {2} and set(times[35:]) == {6, 7}
    assert np.bincount(epochs.ravel())[35:].tolist() == [20, 20, 20]


def test_equal_classes_are_drawn_down_by_another_part_in_every_epoch():
    split = _numbered(RARE)
    drawing = Drawing(10, equal=True)
    assert count_drawn(RARE, drawing).tolist() == [10, 10, 0, 0, 10]
    config = PLAIN.model_copy(update={"batch_size": 10, "epochs": 5})
    epochs = _numbers(training_batches(split, config, drawing=drawing)).reshape(5, 30)
    for epoch in epochs:
        assert np.bincount(RARE[epoch]).tolist() == [10, 10, 0, 0, 10]
    assert set(np.bincount(epochs.ravel())[:25]) == {2}


def test_what_is_drawn_again_is_altered_anew():
    images, _ = draw_faces(1, seed=0)
    split = Labelled(images[:1], np.zeros(1, int))
    config = TrainConfig(batch_size=8, epochs=1)
    [(drawn, _)] = training_batches(split, config, drawing=Drawing(8))
    assert len(np.unique(drawn.numpy(), axis=0)) == 8


def test_batches_from_an_epoch_on_are_the_very_ones_of_an_uninterrupted_run():
    images, labels = draw_faces(4, seed=0)
    split = Labelled(images[labels < 3], labels[labels < 3])
    config = TrainConfig(augmentation=AugmentationConfig(mixup_alpha=0.3), batch_size=8, epochs=3)
    whole = list(training_batches(split, config, drawing=Drawing(6)))[2 * 2 :]
    resumed = list(training_batches(split, config, first_epoch=2, drawing=Drawing(6)))
    assert len(whole) == len(resumed) == 2
    for one, other in zip(whole, resumed, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_data_set_smaller_than_a_batch_is_one_step():
    numbers = _numbers(training_batches(_numbered(np.arange(3)), PLAIN))
    assert numbers.shape == (3, 3) and set(numbers[0]) == {0, 1, 2}


def test_labels_stay_with_their_images():
    for images, votes in training_batches(_numbered(np.arange(37) % 5), PLAIN, drawing=Drawing(9)):
        assert np.array_equal(votes.numpy().argmax(1), images.numpy()[:, 0, 0, 0] % 5)


def test_nothing_configured_changes_nothing():
    images, _ = draw_faces(2, seed=0)
    changed, _ = _augmented(images)
    assert np.array_equal(changed, images)


def test_a_flip_mirrors_about_half_of_the_images_exactly():
    images, _ = draw_faces(8, seed=0)
    changed, _ = _augmented(images, horizontal_flip=True)
    same = [np.array_equal(a, b) for a, b in zip(changed, images, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(changed, images, strict=True)]
    assert all(one or other for one, other in zip(same, mirrored, strict=True))
    assert 8 < sum(mirrored) < 32


def _centroid(images):
    weights = images[..., 0].astype(float)
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    total = weights.sum((1, 2))
    return np.stack([(weights * rows).sum((1, 2)), (weights * columns).sum((1, 2))], 1) / total[:, None]


def _dots(count, row, column):
    images = np.zeros((count, 41, 41, 1), np.uint8)
    images[:, row - 1 : row + 2, column - 1 : column + 2] = 200
    return images


def test_shifts_stay_within_their_share_and_use_it():
    moved = _centroid(_augmented(_dots(64, 20, 20), shift_share=0.1)[0]) - 20
    assert 2.5 < np.abs(moved).max() <= 4.2


def test_rotation_turns_about_the_centre_within_its_angle():
    moved = _centroid(_augmented(_dots(64, 20, 34), rotation_degrees=15)[0]) - 20
    angles = np.degrees(np.arctan2(moved[:, 0], moved[:, 1]))
    assert 10 < np.abs(angles).max() < 15.5
    assert np.allclose(np.hypot(*moved.T), 14, atol=0.5)


def test_zoom_keeps_the_centre_and_its_share():
    moved = _centroid(_augmented(_dots(64, 20, 34), zoom_share=0.05)[0]) - 20
    assert np.allclose(moved[:, 0], 0, atol=0.1)
    assert 13.1 < moved[:, 1].min() < 13.9 and 14.1 < moved[:, 1].max() < 14.9


def test_brightness_multiplies_and_saturates():
    grey = np.full((64, 4, 4, 1), 100, np.uint8)
    factors = _augmented(grey, brightness_share=0.1)[0][:, 0, 0, 0] / 100
    assert 0.9 <= factors.min() < 0.94 and 1.06 < factors.max() <= 1.1
    assert _augmented(np.full_like(grey, 250), brightness_share=0.9)[0].max() == 255


def test_contrast_stretches_about_mid_grey():
    halves = np.full((64, 4, 4, 1), 100, np.uint8)
    halves[:, 2:] = 155
    changed = _augmented(halves, contrast_share=0.4)[0].astype(int)
    spread = changed[:, 3, 0, 0] - changed[:, 0, 0, 0]
    assert 33 <= spread.min() < 39 and 71 < spread.max() <= 77
    assert np.allclose(changed[:, 3, 0, 0] + changed[:, 0, 0, 0], 255, atol=1)


def test_erasing_paints_one_rectangle_over_about_its_share_of_images():
    images = np.full((400, 40, 40, 1), 77, np.uint8)
    changed = _augmented(images, erasing_share=0.5)[0][..., 0]
    erased = changed != 77
    hit = erased.any(axis=(1, 2))
    assert 150 < hit.sum() < 250
    for image, mask in zip(changed[hit], erased[hit], strict=True):
        sides = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == sides[0] * sides[1] and max(sides) <= 0.45 * 40 + 1
        assert len(np.unique(image[mask])) == 1


def test_mixup_blends_labels_by_the_shares_of_the_images():
    images = np.zeros((4, 4, 4, 1), np.uint8)
    images[2:] = 200
    changed, labels = _augmented(images, mixup_alpha=1.0)
    assert np.allclose(labels.sum(1), 1, atol=1e-5)
    own = labels[np.arange(4), np.arange(4)]
    expected = np.where(np.arange(4) < 2, (1 - own) * 200, own * 200)
    assert np.allclose(changed[:, 0, 0, 0], expected, atol=1)
    assert (own < 0.95).any()


def test_balanced_class_weights_make_every_class_count_the_same():
    votes = np.eye(5, dtype=np.float32)[[0] * 30 + [1] * 10 + [2] * 5 + [3] * 5]
    weights = class_weights(votes, 1.0)
    totals = votes.sum(0) * weights
    assert np.allclose(totals[:4], totals[0]) and weights[4] == 0
    assert (votes @ weights).mean() == pytest.approx(1)
    half = class_weights(votes, 0.5)
    assert half[1] / half[0] == pytest.approx(3**0.5) and (votes @ half).mean() == pytest.approx(1)
    split = Labelled(np.zeros((50, 4, 4, 1), np.uint8), votes.argmax(1))
    config = PLAIN.model_copy(update={"class_weights": 1.0})
    batch = next(iter(training_batches(split, config)))
    assert np.allclose(batch[2], batch[1].numpy() @ weights)
    filled = next(iter(training_batches(split, config, drawing=Drawing(30))))
    assert np.allclose(filled[2], 1)


def test_metrics_of_soft_labels_count_the_first_label_only():
    from tasks.train.metrics import new_metrics

    soft = np.array([[0.6, 0.4, 0, 0, 0], [0, 0.3, 0.7, 0, 0]], np.float32)
    sure = np.eye(5, dtype=np.float32)[[0, 2]]
    values = {}
    for metric in new_metrics():
        metric.update_state(soft, sure)
        values[metric.name] = float(metric.result())
    assert values == pytest.approx({"accuracy": 1, "precision": 1, "recall": 1, "auc": 1}, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"optimizer": {"learning_rate": 0.5}},
        {"model": {"dropout": 0.9}},
        {"model": {"architecture": "custom_light", "filters": (1, 2)}},
        {"model": {"blocks": (1, 0, 1, 1)}},
        {"model": {"blocks": (-1, 1, 1, 1)}},
        {"unknown": 1},
    ],
)
def test_a_hyperparameter_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainConfig(**wrong)


def test_the_documents_defaults_are_ours():
    config = TrainConfig()
    assert (config.epochs, config.batch_size, config.optimizer.learning_rate) == (50, 32, 0.001)
    assert (config.model.architecture, config.model.input_px, config.model.trainable_layers) == (
        "mobilenet_v3_small",
        160,
        30,
    )
    assert (config.model.dropout, config.model.l2, config.early_stopping_patience) == (0.3, 0.001, 10)
    assert ModelConfig(architecture="custom_light").channels_per_stage == (32, 64, 128, 256)
