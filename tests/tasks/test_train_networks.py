"""The architectures are those of the phase document, and start from the weights that they are told."""

import random

import keras
import numpy as np
import pytest

from storage.errors import ModelError
from storage.opening import open_store
from tasks.classes import EMOTIONS
from tasks.train import ModelConfig, TrainConfig
from tasks.train.networks import BACKBONE, HEAD, build_network, in_classes
from tasks.train.weights import set_start_weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

V3 = ModelConfig(architecture="mobilenet_v3_small", input_px=32, weights="none")


def _layers(network, kind):
    return [layer for layer in network._flatten_layers(include_self=False) if type(layer).__name__ == kind]


def test_mobilenet_v3_small_has_the_documents_head_and_thirty_trainable_backbone_layers():
    network = build_network(V3, image_px=48, channels=1)
    assert [layer.units for layer in _layers(network, "Dense")] == [256, 128, 5]
    assert [layer.rate for layer in _layers(network, "Dropout")] == [0.3, 0.2]
    assert [float(layer.kernel_regularizer.l2) for layer in _layers(network, "Dense")[:2]] == [
        pytest.approx(0.001)
    ] * 2
    backbone = network.get_layer(BACKBONE)
    assert backbone.input_shape == (None, 32, 32, 3)
    assert sum(layer.trainable for layer in backbone.layers[1:]) == 30  # the first is its input


def test_custom_light_has_the_documents_layers_and_filters():
    network = build_network(ModelConfig(architecture="custom_light"), image_px=48, channels=1)
    assert network.get_layer("to_rgb").output.shape == (None, 160, 160, 3)
    assert [layer.filters for layer in _layers(network, "SeparableConv2D")] == [64, 128, 256]
    assert [(layer.filters, layer.strides) for layer in _layers(network, "Conv2D")] == [(32, (2, 2))]
    assert len(_layers(network, "MaxPooling2D")) == 3
    assert [layer.units for layer in _layers(network, "Dense")] == [128, 5]


def test_resnet_native_is_five_blocks_of_plain_convolutions_at_the_images_own_size():
    network = build_network(ModelConfig(architecture="resnet_native"), image_px=48, channels=1)
    assert len(_layers(network, "Add")) == 5
    assert not _layers(network, "Resizing")
    assert 600_000 < network.count_params() < 750_000


def test_resnet_natives_first_stage_may_be_its_convolution_alone():
    config = ModelConfig(architecture="resnet_native", filters=(16, 48, 96, 192), blocks=(0, 1, 2, 1))
    network = build_network(config, image_px=48, channels=1)
    assert len(_layers(network, "Add")) == 4
    assert network.get_layer(index=-3).input.shape[1:] == (6, 6, 192)


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "custom_light", "resnet_native"])
def test_first_weights_and_dropout_follow_from_the_seed_whoever_else_draws_meanwhile(architecture):
    """Keras would take them from Python's `random`, which other threads draw from, too."""

    def drawn(seed, elsewhere):
        random.seed(elsewhere)
        network = build_network(
            ModelConfig(architecture=architecture, input_px=32, dropout=0.3), 48, 1, seed=seed
        )
        return [np.asarray(variable) for variable in network.variables]

    once, again, other = drawn(7, elsewhere=1), drawn(7, elsewhere=2), drawn(8, elsewhere=1)
    assert all(np.array_equal(*pair) for pair in zip(once, again, strict=True))
    differing = sum(not np.array_equal(*pair) for pair in zip(once, other, strict=True))
    random_ones = sum(len(np.unique(values)) > 1 or values.dtype == np.uint32 for values in once)
    assert differing == random_ones > 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", ["custom_light", "resnet_native"])
def test_every_network_takes_raw_bytes_and_gives_five_probabilities(architecture, channels):
    network = build_network(ModelConfig(architecture=architecture, input_px=64), 40, channels)
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, channels), np.uint8)
    answers = network.predict(images, verbose=0)
    assert answers.shape == (3, 5) and answers.dtype == np.float32
    assert np.allclose(answers.sum(1), 1, atol=1e-5)


def test_a_network_of_emotions_answers_with_the_sum_of_each_classes():
    config = ModelConfig(architecture="custom_light", input_px=32, emotions=True)
    inside = build_network(config, 48, 1)
    whole = in_classes(inside)
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8)
    apart, answers = inside.predict(images, verbose=0), whole.predict(images, verbose=0)
    assert apart.shape == (3, 8) and answers.shape == (3, 5)
    neutral, stress = [EMOTIONS.index(one) for one in ("neutral", "surprise")], slice(2, 5)
    assert np.allclose(answers[:, 0], apart[:, neutral].sum(1), atol=1e-6)
    assert np.allclose(answers[:, 1], apart[:, stress].sum(1), atol=1e-6)
    assert in_classes(whole) is whole


def test_scaling_before_enlarging_gives_what_the_document_asks_for():
    import keras

    network = build_network(V3.model_copy(update={"input_px": 64}), 48, 1)
    seen = keras.Model(network.input, network.get_layer("to_rgb").output)
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 1), np.uint8)
    enlarged = keras.ops.image.resize(image.astype(np.float32), (64, 64), interpolation="bilinear")
    assert np.allclose(seen(image), np.repeat(np.asarray(enlarged) / 127.5 - 1, 3, axis=3), atol=1e-5)


def test_relu6_replaces_every_hard_swish_and_keeps_the_weights_where_they_were():
    network = build_network(V3.model_copy(update={"activation": "relu6"}), 48, 1)
    published = build_network(V3, 48, 1)
    assert _layers(published, "Activation") and not _layers(network, "Activation")
    ours, theirs = ([w.path for w in one.get_layer(BACKBONE).weights] for one in (network, published))
    assert ours == theirs


