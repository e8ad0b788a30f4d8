"""Images per second of training, and the share of time spent waiting for input, against plain Keras.

    python -m tests.benchmarks.bench_train [--architecture custom_light] [--steps 20] [--rounds 3]

Both train the same network on the same drawn faces with the same optimiser, metrics and augmentation:

- straightforward: images as 160x160x3 float32 in memory, Keras' ImageDataGenerator (per image, numpy), fit;
  once with Keras' own choice of XLA and once without XLA, so that the ratio isn't XLA's alone;
- ours: images as 48x48 uint8 in memory, augmented per batch in tf.data, enlarged by the network.

Rounds take turns, and the fastest of each counts.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import numpy as np

from tasks.classes import CLASSES
from tasks.synthetic import draw_faces
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
    report(options, measure(options))


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Images per second by version, and our share of waiting."""
    model = ModelConfig(architecture=options.architecture, input_px=options.input_px, weights="none")
    config = TrainConfig(model=model, epochs=1000)
    images, labels = draw_faces(options.images // len(CLASSES), seed=0)
    split = SimpleNamespace(images=images, votes=np.eye(len(CLASSES), dtype=np.float32)[labels])
    versions: dict[str, Callable[[int], None]] = {
        "ours": fitting(*ours(config, split)),
        "straightforward, no XLA": fitting(*straightforward(config, split, jit_compile=False)),
    }
    if not options.no_xla:
        versions["straightforward"] = fitting(*straightforward(config, split, jit_compile="auto"))
    for fit in versions.values():
        fit(_WARM_UP_STEPS)
    best = dict.fromkeys(versions, 0.0)
    for _ in range(options.rounds):
        for name, fit in versions.items():
            began = time.perf_counter()
            fit(options.steps)
            rate = options.steps * config.batch_size / (time.perf_counter() - began)
            best[name] = max(best[name], rate)
    return {**best, "waiting": waiting_share(*ours(config, split), options.steps * options.rounds)}


def ours(config: TrainConfig, split) -> tuple:
    from tasks.train.input_pipeline import training_batches
    from tasks.train.networks import build_network

    network = build_network(config.model, _IMAGE_PX, 1)
    return _compiled(network, config, jit_compile=False), training_batches(split, config)


def straightforward(config: TrainConfig, split, jit_compile: bool | str) -> tuple:
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
    network = build_network(config.model, px, 3)
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


def report(options: argparse.Namespace, figures: dict[str, float]) -> None:
    print(f"{options.architecture} at {options.input_px} px, batch 32, best of {options.rounds} rounds")
    for name, value in figures.items():
        if name != "waiting":
            print(f"  {name:26} {value:7.0f} images/s   ours is {figures['ours'] / value:5.2f} times as fast")
    print(f"  ours waits for input {figures['waiting']:.1%} of the time")


if __name__ == "__main__":
    main()
