"""Random changes to a training batch: one affine warp per image, brightness, contrast, an erased rectangle,
and what a camera makes of it (`tasks.train.cameras`).

In and out: images uint8 (B, P, P, C) and labels float32 (B, 5). The warp runs at the images' own
resolution, before the network enlarges them: 48x48 pixels instead of 160x160x3, for the whole batch
in one operation. The result is rounded to uint8, so that the network only ever sees what a camera gives.
"""

import math

from tasks.config.train import AugmentationConfig
from tasks.train.cameras import photograph

_ERASED = (0.06, 0.225)
"""Half sides of an erased rectangle, share of the image's side."""


def augment(images, labels, config: AugmentationConfig, seed):
    """Change a batch at random; `seed` int64 (2,) decides all of it."""
    import tensorflow as tf

    if not config.enabled:
        return images, labels
    seeds = tf.unstack(tf.random.split(seed, 10), num=10)
    x = tf.cast(images, tf.float32)
    x = tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=_warps(images.shape[0], images.shape[1], config, seeds[:5]),
        output_shape=images.shape[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    x *= _uniform((images.shape[0], 1, 1, 1), config.brightness_share, seeds[5]) + 1
    if config.contrast_share:
        x = (x - 127.5) * (_uniform((images.shape[0], 1, 1, 1), config.contrast_share, seeds[7]) + 1) + 127.5
    if config.erasing_share:
        x = _erase(x, config.erasing_share, seeds[8])
    x = photograph(x, config, seeds[9])
    if config.mixup_alpha:
        x, labels = _mixup(x, labels, config.mixup_alpha, seeds[6])
    return tf.cast(tf.clip_by_value(tf.round(x), 0, 255), tf.uint8), labels


def _warps(count: int, px: int, config: AugmentationConfig, seeds):
    """Maps float32 (count, 8) from output to input: x' = a0·x + a1·y + a2, y' = a3·x + a4·y + a5."""
    import tensorflow as tf

    angle = _uniform((count,), math.radians(config.rotation_degrees), seeds[0])
    zoom = 1 / (1 + _uniform((count,), config.zoom_share, seeds[1]))
    shift_x = _uniform((count,), config.shift_share * px, seeds[2])
    shift_y = _uniform((count,), config.shift_share * px, seeds[3])
    mirror = tf.ones((count,))
    if config.horizontal_flip:
        mirror = tf.where(tf.random.stateless_uniform((count,), seeds[4]) < 0.5, -1.0, 1.0)
    centre = (px - 1) / 2
    a0, a1 = zoom * tf.cos(angle) * mirror, -zoom * tf.sin(angle)
    a3, a4 = zoom * tf.sin(angle) * mirror, zoom * tf.cos(angle)
    a2 = centre - a0 * centre - a1 * centre + shift_x
    a5 = centre - a3 * centre - a4 * centre + shift_y
    return tf.stack([a0, a1, a2, a3, a4, a5, tf.zeros((count,)), tf.zeros((count,))], axis=1)


def _uniform(shape: tuple[int, ...], extent: float, seed):
    """Values in ± extent."""
    import tensorflow as tf

    return tf.random.stateless_uniform(shape, seed, -1.0, 1.0) * extent


def _erase(x, share: float, seed):
    """Zhong et al., 2017: a share of the images gets a rectangle of one grey, 0.12 to 0.45 px a side."""
    import tensorflow as tf

    count, px = x.shape[0], x.shape[1]
    place, size, chosen, grey = tf.unstack(tf.random.split(seed, 4), num=4)
    centre = tf.random.stateless_uniform((2, count, 1), place, 0, px)
    half = tf.random.stateless_uniform((2, count, 1), size, _ERASED[0] * px, _ERASED[1] * px)
    rows, columns = tf.unstack(tf.abs(tf.range(px, dtype=tf.float32) - centre) < half)
    hit = tf.random.stateless_uniform((count, 1, 1), chosen) < share
    inside = (rows[:, :, None] & columns[:, None, :] & hit)[..., None]
    return tf.where(inside, tf.random.stateless_uniform((count, 1, 1, 1), grey, 0, 255), x)


def _mixup(x, labels, alpha: float, seed):
    """Zhang et al., 2017: each image blended with the reversed batch, by shares from Beta(alpha, alpha)."""
    import tensorflow as tf

    first, second = tf.unstack(tf.random.split(seed, 2), num=2)
    g1 = tf.random.stateless_gamma((x.shape[0],), first, tf.constant(alpha))
    g2 = tf.random.stateless_gamma((x.shape[0],), second, tf.constant(alpha))
    share = tf.math.divide_no_nan(g1, g1 + g2)
    share = tf.maximum(share, 1 - share)
    blend = share[:, None, None, None]
    x = blend * x + (1 - blend) * tf.reverse(x, [0])
    labels = share[:, None] * labels + (1 - share[:, None]) * tf.reverse(labels, [0])
    return x, labels
