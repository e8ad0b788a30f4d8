"""Batch-norm statistics of the network as it will be used."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.prepare.splits import Split, load_split
from tasks.train import ModelConfig, TrainConfig, train
from tasks.train.batch_norm import new_statistics
from tasks.train.networks import build_network
from tests.tasks.small_model import prepared_data

NATIVE = ModelConfig(architecture="resnet_native", filters=(4, 4, 8, 8), blocks=(0, 1, 1, 1), dropout=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_data(tmp_path_factory.mktemp("batch_norm") / "data", per_class=12)


@pytest.fixture(scope="module")
def split(data):
    return load_split(data.directory, "train")


def _estimated(model: ModelConfig, split: Split):
    """A random network with statistics of `split`, and its weights before."""
    network = build_network(model, 48, 1)
    estimate = new_statistics(TrainConfig(model=model), split)
    before = network.get_weights()
    network.set_weights(estimate(before))
    return network, before


def test_over_all_images_at_once_the_network_in_use_answers_as_it_does_while_training(split):
    network, _ = _estimated(NATIVE.model_copy(update={"dropout": 0.0}), split)
    in_use, training = (np.asarray(network(split.images, training=mode)) for mode in (False, True))
    # Keras divides by the deviation in float32, fused in one mode and not in the other
    np.testing.assert_allclose(in_use, training, atol=1e-4)
    fresh = build_network(NATIVE, 48, 1)
    assert np.abs(fresh(split.images, training=False) - fresh(split.images, training=True)).max() > 0.01


def test_weights_that_learn_stay_as_they_are(split):
    network, before = _estimated(NATIVE, split)
    learning = {id(variable) for variable in network.trainable_variables}
    same = [np.array_equal(variable, old) for variable, old in zip(network.weights, before, strict=True)]
    assert same == [id(variable) in learning for variable in network.weights]


def test_several_batches_give_the_statistics_of_all_images(split):
    many = replace(split, **{name: np.concatenate([getattr(split, name)] * 9) for name in vars(split)})
    network, _ = _estimated(NATIVE, many)
    scale, convolution, batch_norm = network.layers[1:4]
    values = convolution(scale(many.images.astype(np.float32)))
    np.testing.assert_allclose(batch_norm.moving_mean, np.mean(values, axis=(0, 1, 2)), atol=0.01)


def test_augmented_images_are_left_out(split):
    noise = np.random.default_rng(0).integers(0, 256, split.images.shape, np.uint8)
    filled = Split(
        **{
            name: np.concatenate([values, noise if name == "images" else values])
            for name, values in vars(split).items()
        }
    )
    filled.augmented[len(noise) :] = True
    before = build_network(NATIVE, 48, 1).get_weights()
    config = TrainConfig(model=NATIVE)
    ours, theirs = (new_statistics(config, one)(before) for one in (filled, split))
    assert all(np.allclose(mine, other, atol=1e-5) for mine, other in zip(ours, theirs, strict=True))


def test_frozen_layers_keep_their_statistics(split):
    frozen = ModelConfig(input_px=32, weights="none", trainable_layers=0)
    network, before = _estimated(frozen, split)
    changed = {
        variable.path.split("/")[0]
        for variable, old in zip(network.weights, before, strict=True)
        if not np.array_equal(variable, old)
    }
    assert len(changed) == 2 and all(name.startswith("batch_normalization") for name in changed)


def test_a_network_that_learns_rounded_gets_the_statistics_that_it_would_have_unrounded(split):
    aware = ModelConfig(input_px=32, weights="none", quantization_aware=True)
    before = build_network(aware, 48, 1).get_weights()
    plain = aware.model_copy(update={"quantization_aware": False})
    ours, theirs = (new_statistics(TrainConfig(model=one), split)(before) for one in (aware, plain))
    assert all(np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    with pytest.raises(ValueError, match="batch_norm_images must be at least 1, got 0"):
        TrainConfig(model=aware, batch_norm_images=0)


@pytest.mark.slow
def test_training_goes_its_way_untouched_and_validation_is_of_the_model_that_is_kept(data, tmp_path):
    import keras

    results = []
    for images in (0, 64):
        config = TrainConfig(model=NATIVE, epochs=2, batch_size=20, batch_norm_images=images)
        results.append(train(data, config, tmp_path / str(images), report=lambda _: None))
    plain, fresh = results
    assert plain.history["loss"] == fresh.history["loss"]
    assert plain.history["val_loss"] != fresh.history["val_loss"]
    validation = load_split(data.directory, "val")
    for result in results:
        kept = keras.models.load_model(result.model_path)
        likely = kept.predict(validation.images, verbose=0)[
            np.arange(len(validation.labels)), validation.labels
        ]
        assert -np.log(likely).mean() == pytest.approx(
            result.history["val_loss"][result.best_epoch - 1], rel=1e-3
        )
