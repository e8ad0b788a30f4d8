"""What cameras make of a picture, drawn anew for every image: light, lens, sensor, noise, sharpening, JPEG.

In and out: images float32 (B, P, P, C), 0 to 255. Lengths are in pixels of an image of 48 and grow with P.
Blur and lower resolution are linear along rows and columns, so each image gets one matrix (P, P) of its own
for both, applied from the left and, transposed, from the right: products of small matrices for the whole
batch. An image that isn't chosen keeps its values to the last bit but for gamma's, which is rounded away.
"""

from typing import Any

import numpy as np

from tasks.config.train import AugmentationConfig

Tensor = Any
"""TensorFlow's. Its stubs know no side of it to be a number."""
_SHARPENING_PX = 1.0
_BEST_QUALITY = 95
_LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
"""Quantisation of the cosines of a block of 8 by 8 pixels, ITU-T T.81, table K.1."""


def photograph(images: Tensor, config: AugmentationConfig, seed: Tensor) -> Tensor:
    """Each image as some camera might give it; `seed` int64 (2,) decides which. Shares of 0 are exact."""
    import tensorflow as tf

    light, lens, noise, sharpening, jpeg = tf.unstack(tf.random.split(seed, 5), num=5)
    x: Tensor = tf.transpose(images, (0, 3, 1, 2))
    if config.gamma_share or config.dark_share:
        x = _expose(x, config, light)
    if config.blur_share or config.low_resolution_share:
        x = _on_both_sides(_lenses(x.shape[0], x.shape[2], config, lens), x)
    if config.noise_share:
        x = _add_noise(x, config, noise)
    if config.sharpening_share:
        x = _sharpen(x, config, sharpening)
    if config.jpeg_share:
        x = _compress(x, config, jpeg)
    return tf.transpose(x, (0, 2, 3, 1))


def _draw(count: int, share: float, low: float, high: float, otherwise: float, seed: Tensor) -> Tensor:
    """float32 (count,): `otherwise`, but for a share of the images uniform in low … high."""
    import tensorflow as tf

    chosen, strength = tf.unstack(tf.random.split(seed, 2), num=2)
    values = tf.random.stateless_uniform((count,), strength, low, high)
    return tf.where(tf.random.stateless_uniform((count,), chosen) < share, values, otherwise)


def _expose(x: Tensor, config: AugmentationConfig, seed: Tensor) -> Tensor:
    """Less light, and another gamma. Light is drawn on a logarithmic scale, as stops are."""
    import tensorflow as tf

    seeds = tf.unstack(tf.random.split(seed, 2), num=2)
    count = x.shape[0]
    stops = _draw(count, config.dark_share, float(np.log(config.dark_light)), 0.0, 0.0, seeds[0])
    extent = config.gamma_log
    exponent = tf.exp(_draw(count, config.gamma_share, -extent, extent, 0.0, seeds[1]))
    light, exponent = tf.exp(stops)[:, None, None, None], exponent[:, None, None, None]
    return 255 * light * (tf.clip_by_value(x, 0, 255) / 255) ** exponent


def _lenses(count: int, px: int, config: AugmentationConfig, seed: Tensor) -> Tensor:
    """Matrices float32 (count, px, px): out of focus, then seen by fewer pixels, then enlarged."""
    import tensorflow as tf

    blur, resolution = tf.unstack(tf.random.split(seed, 2), num=2)
    largest = config.blur_px * px / 48
    matrices = blurring(_draw(count, config.blur_share, largest / 4, largest, 0.0, blur), px)
    if config.low_resolution_share:
        coarsest = 1 / config.low_resolution_side
        cells = _draw(count, config.low_resolution_share, 1.0, coarsest, 1.0, resolution)
        matrices = tf.matmul(coarsening(cells, px), matrices)
    return matrices


def blurring(sigmas: Tensor, px: int) -> Tensor:
    """Gaussians of such deviations (B,), pixels, as matrices (B, px, px); each row of weights sums to 1."""
    import tensorflow as tf

    places = tf.range(px, dtype=tf.float32)
    distance = (places[:, None] - places) / tf.maximum(sigmas, 1e-3)[:, None, None]
    weights = tf.exp(-0.5 * distance**2)
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


