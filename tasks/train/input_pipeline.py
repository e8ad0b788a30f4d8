"""Batches for `fit`, made from images that stay uint8 in memory.

Out: (images uint8 (B, P, P, C), labels float32 (B, 5), or (B, 8) by emotion), with class weights also weights
float32 (B,).
Every batch is a function of (seed, epoch, step) alone: a run that was killed sees, from its next epoch on,
the very batches that an uninterrupted one sees.

Rare classes are drawn more often. Whatever is drawn is an original and goes through the same alterations, so
that nothing in an image tells that its class is rare.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.classes import CLASS_OF_EMOTION, CLASSES
from tasks.config.prepare import Drawing
from tasks.config.train import TrainConfig
from tasks.prepare.augment import drawn_of
from tasks.train.augmentation import augment

if TYPE_CHECKING:
    import tensorflow as tf

EVERY_IMAGE = Drawing()
_VALIDATION_BATCH = 256


class LabelledImages(Protocol):
    """What training takes of a `Split`."""

    @property
    def images(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def votes(self) -> np.ndarray: ...
    @property
    def emotions(self) -> np.ndarray: ...


def count_steps(images: int, batch_size: int) -> int:
    """Steps per epoch: only whole batches, at least one; which images are left out changes every epoch."""
    return max(1, images // batch_size)


def count_drawn(labels: np.ndarray, drawing: Drawing) -> np.ndarray:
    """How many images of each class an epoch draws, int64 (5,)."""
    return drawn_of(np.bincount(labels, minlength=len(CLASSES)), drawing)


def training_batches(
    split: LabelledImages, config: TrainConfig, first_epoch: int = 0, drawing: Drawing = EVERY_IMAGE
) -> "tf.data.Dataset[tuple[tf.Tensor, ...]]":
    """All batches from `first_epoch` to the last one, shuffled anew in every epoch, augmented, in one row.

    An epoch draws each class as `drawing` says, and over the epochs the images of a class alike often.
    """
    import tensorflow as tf

    images, targets = tf.constant(split.images), tf.constant(targets_of(split, config))
    drawn = int(count_drawn(split.labels, drawing).sum())
    batch_size = min(config.batch_size, drawn)
    steps = count_steps(drawn, batch_size)
    # the type checker's stubs of TensorFlow leave `experimental` out
    random: Any = tf.random
    weights = _weights_as_drawn(split, config, drawing)
    order = _order(split.labels, drawing)

    def batch(number: Any) -> tuple[tf.Tensor, ...]:
        epoch, step = number // steps, number % steps
        places = random.experimental.index_shuffle(
            step * batch_size + tf.range(batch_size, dtype=tf.int64),
            seed=tf.stack([tf.constant(config.seed, tf.int64), epoch]),
            max_index=tf.constant(drawn - 1, tf.int64),
        )
        rows = order(epoch, places)
        x, y = tf.gather(images, rows), tf.gather(targets, rows)
        x, y = augment(x, y, config.augmentation, seed=tf.stack([tf.constant(config.seed, tf.int64), number]))
        return (x, y) if weights is None else (x, y, tf.linalg.matvec(y, tf.constant(weights)))

    numbers = tf.data.Dataset.range(first_epoch * steps, config.epochs * steps)
    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _order(labels: np.ndarray, drawing: Drawing) -> "Callable[[tf.Tensor, tf.Tensor], tf.Tensor]":
    """A function from an epoch and places int64 (B,) in it, before they are shuffled, to image numbers (B,).

    A class's images stand in a ring, from which each epoch takes on where the last one ended: over the
    epochs no image of a class is drawn more than once more than another.
    """
    import tensorflow as tf

    by_class = tf.constant(np.argsort(labels, kind="stable"), tf.int64)
    there = np.bincount(labels, minlength=len(CLASSES))
    drawn = count_drawn(labels, drawing)
    ends = tf.constant(np.cumsum(drawn), tf.int64)
    first = tf.constant(np.cumsum(there) - there, tf.int64)
    ring, length = tf.constant(np.maximum(there, 1), tf.int64), tf.constant(drawn, tf.int64)

    def rows(epoch: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        label = tf.searchsorted(ends, places, side="right")
        each = tf.gather(length, label)
        turn = epoch * each + places - (tf.gather(ends, label) - each)
        return tf.gather(by_class, tf.gather(first, label) + turn % tf.gather(ring, label))

    return rows


def targets_of(split: LabelledImages, config: TrainConfig) -> np.ndarray:
    """What the network is to answer, float32 (N, 8) or (N, 5): see `ModelConfig.emotions`."""
    return (split.emotions if config.model.emotions else split.votes).astype(np.float32)


def validation_batches(
    split: LabelledImages, config: TrainConfig
) -> "tf.data.Dataset[tuple[tf.Tensor, ...]]":
    """Validation images as they are, in order."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((split.images, targets_of(split, config)))
    return data.batch(_VALIDATION_BATCH).prefetch(tf.data.AUTOTUNE)


def _weights_as_drawn(split: LabelledImages, config: TrainConfig, drawing: Drawing) -> np.ndarray | None:
    """`class_weights` of an epoch's images, one for each output; None where every image counts the same."""
    power = config.class_weights
    if not power:
        return None
    there = np.maximum(np.bincount(split.labels, minlength=len(CLASSES)), 1)
    times = (count_drawn(split.labels, drawing) / there)[split.labels]
    weights = class_weights(split.votes * times[:, None], power)
    return weights[list(CLASS_OF_EMOTION)] if config.model.emotions else weights


def class_weights(votes: np.ndarray, power: float) -> np.ndarray:
    """Weights float32 (5,), mean 1 over the images: each class's share to the power of minus `power`.

    With a power of 1 every class counts the same. An absent class gets 0.
    """
    totals = votes.sum(axis=0)
    weights = np.where(totals > 0, np.maximum(totals, 1e-9) ** -power, 0)
    return (weights * totals.sum() / (weights @ totals)).astype(np.float32)
