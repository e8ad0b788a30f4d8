"""A .tflite file in ai-edge-litert, as a device runs it: one thread, one image at a time, default delegate.

In: uint8 images (N, P, P, C). Out: the file's own outputs (N, …), or real values. Imports nothing but numpy,
the runtime and our errors, so that `tasks/convert/trial.py` can use it in a process of its own.
"""

from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import ModelError


class Runner:
    """One file; `allocate` comes first, and is where a runtime refuses. Options are the interpreter's own."""

    def __init__(self, path: Path, **options: Any) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(path), num_threads=1, **options)

    def allocate(self) -> "Runner":
        """Make it ready to run; RuntimeError or ValueError where it can't be."""
        self.interpreter.allocate_tensors()
        if not self.interpreter.get_input_details():
            raise ValueError("it has no input, expected that of an image")
        self.entry: dict[str, Any] = self.interpreter.get_input_details()[0]
        self.exit: dict[str, Any] = self.interpreter.get_output_details()[0]
        return self

    def invoke(self, image: np.ndarray) -> np.ndarray:
        """The outputs (1, …) of an image (1, P, P, C), both as the file's own tensors hold them."""
        self.interpreter.set_tensor(self.entry["index"], image)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.exit["index"])

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """The outputs (N, …) of uint8 images, as the file's own tensor holds them."""
        quantized = quantize(images, self.entry)
        outputs = np.empty((len(images), *self.exit["shape"][1:]), self.exit["dtype"])
        for row in range(len(images)):
            outputs[row] = self.invoke(quantized[row : row + 1])[0]
        return outputs


def load(path: Path) -> Runner:
    """The file, ready to run. ModelError where it can't be."""
    try:
        return Runner(path).allocate()
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path}: ai-edge-litert can't load it with its default delegate: {str(error).strip()}; is it "
            "whole? `stress-vision convert` makes it anew"
        ) from error


def quantized_outputs(path: Path, images: np.ndarray) -> np.ndarray:
    """The uint8 outputs (N, classes) of an INT8 file. ModelError where it has others or can't be run."""
    runner = load(path)
    if runner.exit["dtype"] is not np.uint8:
        raise ModelError(
            f"{path}: expected uint8 outputs, got {runner.exit['dtype'].__name__}; release INT8 models"
        )
    try:
        return runner.outputs(images)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path} doesn't run in ai-edge-litert on {images.shape} uint8: {error}") from error


def quantize(images: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """uint8 images as the input tensor wants them. A uint8 input takes the camera's bytes as they are."""
    if tensor["dtype"] == np.uint8:
        return images
    scale, zero_point = tensor["quantization"]
    if not scale:
        return images.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    values = np.round(images / scale) + zero_point
    return np.clip(values, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(outputs: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Real values float32 by the tensor's own scale and zero_point: (q - zero_point) * scale."""
    scale, zero_point = tensor["quantization"]
    if not scale:
        return outputs.astype(np.float32)
    return (outputs.astype(np.float32) - zero_point) * np.float32(scale)