def coarsening(cells: Tensor, px: int) -> Tensor:
    """Means over cells of so many pixels (B,), enlarged again bilinearly, as matrices (B, px, px)."""
    import tensorflow as tf

    width, places = cells[:, None, None], tf.range(px, dtype=tf.float32)
    start = places[:, None] * width
    overlap = tf.minimum(start + width, places + 1) - tf.maximum(start, places)
    overlap = tf.maximum(overlap, 0.0)
    means = tf.math.divide_no_nan(overlap, tf.reduce_sum(overlap, axis=2, keepdims=True))
    last = tf.math.ceil(px / width - 1e-4) - 1
    centres = tf.clip_by_value((places[:, None] + 0.5) / width - 0.5, 0.0, last)
    return tf.matmul(tf.maximum(0.0, 1 - tf.abs(centres - places)), means)


def _on_both_sides(matrices: Tensor, x: Tensor) -> Tensor:
    """M·x·Mᵀ for matrices (B, P, P), or one (P, P), and images (B, C, P, P).

    Not tf.matmul, which would repeat one matrix for the batch: while bfloat16 layers learn beside it, that
    product (oneDNN, TensorFlow 2.21) turns their loss into NaN within some batches.
    """
    import tensorflow as tf

    each = "b" if len(matrices.shape) == 3 else ""
    return tf.einsum(f"{each}ij,bcjk,{each}lk->bcil", matrices, x, matrices)


def _add_noise(x: Tensor, config: AugmentationConfig, seed: Tensor) -> Tensor:
    import tensorflow as tf

    strength, noise = tf.unstack(tf.random.split(seed, 2), num=2)
    sigmas = _draw(x.shape[0], config.noise_share, 0.0, config.noise_levels, 0.0, strength)
    return x + tf.random.stateless_normal(x.shape, noise) * sigmas[:, None, None, None]


def _sharpen(x: Tensor, config: AugmentationConfig, seed: Tensor) -> Tensor:
    """Unsharp masking: what a blur takes away is added once more."""
    px = x.shape[2]
    strength = _draw(x.shape[0], config.sharpening_share, 0.0, config.sharpening_strength, 0.0, seed)
    soft = _on_both_sides(blurring(np.array([_SHARPENING_PX * px / 48], np.float32), px)[0], x)
    return x + strength[:, None, None, None] * (x - soft)


def _compress(x: Tensor, config: AugmentationConfig, seed: Tensor) -> Tensor:
    import tensorflow as tf

    quality = _draw(x.shape[0], config.jpeg_share, config.jpeg_quality, _BEST_QUALITY, 0.0, seed)
    return tf.where(quality[:, None, None, None] > 0, jpeg(x, tf.maximum(quality, 1.0)), x)


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Cosines of blocks of 8 by 8 pixels, rounded as JPEG rounds luminance (every channel alike).

    Images (B, C, P, P), qualities float32 (B,), 1 to 100, by the Independent JPEG Group's scale.
    """
    import tensorflow as tf

    px = x.shape[2]
    blocks = -(-px // 8)
    scale = tf.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None]
    table = np.tile(_LUMINANCE, (blocks, blocks)).astype(np.float32)
    steps = tf.clip_by_value(tf.floor((table * scale + 50) / 100), 1, 255)
    cosines = tf.constant(np.kron(np.eye(blocks), _cosines()), tf.float32)
    margins = ((0, 0), (0, 0), (0, 8 * blocks - px), (0, 8 * blocks - px))
    padded = tf.pad(tf.clip_by_value(x, 0, 255) - 128, margins, "SYMMETRIC")
    rounded = tf.round(_on_both_sides(cosines, padded) / steps) * steps
    return _on_both_sides(tf.transpose(cosines), rounded)[..., :px, :px] + 128


def _cosines() -> np.ndarray:
    """The orthonormal discrete cosine transform of 8 values, float64 (8, 8)."""
    waves = np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(8) + 1) / 16) / 2
    waves[0] /= np.sqrt(2)
    return waves