def test_the_backbone_learns_rounded_and_is_kept_unrounded_with_the_same_weights():
    import keras

    aware = V3.model_copy(update={"quantization_aware": True})
    learning, kept = build_network(aware, 48, 1), build_network(aware, 48, 1, kept=True)
    assert len(_layers(learning, "Rounded")) > 80 and not _layers(kept, "Rounded")
    ours, plain = (one.get_layer(BACKBONE) for one in (learning, build_network(V3, 48, 1)))
    assert [w.path for w in ours.weights] == [w.path for w in plain.weights]
    assert [w.path for w in ours.trainable_weights] == [w.path for w in plain.trainable_weights]
    plain.set_weights(ours.get_weights())
    images = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    # the first block: untrained, hardly anything reaches the last one
    early = zip((ours, plain), ("expanded_conv_project_bn_rounded", "expanded_conv_project_bn"), strict=True)
    rounded, exact = (keras.Model(one.input, one.get_layer(name).output)(images) for one, name in early)
    assert 0 < np.abs(rounded - exact).mean() < 0.2 * np.std(exact)


def test_a_rounded_tensor_has_256_steps_zero_among_them_and_passes_the_gradient_on():
    import tensorflow as tf

    from tasks.train.rounding import Rounded

    values = tf.constant(np.random.default_rng(0).normal(1, 2, 10_000).astype(np.float32))
    values = tf.concat([values, [0.0]], axis=0)
    with tf.GradientTape() as tape:
        tape.watch(values)
        rounded = Rounded()(values)
    step = np.ptp(values.numpy()) / 255
    assert 200 < len(np.unique(rounded.numpy())) <= 256 and rounded.numpy()[-1] == 0
    assert np.abs(rounded.numpy() - values.numpy()).max() <= step * 0.51
    assert (np.asarray(tape.gradient(rounded, values)) == 1).all()


@pytest.mark.parametrize(("architecture", "steep"), [("custom_light", 1_000), ("resnet_native", 20)])
def test_a_mirrored_network_answers_with_the_mean_over_an_image_and_its_mirror_image(architecture, steep):
    keras.utils.set_random_seed(0)  # with one start in six, all answers are the same class
    config = ModelConfig(architecture=architecture, input_px=32, emotions=True, mirrored=True)
    learning, kept = (
        in_classes(build_network(config, 48, 1)),
        in_classes(build_network(config, 48, 1, kept=True)),
    )
    head = learning.get_layer(HEAD)
    # untrained, its answers hardly differ
    head.set_weights([steep * weight for weight in head.get_weights()])
    kept.set_weights(learning.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), np.uint8)
    one, other = learning.predict(images, verbose=0), learning.predict(images[:, :, ::-1], verbose=0)
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(kept.predict(images, verbose=0), (one + other) / 2, atol=1e-4)


def test_batch_norm_statistics_follow_within_a_few_steps():
    network = build_network(V3, 48, 1)
    assert {layer.momentum for layer in _layers(network, "BatchNormalization")} == {0.95}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    import keras

    network = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), include_top=False, include_preprocessing=False, weights=None
    )
    path = tmp_path_factory.mktemp("weights") / "v3.weights.h5"
    network.save_weights(path)
    return path, network.get_weights()


@pytest.mark.parametrize("activation", ["hard_swish", "relu6"])
def test_the_backbone_takes_a_weights_file(weights_file, activation):
    path, expected = weights_file
    config = TrainConfig(model=V3.model_copy(update={"weights": str(path), "activation": activation}))
    network = build_network(config.model, 48, 1)
    set_start_weights(network, config, None)
    for ours, theirs in zip(network.get_layer(BACKBONE).get_weights(), expected, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("address", ["store:weights/v3.weights.h5", "file://{store}/weights/v3.weights.h5"])
def test_the_backbone_takes_weights_from_a_store(weights_file, tmp_path, address):
    path, expected = weights_file
    store = open_store(tmp_path)
    store.upload(path, "weights/v3.weights.h5")
    config = TrainConfig(model=V3.model_copy(update={"weights": address.format(store=tmp_path)}))
    network = build_network(config.model, 48, 1)
    set_start_weights(network, config, store)
    assert np.array_equal(network.get_layer(BACKBONE).get_weights()[0], expected[0])


def test_a_missing_or_foreign_weights_file_is_an_error_that_says_how_to_give_one(tmp_path):
    network = build_network(V3, 48, 1)
    foreign = tmp_path / "foreign.weights.h5"
    foreign.write_text("not HDF5")
    for path in (tmp_path / "absent.weights.h5", foreign):
        config = TrainConfig(model=V3.model_copy(update={"weights": str(path)}))
        with pytest.raises(ModelError, match=r"--train\.model\.weights PATH"):
            set_start_weights(network, config, None)


def test_where_imagenet_cannot_be_downloaded_the_error_says_how_to_give_a_file(monkeypatch, tmp_path):
    # a proxy on a closed port of this machine, and an empty cache: no download, and no waiting for one
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path), raising=False)
    network = build_network(V3, 48, 1)
    with pytest.raises(ModelError, match=r"--train\.model\.weights PATH"):
        set_start_weights(network, TrainConfig(model=V3.model_copy(update={"weights": "imagenet"})), None)


def test_a_model_of_another_architecture_cannot_be_a_warm_start(tmp_path):
    light = build_network(ModelConfig(architecture="custom_light", input_px=32), 48, 1, kept=True)
    light.save(tmp_path / "light.keras")
    config = TrainConfig(
        model=ModelConfig(architecture="resnet_native"), init_from=str(tmp_path / "light.keras")
    )
    with pytest.raises(ModelError, match="init_from"):
        set_start_weights(build_network(config.model, 48, 1), config, None)
