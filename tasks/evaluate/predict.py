"""Run a saved model over images, exactly as it will run.

In: uint8 images (N, P, P, C). Out: class probabilities float32 (N, 5).
A `.keras` file runs in Keras; a `.tflite` file in ai-edge-litert with its default delegate, one image at a
time, which is how the device calls it.
"""

from pathlib import Path

import numpy as np

from storage.errors import ModelError
from tasks.classes import CLASSES


def predict(model_path: Path, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Class probabilities float32 (N, 5) of uint8 images (N, P, P, C).

    Raises ModelError where the file can't be loaded or takes or gives another shape.
    """
    runners = {".keras": _predict_keras, ".tflite": _predict_tflite}
    if model_path.suffix not in runners:
        raise ModelError(
            f"{model_path}: expected a file ending in .keras or .tflite, got {model_path.suffix!r}"
        )
    probabilities = runners[model_path.suffix](model_path, images, batch_size)
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


def _predict_keras(model_path: Path, images: np.ndarray, batch_size: int) -> np.ndarray:
    import keras

    try:
        model = keras.models.load_model(model_path, compile=False)
    except (ValueError, OSError) as error:
        raise ModelError(f"{model_path}: Keras can't load it: {error}") from error
    _check_input(model_path, model.input_shape, images)
    return np.asarray(model.predict(images, batch_size=batch_size, verbose=0), np.float32)


def _predict_tflite(model_path: Path, images: np.ndarray, batch_size: int) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(model_path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{model_path}: ai-edge-litert can't load it with its default delegate: {error}"
        ) from error
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    _check_input(model_path, tuple(entry["shape"]), images)
    quantized = quantize(images, entry)
    outputs = np.empty((len(images), *exit_["shape"][1:]), exit_["dtype"])
    for row, image in enumerate(quantized):
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        outputs[row] = interpreter.get_tensor(exit_["index"])[0]
    return dequantize(outputs, exit_)


def quantize(images: np.ndarray, tensor: dict) -> np.ndarray:
    """uint8 images as the input tensor wants them. A uint8 input takes the camera's bytes as they are."""
    if tensor["dtype"] == np.uint8:
        return images
    scale, zero_point = tensor["quantization"]
    if not scale:
        return images.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    values = np.round(images / scale) + zero_point
    return np.clip(values, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(outputs: np.ndarray, tensor: dict) -> np.ndarray:
    """Real values float32 by the tensor's own scale and zero_point: (q - zero_point) * scale."""
    scale, zero_point = tensor["quantization"]
    if not scale:
        return outputs.astype(np.float32)
    return (outputs.astype(np.float32) - zero_point) * np.float32(scale)


def _check_input(model_path: Path, shape: tuple, images: np.ndarray) -> None:
    if tuple(shape[1:]) != images.shape[1:]:
        raise ModelError(
            f"{model_path}: it takes images of shape {tuple(map(int, shape[1:]))}, the data set has "
            f"{images.shape[1:]}; evaluate it on data prepared with its own image_px and channels"
        )
