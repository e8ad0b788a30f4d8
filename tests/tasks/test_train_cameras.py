"""What a camera makes of training images: drawn for each, as strong as said, the labels left alone."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tasks.classes import CLASSES
from tasks.synthetic import draw_faces
from tasks.train import AugmentationConfig

STILL = AugmentationConfig(
    rotation_degrees=0, shift_share=0, zoom_share=0, brightness_share=0, horizontal_flip=False
)
EVERYTHING = {
    f"{name}_share": 1.0
    for name in ("blur", "low_resolution", "noise", "sharpening", "jpeg", "gamma", "dark")
}


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """uint8 (80, 48, 48, 1)"""
    return draw_faces(16, seed=3)[0]


def _through(images: np.ndarray, *, seed: int = 7, **options: float) -> np.ndarray:
    import tensorflow as tf

    from tasks.train.augmentation import augment

    votes = tf.one_hot(np.arange(len(images)) % 5, 5)
    config = STILL.model_copy(update=options)
    changed, labels = augment(tf.constant(images), votes, config, tf.constant([seed, 0], tf.int64))
    assert np.array_equal(labels, votes)
    return changed.numpy()


def _sharpness(images: np.ndarray) -> np.ndarray:
    """The Laplacian's deviation over the image's, an image."""
    x = images[..., 0].astype(float)
    return ndimage.laplace(x, axes=(1, 2)).std((1, 2)) / x.std((1, 2))


def _mean(images: np.ndarray) -> np.ndarray:
    return images.astype(float).mean((1, 2, 3))


@pytest.mark.parametrize(
    ("options", "sharper"),
    [
        ({"blur_share": 1.0}, -1),
        ({"low_resolution_share": 1.0}, -1),
        ({"noise_share": 1.0}, 1),
        ({"sharpening_share": 1.0}, 1),
    ],
)
def test_blur_softens_noise_and_sharpening_roughen_and_the_mean_stays(
    faces: np.ndarray, options: dict[str, float], sharper: int
) -> None:
    changed = _through(faces, seed=7, **options)
    change = (_sharpness(changed) - _sharpness(faces)) * sharper
    assert (change > -0.01).all() and np.median(change) > 0.03
    assert np.abs(_mean(changed) - _mean(faces)).max() < 2.5


@pytest.mark.parametrize("share", EVERYTHING)
def test_a_share_of_the_images_is_chosen_and_the_others_stay_to_the_last_bit(
    faces: np.ndarray, share: str
) -> None:
    changed = _through(faces, seed=7, **{share: 0.5})
    same = (changed == faces).all((1, 2, 3))
    assert 20 < same.sum() < 60


def test_each_image_is_drawn_on_its_own_and_anew_at_its_next_turn(faces: np.ndarray) -> None:
    twins = np.repeat(faces[:1], 64, axis=0)
    changed = _through(twins, blur_share=1.0)
    assert len(np.unique(np.round(_sharpness(changed), 3))) > 32
    assert not np.array_equal(changed, _through(twins, seed=8, blur_share=1.0))
    assert np.array_equal(changed, _through(twins, blur_share=1.0))


def test_every_class_gets_the_same(faces: np.ndarray) -> None:
    _, labels = draw_faces(16, seed=3)
    many = np.tile(faces, (10, 1, 1, 1))
    changed = (_through(many, blur_share=0.5) != many).any((1, 2, 3)).reshape(10, -1).mean(0)
    shares = [changed[labels == place].mean() for place in range(len(CLASSES))]
    assert min(shares) > 0.35 and max(shares) < 0.65


def test_blurs_are_gaussian() -> None:
    import tensorflow as tf

    from tasks.train.cameras import blurring

    image = np.random.default_rng(1).uniform(0, 255, (48, 48))
    for sigma in (0.5, 1.0, 1.8):
        matrix = blurring(tf.constant([sigma], tf.float32), 48)[0].numpy()
        ours, theirs = matrix @ image @ matrix.T, ndimage.gaussian_filter(image, sigma, truncate=8)
        # next to the edge they differ in what lies beyond it
        np.testing.assert_allclose(ours[8:-8, 8:-8], theirs[8:-8, 8:-8], atol=0.01)


def test_half_the_pixels_are_means_of_four_enlarged_again() -> None:
    import tensorflow as tf

    from tasks.train.cameras import coarsening

    image = np.random.default_rng(1).uniform(0, 255, (48, 48)).astype(np.float32)
    matrix = coarsening(tf.constant([2.0]), 48)[0].numpy()
    small = Image.fromarray(image).resize((24, 24), Image.Resampling.BOX)
    theirs = np.asarray(small.resize((48, 48), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(matrix @ image @ matrix.T, theirs, atol=0.01)


def test_lengths_grow_with_the_image() -> None:
    px, dot = 96, np.zeros((64, 96, 96, 1), np.uint8)
    dot[:, px // 2, px // 2] = 255
    peaks = _through(dot, blur_share=1.0, blur_px=1.0).max((1, 2, 3)) / 255
    # a Gaussian of deviation s has its peak at 1 / (2 pi s^2); deviations of 0.5 to 2 pixels of 96
    assert 0.035 < peaks.min() < 0.05 and 0.3 < peaks.max() < 0.65


def test_noise_reaches_its_levels_and_not_more() -> None:
    grey = np.full((64, 48, 48, 1), 128, np.uint8)
    deviations = _through(grey, noise_share=1.0, noise_levels=12).std((1, 2, 3))
    assert deviations.min() < 2 and 10.5 < deviations.max() < 12.6


def test_gamma_and_darkness_stay_within_their_bounds() -> None:
    grey = np.full((128, 8, 8, 1), 64, np.uint8)
    bent = np.log(_through(grey, gamma_share=1.0, gamma_log=0.7)[:, 0, 0, 0] / 255) / np.log(64 / 255)
    assert 0.48 < bent.min() < 0.55 and 1.8 < bent.max() < 2.05
    darker = _through(grey, dark_share=1.0, dark_light=0.25)[:, 0, 0, 0]
    assert 16 <= darker.min() < 18 and 60 < darker.max() <= 64


@pytest.mark.parametrize("quality", [10, 30, 90])
def test_compression_is_jpegs_own(faces: np.ndarray, quality: int) -> None:
    import tensorflow as tf

    from tasks.train.cameras import jpeg

    x = tf.constant(faces.transpose(0, 3, 1, 2), tf.float32)
    ours = jpeg(x, tf.fill((len(faces),), float(quality)))[:, 0].numpy()
    for mine, face in zip(ours, faces, strict=True):
        file = io.BytesIO()
        Image.fromarray(face[..., 0]).save(file, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(file), float)  # rounded to bytes, ours not yet
        assert np.abs(np.clip(mine, 0, 255) - theirs).mean() < 0.8


def test_images_that_are_no_whole_blocks_are_compressed_too() -> None:
    faces = draw_faces(8, seed=2, px=44)[0]
    fine = np.abs(_through(faces, jpeg_share=1.0, jpeg_quality=94).astype(int) - faces).mean()
    coarse = np.abs(_through(faces, jpeg_share=1.0, jpeg_quality=5).astype(int) - faces).mean()
    assert 0.1 < fine < 2 < 2 * fine < coarse


def test_colour_is_photographed_channel_by_channel(faces: np.ndarray) -> None:
    colour = np.concatenate([faces[:27], faces[27:54], faces[53:80]], axis=-1)
    changed = _through(colour, blur_share=1.0)
    assert changed.shape == colour.shape
    alone = _through(np.ascontiguousarray(colour[..., 1:2]), blur_share=1.0)
    assert np.array_equal(changed[..., 1:2], alone)
    assert _through(colour, seed=7, **EVERYTHING).shape == colour.shape
