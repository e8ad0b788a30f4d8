"""Conversion: real small networks through the real converter and the real runtime."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from storage.errors import InputError, ModelError
from tasks.convert import ConvertConfig, ConvertedModels, check_counter, convert, count_instructions
from tasks.convert.conversion import calibration_images, min_runtime_version, run_in_runtime
from tasks.convert.formats import to_tflite
from tasks.convert.instructions import COUNTER_VARIABLE, smallest_model
from tasks.convert.ranges import widen
from tasks.evaluate import predict
from tasks.prepare import load_split
from tasks.synthetic import draw_faces
from tasks.train import ModelConfig
from tasks.train.networks import build_network, in_classes
from tests.tasks.small_model import prepared_data

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SMALL = ModelConfig(architecture="resnet_native", filters=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
QUICK = ConvertConfig(calibration_images=40, benchmark_runs=20)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_data(tmp_path_factory.mktemp("convert") / "data", per_class=12)


def _saved(directory, config):
    import keras

    keras.utils.set_random_seed(3)
    network = build_network(config, 48, 1, kept=True)
    # untrained, its answers hardly differ; a head that is 20 times as steep makes them do so
    head = network.get_layer("probabilities")
    head.set_weights([20 * weight for weight in head.get_weights()])
    path = directory / "final_model.keras"
    in_classes(network).save(path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return _saved(tmp_path_factory.mktemp("convert"), SMALL)


@pytest.fixture(scope="module")
def converted(saved, data, tmp_path_factory):
    return convert(saved, data, QUICK, tmp_path_factory.mktemp("convert") / "out")


def test_a_mirrored_network_takes_the_cameras_bytes_and_answers_alike_for_a_mirror_image(tmp_path, data):
    from ai_edge_litert.interpreter import Interpreter

    saved = _saved(tmp_path, SMALL.model_copy(update={"mirrored": True, "emotions": True}))
    converted = convert(saved, data, QUICK.model_copy(update={"formats": ()}), tmp_path / "out")
    interpreter = Interpreter(str(converted.int8.path))
    assert interpreter.get_input_details()[0]["quantization"] == (1.0, 0)
    images = load_split(data.directory, "test").images[:8]
    answers, mirrored = (predict(converted.int8.path, one) for one in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(answers, mirrored, atol=0.02)
    assert converted.int8.delegate_partitions == 3  # as many as the report's advice takes for granted
    assert np.ptp(answers, axis=0).max() > 0.05


def test_each_format_is_written_under_its_name_and_smaller_than_the_one_before(converted):
    by_size = ["float32", "float16", "int8"]
    sizes = [converted.models[name].bytes for name in by_size]
    assert sizes == sorted(sizes, reverse=True)
    for name, model in converted.models.items():
        content = model.path.read_bytes()
        assert model.path.name == f"model_{name}.tflite"
        assert (len(content), hashlib.sha256(content).hexdigest()) == (model.bytes, model.sha256)
    files = {path.name for path in converted.int8.path.parent.iterdir()}
    assert files == {"conversion.json", *(f"model_{name}.tflite" for name in by_size)}


def test_int8_takes_the_cameras_bytes_and_gives_uint8(converted):
    int8 = converted.int8
    assert (int8.input.shape, int8.input.dtype) == ((1, 48, 48, 1), "uint8")
    assert (int8.input.scale, int8.input.zero_point) == (1.0, 0)
    assert (int8.output.shape, int8.output.dtype) == ((1, 5), "uint8")
    assert int8.output.scale == pytest.approx(1 / 256)


def test_int8_tells_all_of_the_cameras_grey_levels_apart(converted):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(converted.int8.path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    greys = np.resize(np.arange(256, dtype=np.uint8), (1, 48, 48, 1))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], greys)
    interpreter.invoke()
    first = next(op for op in interpreter._get_ops_details() if op["op_name"] == "CONV_2D")
    assert len(np.unique(interpreter.get_tensor(first["inputs"][0]))) >= 255


def test_every_format_answers_as_the_keras_model_does(converted, saved, data):
    images = load_split(data.directory, "test").images
    expected = predict(saved, images)
    assert expected.std() > 0.05
    for name, bound in (("float32", 1e-4), ("float16", 0.02), ("int8", 0.15)):
        assert np.abs(predict(converted.models[name].path, images) - expected).max() < bound


def test_the_graph_is_one_piece_in_the_delegate_and_its_latency_is_measured(converted):
    for model in converted.models.values():
        assert model.delegate_partitions == 1
        latency = model.host_latency
        assert latency and latency.runs == 20
        assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms
        assert latency.std_ms > 0 and latency.fps == pytest.approx(1000 / latency.mean_ms)
    assert "CONV_2D" not in converted.int8.undelegated
    assert converted.models["float32"].undelegated == ()


def test_what_was_found_of_every_file_lies_beside_them_as_json(converted):
    path = converted.int8.path.with_name("conversion.json")
    assert ConvertedModels.model_validate_json(path.read_text()) == converted


def test_files_that_lie_there_whole_and_of_the_same_are_taken_and_no_others(
    saved, data, converted, tmp_path, monkeypatch
):
    home = Path(shutil.copytree(converted.int8.path.parent, tmp_path / "out"))
    made = []
    monkeypatch.setattr(
        "tasks.convert.conversion._convert_one",
        lambda _, name, *__: made.append(name) or converted.models[name],
    )
    again = convert(saved, data, QUICK, home)
    assert not made and again.int8.path == home / "model_int8.tflite"
    assert again.int8.host_latency == converted.int8.host_latency

    (home / "model_float16.tflite").write_bytes(b"half")
    (home / "model_float32.tflite").unlink()
    convert(saved, data, QUICK, home)
    assert sorted(made) == ["float16", "float32"]

    made.clear()
    shutil.copytree(converted.int8.path.parent, home, dirs_exist_ok=True)
    convert(saved, data, QUICK.model_copy(update={"calibration_images": 30, "formats": ()}), home)
    convert(_saved(tmp_path, SMALL.model_copy(update={"emotions": True})), data, QUICK, home)
    assert sorted(made) == ["float16", "float32", "int8", "int8"]


def test_the_oldest_runtime_that_can_load_it_is_known(converted):
    assert tuple(map(int, converted.int8.min_runtime_version.split("."))) <= (2, 14, 0)
    assert min_runtime_version(converted.int8.path.read_bytes()) == converted.int8.min_runtime_version


def test_int8_is_calibrated_on_real_training_images_only(data, tmp_path):
    other = prepared_data(tmp_path / "data", per_class=4)
    path = other.directory / "train_data.npz"
    with np.load(path) as split:
        members = {name: split[name] for name in split.files}
    members["augmented"] = np.arange(len(members["labels"])) % 2 == 0
    np.savez(path, **members)
    real = {image.tobytes() for image in members["images"][1::2]}
    chosen = calibration_images(other, 6)
    assert len(chosen) == 6 and {image.tobytes() for image in chosen} <= real
    assert len(calibration_images(other, 1000)) == len(real)
    np.savez(path, **{**members, "augmented": np.ones(len(members["labels"]), bool)})
    with pytest.raises(InputError, match="no real training image"):
        calibration_images(other, 6)


@pytest.mark.slow
def test_a_squeeze_that_is_dead_on_faces_is_widened_until_the_runtime_takes_it(data, tmp_path):
    """What ImageNet's MobileNetV3-Small does on faces: a tensor that hardly ever leaves zero."""
    import keras

    path = _saved(tmp_path, ModelConfig(input_px=32, weights="none"))
    network = keras.models.load_model(path)
    backbone = network.get_layer("backbone")
    lively = backbone.get_layer("expanded_conv_6_depthwise_bn").beta
    lively.assign(np.full(lively.shape, 3))
    squeeze = backbone.get_layer("expanded_conv_6_squeeze_excite_conv")
    squeeze.bias.assign(np.full(squeeze.bias.shape, -100))
    network.save(path)
    int8 = convert(path, data, ConvertConfig(formats=("int8",), calibration_images=10), tmp_path / "out").int8
    assert len(int8.widened) == 1 and "expanded_conv_6_squeeze_excite" in int8.widened[0]
    assert (int8.delegate_partitions or 0) > 1


