"""What happens at the end of every epoch: stop, slow down, log, keep the weights, commit."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from storage.errors import ModelError, StoreError
from tasks.config.train import TrainConfig
from tasks.prepare.splits import Split
from tasks.train.batch_norm import new_statistics
from tasks.train.networks import build_network
from tasks.train.progress import WRITING_BEST, WRITING_EPOCH, Progress, commit_epoch, describe

_COUNTERS = ("wait", "best", "best_epoch", "cooldown_counter")


def epoch_callbacks(
    network,
    config: TrainConfig,
    directory: Path,
    progress: Progress,
    split: Split,
    report: Callable[[str], None],
    advanced: Callable[[int, int], None],
):
    """Callbacks of one `fit` on the images of `split`, in the order in which they have to run."""
    from keras import callbacks

    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    # a killed run may have left half of one
    (directory / WRITING_BEST).unlink(missing_ok=True)
    every = callbacks.ModelCheckpoint(directory / WRITING_EPOCH, save_weights_only=True)
    best = callbacks.ModelCheckpoint(
        directory / WRITING_BEST,
        monitor=config.monitor,
        mode="min" if config.monitor == "val_loss" else "max",
        save_best_only=True,
    )
    patient = _patient_callbacks(config)
    log = callbacks.TensorBoard(directory / "tensorboard", write_graph=False)
    told = (report, advanced)
    finish = _finish_epochs(network, config, directory, progress, [*patient, best], len(split.images), *told)
    validated = _validating_as_used(network, config, split, _keeping(network, config, split, best))
    room = _room(network, directory)
    return [_seed_dropout(network, config), *patient, log, room, every, *validated, finish]


def _seed_dropout(network, config: TrainConfig):
    """Seed every dropout layer by the epoch: Keras doesn't keep their state in a weights file."""
    from keras import callbacks, layers

    dropouts = [layer for layer in network.layers if isinstance(layer, layers.Dropout) and layer.rate]

    def seed(epoch, _logs):
        for index, layer in enumerate(dropouts):
            # the second number counts the steps, of which no epoch has 2^20
            layer.seed_generator.state.assign([config.seed + index, epoch << 20])

    return callbacks.LambdaCallback(on_epoch_begin=seed)


def _room(network, directory: Path):
    """Before HDF5 begins, which may end the process without a word where it can't write on."""
    from keras import callbacks

    def look(_epoch, _logs):
        kept = [*network.variables, *network.optimizer.variables]
        needed, free = 3 * sum(4 * math.prod(one.shape) for one in kept), shutil.disk_usage(directory).free
        if free < needed:
            raise StoreError(
                f"can't write {directory / 'checkpoints'}: {free / 1e6:.0f} MB are free, an epoch takes "
                f"{needed / 1e6:.0f} MB. Free space or use another disk; the run goes on after its last epoch"
            )

    return callbacks.LambdaCallback(on_epoch_end=look)


def _patient_callbacks(config: TrainConfig):
    from keras import callbacks

    patient = [callbacks.EarlyStopping(config.monitor, patience=config.early_stopping_patience)]
    if config.optimizer.schedule == "plateau":
        factor, patience = config.optimizer.plateau_factor, config.optimizer.plateau_patience
        patient.append(callbacks.ReduceLROnPlateau(config.monitor, factor=factor, patience=patience))
    return patient


def _keeping(network, config: TrainConfig, split: Split, best) -> list:
    """`best`; what it saves is the network as it is handed on, of Keras' own layers alone."""
    from keras import callbacks

    kept = build_network(config.model, split.images.shape[1], split.images.shape[3], kept=True)
    given = callbacks.LambdaCallback(
        on_train_begin=lambda _logs: best.set_model(kept),
        on_epoch_end=lambda _epoch, _logs: kept.set_weights(network.get_weights()),
    )
    return [given, best]


def _validating_as_used(network, config: TrainConfig, split: Split, keeping: list) -> list:
    """`keeping`; with the weights that would be kept put in around it and around validation.

    These are the averaged ones where configured, with batch-norm statistics of their own. Keras'
    SwapEMAWeights swaps by addition, which rounds: a resumed run would end otherwise.
    """
    from keras import callbacks

    if not (config.optimizer.ema_momentum or config.batch_norm_images):
        return keeping
    refresh = new_statistics(config, split) if config.batch_norm_images else list
    trained: list = []
    used: list = []

    def put_used(_logs):
        trained[:] = network.get_weights()
        used[:] = refresh(_averaged_weights(network, config))
        network.set_weights(used)

    swap = callbacks.LambdaCallback(
        on_test_begin=put_used,
        on_test_end=lambda _logs: network.set_weights(trained),
        on_epoch_end=lambda _epoch, _logs: network.set_weights(used),
    )
    return [swap, *keeping, callbacks.LambdaCallback(on_epoch_end=lambda *_: network.set_weights(trained))]


def _averaged_weights(network, config: TrainConfig) -> list:
    """The network's weights, those that learn as the optimiser has averaged them where it does so."""
    if not config.optimizer.ema_momentum:
        return network.get_weights()
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)
    averages = zip(network.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    averaged = {id(variable): average for variable, average in averages}
    return [averaged.get(id(variable), variable).numpy() for variable in network.weights]


def _finish_epochs(network, config, directory, progress, counting, images, report, advanced):
    """Give the `counting` callbacks their counters back at first; commit and report each epoch."""
    from keras import callbacks

    history = {name: list(values) for name, values in progress.history.items()}
    began = time.perf_counter()

    def restore(_logs):
        for callback in counting:
            vars(callback).update(progress.counters.get(type(callback).__name__, {}))

    def finish(epoch, logs):
        for name, value in {**logs, "learning_rate": network.optimizer.learning_rate.numpy()}.items():
            if not math.isfinite(value):
                raise ModelError(_diverged(name, epoch + 1, config))
            history.setdefault(name, []).append(float(value))
        seconds = time.perf_counter() - began
        done = Progress(
            epochs=epoch + 1,
            weights=f"epoch_{epoch + 1:04d}.weights.h5",
            seconds=progress.seconds + seconds,
            stopped=network.stop_training,
            history=history,
            counters={type(callback).__name__: _counters(callback) for callback in counting},
        )
        commit_epoch(directory, done, config.keep_checkpoints)
        report(describe(done, config, images, epoch + 1 - progress.epochs, seconds))
        advanced(done.epochs, config.epochs)

    return callbacks.LambdaCallback(on_train_begin=restore, on_epoch_end=finish)


def _diverged(name: str, epoch: int, config: TrainConfig) -> str:
    return (
        f"Training diverged: {name} is not a number in epoch {epoch}, at learning rate "
        f"{config.optimizer.learning_rate}. Give a lower train.optimizer.learning_rate and start anew."
    )


def _counters(callback) -> dict[str, float | None]:
    held = {name: getattr(callback, name) for name in _COUNTERS if hasattr(callback, name)}
    return {name: None if value is None else float(value) for name, value in held.items()}
