"""One training run, from a prepared data set to `final_model.keras`, resumable at every epoch.

In: PreparedData's splits (images uint8, votes float32). Out, under one directory: final_model.keras,
model_config.json, experiment_config.json, training_history.json and .png, training_log.csv, tensorboard/,
checkpoints/, seen_images.npy.
"""

import json
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel

from storage.errors import InputError, ModelError
from storage.files import arriving, explained, write_whole
from storage.objects import ObjectStore
from tasks.classes import CLASSES
from tasks.config.prepare import Drawing
from tasks.config.train import TrainConfig
from tasks.prepare import PreparedData, Split, load_split
from tasks.tensorflow_start import start_tensorflow
from tasks.train.operating_point import OperatingPoint, choose_point
from tasks.train.progress import BEST_MODEL, Progress, best_epoch, read_progress
from tasks.train.seen import SEEN_IMAGES, write_seen
from tasks.train.weights import seen_by_start

_LIBRARIES = ("tensorflow", "keras", "numpy")
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""As Linux names it: x86-64's two, Arm's."""


class TrainedModel(BaseModel, frozen=True, extra="forbid"):
    """A trained network: the best epoch's weights, in float32, and how it came about."""

    experiment_id: str
    directory: Path
    model_path: Path
    parameters: int
    keras_bytes: int
    epochs: int
    best_epoch: int
    history: dict[str, list[float]]
    seconds: float
    images_per_s: float
    pictures: dict[str, Path]
    operating_point: OperatingPoint | None = None
    """None where the outputs are as they were trained."""

    @property
    def seen_images(self) -> Path:
        """Which images it has learnt from (`tasks.train.seen`)."""
        return self.directory / SEEN_IMAGES


def train(
    data: PreparedData,
    config: TrainConfig,
    directory: Path,
    *,
    store: ObjectStore | None = None,
    report: Callable[[str], None] = print,
    advanced: Callable[[int, int], None] = lambda done, of: None,
) -> TrainedModel:
    """Train, or go on with what an earlier call with the same data and config left in `directory`.

    However often it was killed in between, it ends with the weights of an uninterrupted run (same machine
    and number of threads). `store` is needed for weights named store:KEY or release:VERSION. `report` hears a
    line an epoch, `advanced` how many are done, and of how many. Raises
    ModelError where the network can't be started, InputError where `directory` belongs to another run, the
    data set is empty, or the processor has no bfloat16.
    """
    start_tensorflow()
    directory.mkdir(parents=True, exist_ok=True)
    _claim(directory, data, config)
    splits = {name: load_split(data.directory, name) for name in ("train", "val")}
    for name, split in splits.items():
        if not len(split.images):
            raise InputError(
                f"{data.directory}: the {name} split is empty; expected at least one image. Give more "
                "photos, of three persons or more, or leave prepare.split and its shares as they are"
            )
    if not (directory / SEEN_IMAGES).exists():
        write_seen(directory, splits.values(), seen_by_start(config, store))
    progress = read_progress(directory)
    if not progress.stopped and progress.epochs < config.epochs:
        _fit(splits, data.drawing, config, directory, progress, store, report, advanced)
    return _finish(splits, data, config, directory)


def _claim(directory: Path, data: PreparedData, config: TrainConfig) -> None:
    """Write experiment_config.json, or see that the one already there is of this very run."""
    path = directory / "experiment_config.json"
    ours = {
        "train": config.model_dump(mode="json"),
        "data": {"fingerprint": data.fingerprint, "label_set": data.label_set},
        "classes": list(CLASSES),
    }
    if not path.exists():
        machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
        versions = {name: version(name) for name in _LIBRARIES}
        write_whole(path, json.dumps({**ours, "versions": versions, "made_on": machine}, indent=1))
        return
    theirs = json.loads(path.read_bytes())
    different = [name for name in ours if theirs.get(name) != ours[name]]
    if different:
        raise InputError(
            f"{directory} holds an experiment with other {', '.join(different)} than asked for; "
            "resuming needs the same. Give a new directory, or the configuration in experiment_config.json."
        )


def _fit(
    splits: dict[str, Split],
    drawing: Drawing,
    config: TrainConfig,
    directory: Path,
    progress: Progress,
    store: ObjectStore | None,
    report: Callable[[str], None],
    advanced: Callable[[int, int], None],
) -> None:
    import keras
    import tensorflow as tf

    from tasks.train.callbacks import epoch_callbacks
    from tasks.train.input_pipeline import count_drawn, count_steps, training_batches, validation_batches

    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(_dtype_policy(config, gpu=bool(tf.config.list_physical_devices("GPU"))))
    try:
        drawn = int(count_drawn(splits["train"].labels, drawing).sum())
        steps = count_steps(drawn, config.batch_size)
        with _shared_by(tf.config.list_logical_devices("GPU")):
            network = _compiled_network(splits["train"], config, steps, progress, store)
            if progress.weights:
                _resume(network, directory / "checkpoints" / progress.weights)
        with explained("write", directory):
            network.fit(
                training_batches(splits["train"], config, progress.epochs, drawing),
                validation_data=validation_batches(splits["val"], config),
                initial_epoch=progress.epochs,
                epochs=config.epochs,
                steps_per_epoch=steps,
                callbacks=epoch_callbacks(
                    network, config, directory, progress, splits["train"], report, advanced
                ),
                shuffle=False,
                verbose=0,
            )
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ModelError(
            f"This network doesn't fit into memory with batches of {config.batch_size}: give fewer "
            "train.model.filters, a smaller train.model.input_px, or a smaller train.batch_size."
        ) from error
    finally:
        keras.config.set_dtype_policy("float32")