@pytest.mark.slow
def test_emotions_are_summed_to_classes_within_the_int8_file(data, tmp_path):
    path = _saved(tmp_path, SMALL.model_copy(update={"emotions": True}))
    int8 = convert(path, data, ConvertConfig(formats=("int8",), calibration_images=10), tmp_path / "out").int8
    assert int8.output.shape == (1, 5)
    # the softmax between them is what the delegate leaves to the runtime
    assert int8.delegate_partitions == 2 and "SOFTMAX" in int8.undelegated
    images = load_split(data.directory, "test").images
    assert np.abs(predict(int8.path, images) - predict(path, images)).max() < 0.15


def test_widening_a_tensor_leaves_the_answers_as_they_were(converted, data, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(converted.int8.path))
    operations = interpreter._get_ops_details()
    convolutions = [op for op in operations if op["op_name"] == "CONV_2D"]
    read_by = {int(tensor): op["op_name"] for op in operations for tensor in op["inputs"]}
    tensor = next(int(op["outputs"][0]) for op in convolutions if read_by[int(op["outputs"][0])] == "CONV_2D")
    wider = tmp_path / "wider.tflite"
    wider.write_bytes(widen(converted.int8.path.read_bytes(), {tensor: 1.1}))
    images = load_split(data.directory, "test").images
    before, after = predict(converted.int8.path, images), predict(wider, images)
    assert not np.array_equal(wider.read_bytes(), converted.int8.path.read_bytes())
    assert np.abs(before - after).max() < 0.2


