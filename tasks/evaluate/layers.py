"""Where quantization hurts: the error of every layer, float32 against INT8, on the same images.

In: the float32 and the INT8 `.tflite` of one network and uint8 images (N, P, P, C). Out: layers with their
relative error, largest first. Needed only where the loss in accuracy exceeds its bound, so not in every run.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel

from tasks.convert import ConvertedModels
from tasks.litert import Runner, dequantize, quantize
from tasks.prepare import PreparedData
from tasks.prepare.splits import load_split

LAYER_IMAGES = 32
"""All tensors of all of them are kept in memory."""


class LayerError(BaseModel, frozen=True):
    """Root mean square error of a layer's output over the standard deviation of the float output.

    Operations that were fused into one carry the first one's name.
    """

    name: str
    relative_error: float


def errors_of_files(converted: ConvertedModels, data: PreparedData) -> tuple[LayerError, ...]:
    """Errors on LAYER_IMAGES validation images; none where no float32 file was made."""
    if "float32" not in converted.models:
        return ()
    images = load_split(data.directory, "val").images
    few = images[:: max(1, len(images) // LAYER_IMAGES)][:LAYER_IMAGES]
    return layer_errors(converted.models["float32"].path, converted.int8.path, few)


def layer_errors(float32_path: Path, int8_path: Path, images: np.ndarray) -> tuple[LayerError, ...]:
    """Errors of the layers that both files name alike; a few dozen images are enough.

    Runs the built-in kernels, because a delegate keeps no tensors in between.
    """
    wide, narrow = _tensors(float32_path, images), _tensors(int8_path, images)
    errors = {
        name.split(";")[0]: _relative_error(wide[name], narrow[name])
        for name in wide.keys() & narrow.keys()
        if wide[name].shape == narrow[name].shape and wide[name].std() > 0
    }
    ordered = sorted(errors.items(), key=lambda layer: (-layer[1], layer[0]))
    return tuple(LayerError(name=name, relative_error=error) for name, error in ordered if error > 0)


def _relative_error(exact: np.ndarray, rounded: np.ndarray) -> float:
    return float(np.sqrt(np.mean((exact - rounded) ** 2)) / exact.std())


def _tensors(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every operation in real values float32 (N, 1, …), by tensor name."""
    from ai_edge_litert.interpreter import OpResolverType

    runner = Runner(
        path,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    ).allocate()
    interpreter = runner.interpreter
    # the runtime has no public way to tell an operation's output from a weight
    produced = {index for op in interpreter._get_ops_details() for index in op["outputs"]}
    tensors = [tensor for tensor in interpreter.get_tensor_details() if tensor["index"] in produced]
    collected: dict[str, list[np.ndarray]] = {tensor["name"]: [] for tensor in tensors}
    for image in quantize(images, runner.entry):
        runner.invoke(image[None])
        for tensor in tensors:
            collected[tensor["name"]].append(dequantize(interpreter.get_tensor(tensor["index"]), tensor))
    return {name: np.stack(outputs) for name, outputs in collected.items()}