def _shared_by(devices: list) -> AbstractContextManager:
    """A network built herein learns on all of several devices, each batch shared out among them.

    TensorFlow's own strategy: on this backend Keras' DataParallel is accepted and does nothing. Each device
    has batch-norm statistics of its own, of which a checkpoint keeps the mean: a run that is taken up again
    goes on from there, but not to the last digit.
    """
    import tensorflow as tf

    if len(devices) < 2:
        return nullcontext()
    return tf.distribute.MirroredStrategy([device.name for device in devices]).scope()


def _dtype_policy(config: TrainConfig, gpu: bool) -> str:
    if config.precision == "auto":
        return "mixed_float16" if gpu else "float32"
    if config.precision == "float32":
        return "float32"
    if not gpu and not computes_bfloat16():
        raise InputError(
            "train.precision is bfloat16, for which the processor here lacks instructions (/proc/cpuinfo "
            f"names none of {', '.join(_BFLOAT16_FLAGS)}): training would take several times as long as in "
            'float32. Give train.precision = "auto".'
        )
    return "mixed_bfloat16"


def computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 itself; taken for granted where the system doesn't say."""
    if not cpuinfo.exists():
        return True
    return not set(_BFLOAT16_FLAGS).isdisjoint(cpuinfo.read_text(errors="replace").split())


def _compiled_network(split, config: TrainConfig, steps: int, progress: Progress, store):
    import keras
    import tensorflow as tf

    from tasks.train.metrics import new_metrics
    from tasks.train.networks import build_network
    from tasks.train.optimizers import new_optimizer
    from tasks.train.weights import set_start_weights

    network = build_network(config.model, split.images.shape[1], split.images.shape[3], seed=config.seed)
    if not progress.weights:
        set_start_weights(network, config, store)
    network.compile(
        optimizer=new_optimizer(config, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=new_metrics(),
        # on a CPU, XLA makes depthwise convolutions 5 to 10 times slower and compiles for half a minute;
        # on several GPUs it was never tried
        jit_compile="auto" if len(tf.config.list_physical_devices("GPU")) == 1 else False,
    )
    return network


def _resume(network, path: Path) -> None:
    """Load the weights and the optimiser's state."""
    network.optimizer.build(network.trainable_variables)
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"Checkpoint {path} can't be read: {error}. Delete the experiment's directory to start over."
        ) from error


def _finish(
    splits: dict[str, Split], data: PreparedData, config: TrainConfig, directory: Path
) -> TrainedModel:
    """Write the kept model and the pictures; all of it can be repeated after a kill."""
    from tasks.train.input_pipeline import count_drawn
    from tasks.train.pictures import draw_history

    progress = read_progress(directory)
    _, best = best_epoch(progress.history, config)
    network, path, point = _write_final_model(splits, config, directory)
    drawn = count_drawn(splits["train"].labels, data.drawing)
    pictures = {
        "training_history": draw_history(progress.history, best, directory / "training_history.png"),
        "augmented_batch": _draw_augmented(splits["train"], config, directory / "augmented_batch.png"),
    }
    return TrainedModel(
        experiment_id=directory.name,
        directory=directory,
        model_path=path,
        parameters=network.count_params(),
        keras_bytes=path.stat().st_size,
        epochs=progress.epochs,
        best_epoch=best,
        history=progress.history,
        seconds=progress.seconds,
        images_per_s=int(drawn.sum()) * progress.epochs / progress.seconds,
        pictures=pictures,
        operating_point=point,
    )


def _write_final_model(splits, config: TrainConfig, directory: Path):
    """The best epoch's weights in a float32 network without optimiser, and its description."""
    import keras

    from tasks.train.networks import build_network, in_classes

    shape = splits["train"].images.shape[1:]
    network = build_network(config.model, shape[0], shape[2], kept=True)
    best = keras.models.load_model(directory / BEST_MODEL, compile=False)
    network.set_weights(best.get_weights())
    network = in_classes(network)
    given_up = config.accuracy_for_recall
    point = choose_point(network, splits["val"], given_up) if given_up else None
    path = directory / "final_model.keras"
    with arriving(path) as part:
        network.save(part)
    description = {
        "architecture": config.model.model_dump(mode="json"),
        "input": {"shape": [1, *shape], "dtype": "uint8"},
        "classes": list(CLASSES),
        "operating_point": point and point.model_dump(mode="json"),
        "parameters": network.count_params(),
        "layers": json.loads(network.to_json()),
    }
    write_whole(directory / "model_config.json", json.dumps(description, indent=1))
    return network, path, point


def _draw_augmented(split, config: TrainConfig, path: Path) -> Path:
    import tensorflow as tf

    from tasks.train.augmentation import augment
    from tasks.train.pictures import draw_batch

    before = split.images[:8]
    votes = tf.constant(split.votes[:8], tf.float32)
    after, _ = augment(
        tf.constant(before), votes, config.augmentation, tf.constant([config.seed, 0], tf.int64)
    )
    return draw_batch(before, after.numpy(), path)
