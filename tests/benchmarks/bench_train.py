"""Images per second of training, and the share of time spent waiting for input, against plain Keras.

    python -m tests.benchmarks.bench_train [--architecture custom_light] [--steps 20] [--rounds 3]

Both train the same network on the same drawn faces with the same optimiser, metrics and augmentation:

- straightforward: images as 160x160x3 float32 in memory, Keras' ImageDataGenerator (per image, numpy), fit;
  once with Keras' own choice of XLA and once without XLA, so that the ratio isn't XLA's alone;
- ours: images as 48x48 uint8 in memory, augmented per batch in tf.data, enlarged by the network, batch norm
  in one kernel.

TF_ENABLE_ONEDNN_OPTS=0 before the command takes oneDNN's kernels from both.

Rounds take turns, and the fastest of each counts.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from tasks.classes import CLASSES
from tasks.synthetic import draw_faces
from tasks.tensorflow_start import start_tensorflow
from tasks.train import AugmentationConfig, ModelConfig, TrainConfig

_WARM_UP_STEPS = 3
_IMAGE_PX = 48


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--architecture", choices=["custom_light", "mobilenet_v3_small"], default="custom_light"
    )
    parser.add_argument("--input-px", type=int, default=160)
    parser.add_argument("--images", type=int, default=640, help="a multiple of 5")
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-xla", action="store_true", help="leave out the version with XLA, which is slow")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "__array__ implementation")
    start_tensorflow()
    report(options, *measure(options))


class Rate(NamedTuple):
    """The best of all rounds; CPU time is what remains comparable on a busy machine."""

    per_s: float
    cpu_ms: float
    """CPU time of all threads, per image."""


def measure(options: argparse.Namespace) -> tuple[dict[str, Rate], float]:
    """Rates by version, and our share of waiting."""
    model = ModelConfig(architecture=options.architecture, input_px=options.input_px, weights="none")
    config = TrainConfig(model=model, epochs=1000)
    images, labels = draw_faces(options.images // len(CLASSES), seed=0)
    split = SimpleNamespace(
        images=images, labels=labels, votes=np.eye(len(CLASSES), dtype=np.float32)[labels]
    )
    versions: dict[str, Callable[[int], None]] = {
        "ours": fitting(*ours(config, split)),
        "straightforward, no XLA": fitting(*straightforward(config, split, jit_compile=False)),
    }
    if not options.no_xla:
        versions["straightforward"] = fitting(*straightforward(config, split, jit_compile="auto"))
    for fit in versions.values():
        fit(_WARM_UP_STEPS)
    rates: dict[str, list[Rate]] = {name: [] for name in versions}
    for _ in range(options.rounds):
        for name, fit in versions.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            fit(options.steps)
            images = options.steps * config.batch_size
            cpu_ms = 1000 * (time.process_time() - cpu_began) / images
            rates[name].append(Rate(images / (time.perf_counter() - began), cpu_ms))
    best = {
        name: Rate(max(r.per_s for r in runs), min(r.cpu_ms for r in runs)) for name, runs in rates.items()
    }
    return best, waiting_share(*ours(config, split), options.steps * options.rounds)


def ours(config: TrainConfig, split) -> tuple[Any, Any]:
    from tasks.train.input_pipeline import training_batches
    from tasks.train.networks import build_network

    network = build_network(config.model, _IMAGE_PX, 1)
    return _compiled(network, config, jit_compile=False), training_batches(split, config)


def straightforward(config: TrainConfig, split, jit_compile: bool | str) -> tuple[Any, Any]:
    """What a tutorial does: everything at the network's size in float32, a generator, fit."""
    import tensorflow as tf

    from tasks.train.networks import build_network

    px = config.model.input_px
    large = np.concatenate(
        [tf.image.resize(images, (px, px)).numpy() for images in np.array_split(split.images, 10)]
    )
    changes: AugmentationConfig = config.augmentation
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=changes.rotation_degrees,
        width_shift_range=changes.shift_share,
        height_shift_range=changes.shift_share,
        zoom_range=changes.zoom_share,
        brightness_range=(1 - changes.brightness_share, 1 + changes.brightness_share),
        horizontal_flip=changes.horizontal_flip,
    )
    batches = generator.flow(np.repeat(large, 3, axis=3), split.votes, config.batch_size, seed=config.seed)
    network = build_network(config.model, px, 3, kept=True)
    return _compiled(network, config, jit_compile), batches


def _compiled(network, config: TrainConfig, jit_compile: bool | str):
    from tasks.train.metrics import new_metrics

    network.compile("adam", loss="categorical_crossentropy", metrics=new_metrics(), jit_compile=jit_compile)
    return network


def fitting(network, batches) -> Callable[[int], None]:
    """A function that trains for some steps."""

    def fit(steps: int) -> None:
        network.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    return fit


def waiting_share(network, batches: Iterable, steps: int) -> float:
    """Time until the next batch is there, over all time, in a loop of its own."""
    iterator = iter(batches)
    waiting = total = 0.0
    for step in range(_WARM_UP_STEPS + steps):
        began = time.perf_counter()
        x, y = next(iterator)
        got = time.perf_counter()
        network.train_on_batch(x, y)
        if step >= _WARM_UP_STEPS:
            waiting += got - began
            total += time.perf_counter() - began
    return waiting / total


def report(options: argparse.Namespace, rates: dict[str, Rate], waiting: float) -> None:
    print(f"{options.architecture} at {options.input_px} px, batch 32, best of {options.rounds} rounds")
    ours = rates["ours"]
    for name, rate in rates.items():
        print(
            f"  {name:24} {rate.per_s:5.0f} images/s, ours is {ours.per_s / rate.per_s:.2f} times as fast; "
            f"{rate.cpu_ms:5.2f} ms of CPU an image, {rate.cpu_ms / ours.cpu_ms:.2f} times ours"
        )
    print(f"  ours waits for input {waiting:.1%} of the time")


if __name__ == "__main__":
    main()