def test_a_file_that_is_no_model_is_an_error_and_not_a_crash(data, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 100)
    with pytest.raises(ModelError, match="ai-edge-litert"):
        run_in_runtime(broken, load_split(data.directory, "test").images[0], 10)
    with pytest.raises(ModelError, match=r"expected a whole \.keras file"):
        convert(broken, data, QUICK, tmp_path / "out")


def test_a_model_that_computes_nan_is_refused_and_leaves_no_file(data, tmp_path):
    import keras

    network = keras.Sequential(
        [
            keras.Input((48, 48, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(5, "softmax"),
        ]
    )
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([np.full_like(kernel, np.nan), bias])
    network.save(tmp_path / "nan.keras")
    with pytest.raises(ModelError, match="NaN or infinity"):
        convert(tmp_path / "nan.keras", data, QUICK, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _counter(directory, body):
    """A command with a blank in its path, as a user's may have; a shell is no part of it."""
    script = directory / "a counter.sh"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return f"'{script}' --cores 1"


def test_instructions_are_what_the_named_command_prints_of_each_file(saved, data, tmp_path, monkeypatch):
    monkeypatch.setenv(COUNTER_VARIABLE, _counter(tmp_path, 'test "$2" = 1 && stat -c %s "$3"'))
    config = QUICK.model_copy(update={"formats": ("int8", "float32")})
    converted = convert(saved, data, config, tmp_path / "out")
    for model in converted.models.values():
        assert model.instructions_m == pytest.approx(model.bytes / 1e6)


def test_nothing_is_counted_where_no_command_is_named(converted):
    assert converted.int8.instructions_m is None


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("echo qemu is missing >&2; exit 3", "exit status 3: qemu is missing"),
        ("echo about a million", "expected one number on stdout, got 'about a million'"),
        ("echo 1 2", "expected one number"),
        ("true", "expected one number on stdout, got ''"),
        ("echo 7.2", "at least 1000, got 7.2"),
        ("echo nan", "at least 1000, got nan"),
    ],
)
def test_a_counter_that_prints_no_count_is_an_error_that_says_what_it_printed(tmp_path, body, complaint):
    with pytest.raises(InputError, match=complaint):
        count_instructions(_counter(tmp_path, body), tmp_path / "model.tflite")


def test_a_counter_that_hangs_ends_at_its_deadline_with_all_that_it_started(tmp_path):
    survivor = tmp_path / "survivor"
    counter = _counter(tmp_path, f"(sleep 1; touch '{survivor}'); echo 5000")
    with pytest.raises(InputError, match=r"model\.tflite: no count within 0\.2 s"):
        count_instructions(counter, tmp_path / "model.tflite", 0.2)
    time.sleep(1.5)
    assert not survivor.exists()


@pytest.mark.parametrize("command", ["no-such-counter --fast", "'unbalanced", " "])
def test_a_counter_that_is_not_there_is_named(tmp_path, command):
    with pytest.raises(InputError, match=COUNTER_VARIABLE):
        count_instructions(command, tmp_path / "model.tflite")


def test_a_counter_that_is_no_program_is_an_error_before_anything_is_counted(tmp_path):
    counter = _counter(tmp_path, "echo 5000")
    (tmp_path / "a counter.sh").write_bytes(b"\x7fELF, but cut off")
    with pytest.raises(InputError, match="can't be started"):
        count_instructions(counter, tmp_path / "model.tflite")


def test_a_counter_is_tried_on_a_network_that_the_runtime_takes(tmp_path, monkeypatch):
    from ai_edge_litert.interpreter import Interpreter

    monkeypatch.setenv(
        COUNTER_VARIABLE, _counter(tmp_path, f'cp "$3" "{tmp_path}/tried.tflite" && echo 5000')
    )
    check_counter()
    interpreter = Interpreter(model_path=str(tmp_path / "tried.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 128), np.float32))
    interpreter.invoke()
    assert not interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).any()
    assert (tmp_path / "tried.tflite").read_bytes() == smallest_model()


def test_a_counter_that_can_not_count_is_told_before_the_training_and_none_at_all_is_fine(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(COUNTER_VARIABLE, _counter(tmp_path, "echo qemu is missing >&2; exit 3"))
    with pytest.raises(InputError, match=rf"{COUNTER_VARIABLE}.*exit status 3: qemu is missing"):
        check_counter()
    monkeypatch.setenv(COUNTER_VARIABLE, " ")
    check_counter()
    monkeypatch.delenv(COUNTER_VARIABLE)
    check_counter()


def test_what_runs_on_this_machine_is_no_part_of_a_form():
    with pytest.raises(ValueError, match="instruction_counter"):
        ConvertConfig.model_validate({"instruction_counter": "touch /tmp/x"})


@pytest.mark.slow
def test_the_same_weights_give_the_same_bytes_however_many_networks_the_process_has_built(saved, tmp_path):
    """A night that was taken up again builds fewer networks; Keras' names of layers go on counting."""
    import keras

    first = keras.models.load_model(saved, compile=False)
    again = build_network(SMALL, 48, 1, kept=True)
    again.set_weights(first.get_weights())
    again.save(tmp_path / "again.keras")
    images = draw_faces(2, seed=1)[0]
    assert [one.name for one in again.layers] != [one.name for one in first.layers]
    expected = to_tflite(first, "int8", images)
    assert to_tflite(again, "int8", images) == expected
    program = (
        "import sys, keras, numpy, tasks.convert.formats as formats\n"
        "network = keras.models.load_model(sys.argv[1], compile=False)\n"
        "content = formats.to_tflite(network, 'int8', numpy.load(sys.argv[2]))\n"
        "open(sys.argv[3], 'wb').write(content)\n"
    )
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("again.keras", "images.npy", "elsewhere.tflite")]
    subprocess.run([sys.executable, "-c", program, *files], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "elsewhere.tflite").read_bytes() == expected
