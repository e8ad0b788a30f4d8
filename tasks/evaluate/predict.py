"""Run a saved model over images, exactly as it will run.

In: uint8 images (N, P, P, C). Out: class probabilities float32 (N, 5).
A `.keras` file runs in Keras; a `.tflite` file in ai-edge-litert with its default delegate, one image at a
time, which is how the device calls it.
"""

from pathlib import Path

import numpy as np

from storage.errors import ModelError
from tasks.classes import CLASSES
from tasks.litert import dequantize, load
from tasks.train.networks import load_network

_BATCH = 256


def predict(model_path: Path, images: np.ndarray) -> np.ndarray:
    """Class probabilities float32 (N, 5) of uint8 images (N, P, P, C).

    Raises ModelError where the file can't be loaded or takes or gives another shape.
    """
    runners = {".keras": _predict_keras, ".tflite": _predict_tflite}
    if model_path.suffix not in runners:
        raise ModelError(
            f"{model_path}: expected a file ending in .keras or .tflite, got {model_path.suffix!r}"
        )
    probabilities = runners[model_path.suffix](model_path, images)
    if probabilities.shape != (len(images), len(CLASSES)):
        raise ModelError(
            f"{model_path}: expected outputs of shape {(len(images), len(CLASSES))} "
            f"({', '.join(CLASSES)}), got {probabilities.shape}; was it trained on other classes?"
        )
    if not np.isfinite(probabilities).all():
        raise ModelError(
            f"{model_path}: the outputs hold NaN or infinity; look at the run's training history"
        )
    return probabilities


def _predict_keras(model_path: Path, images: np.ndarray) -> np.ndarray:
    model = load_network(model_path)
    _check_input(model_path, model.input_shape, images)
    return np.asarray(model.predict(images, batch_size=_BATCH, verbose=0), np.float32)


def _predict_tflite(model_path: Path, images: np.ndarray) -> np.ndarray:
    runner = load(model_path)
    _check_input(model_path, tuple(runner.entry["shape"]), images)
    return dequantize(runner.outputs(images), runner.exit)


def _check_input(model_path: Path, shape: tuple[int, ...], images: np.ndarray) -> None:
    if tuple(shape[1:]) != images.shape[1:]:
        raise ModelError(
            f"{model_path}: it takes images of shape {tuple(map(int, shape[1:]))}, the data set has "
            f"{images.shape[1:]}; evaluate it on data prepared with its own image_px and channels"
        )
