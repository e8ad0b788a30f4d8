"""Batches for `fit`, made from images that stay uint8 in memory.

Out: (images uint8 (B, P, P, C), labels float32 (B, 5)), with class weights also weights float32 (B,).
Every batch is a function of (seed, epoch, step) alone: a run that was killed sees, from its next epoch on,
the very batches that an uninterrupted one sees.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.train.augmentation import augment
from tasks.train.config import TrainConfig

if TYPE_CHECKING:
    import tensorflow as tf

_VALIDATION_BATCH = 256


def count_steps(images: int, batch_size: int) -> int:
    """Steps per epoch: only whole batches, at least one; which images are left out changes every epoch."""
    return max(1, images // batch_size)


def training_batches(
    split, config: TrainConfig, first_epoch: int = 0
) -> "tf.data.Dataset[tuple[tf.Tensor, ...]]":
    """All batches from `first_epoch` to the last one, shuffled anew in every epoch, augmented, in one row.

    `split` holds images uint8 (N, P, P, C) and votes float32 (N, 5).
    """
    import tensorflow as tf

    images, votes = tf.constant(split.images), tf.constant(split.votes, tf.float32)
    batch_size = min(config.batch_size, len(split.images))
    steps = count_steps(len(split.images), batch_size)
    # the type checker's stubs of TensorFlow leave `experimental` out
    random: Any = tf.random
    weights = class_weights(split.votes, config.class_weights) if config.class_weights else None

    def batch(number: Any) -> tuple[tf.Tensor, ...]:
        epoch, step = number // steps, number % steps
        rows = random.experimental.index_shuffle(
            step * batch_size + tf.range(batch_size, dtype=tf.int64),
            seed=tf.stack([tf.constant(config.seed, tf.int64), epoch]),
            max_index=tf.constant(len(split.images) - 1, tf.int64),
        )
        x, y = tf.gather(images, rows), tf.gather(votes, rows)
        x, y = augment(x, y, config.augmentation, seed=tf.stack([tf.constant(config.seed, tf.int64), number]))
        return (x, y) if weights is None else (x, y, tf.linalg.matvec(y, tf.constant(weights)))

    numbers = tf.data.Dataset.range(first_epoch * steps, config.epochs * steps)
    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def validation_batches(split) -> "tf.data.Dataset[tuple[tf.Tensor, ...]]":
    """Validation images as they are, in order."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((split.images, split.votes.astype(np.float32)))
    return data.batch(_VALIDATION_BATCH).prefetch(tf.data.AUTOTUNE)


def class_weights(votes: np.ndarray, power: float) -> np.ndarray:
    """Weights float32 (5,), mean 1 over the images: each class's share to the power of minus `power`.

    With a power of 1 every class counts the same. An absent class gets 0.
    """
    totals = votes.sum(axis=0)
    weights = np.where(totals > 0, np.maximum(totals, 1e-9) ** -power, 0)
    return (weights * totals.sum() / (weights @ totals)).astype(np.float32)
