"""Widen the ranges of INT8 tensors that XNNPACK refuses.

Some convolution's output may hardly ever leave zero: a squeeze of MobileNetV3 whose ReLU is dead on faces.
Calibration then gives it a range of a millionth, the factor from its accumulator to its output exceeds what
XNNPACK takes (2^8), and the runtime refuses the whole file. A wider range for a tensor that is zero anyway
loses nothing: the tensor's scale grows by a factor, and so does the scale of each bias that is added to its
products, with the bias' integers shrunk by that factor.
"""

import numpy as np

MARGIN = 2.0 / 256
"""Times the factor that XNNPACK refuses, this brings it to half its bound."""

_WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SCALE_FREE = ("ADD", "MUL", "MEAN", "HARD_SWISH", "LOGISTIC", "SOFTMAX", "QUANTIZE", "DEQUANTIZE", "SUB")
"""Operations that read their input's scale when they are prepared, with no integers derived from it."""


def widen(model: bytes, tensor_factors: dict[int, float]) -> bytes | None:
    """The model with the scales of some tensors multiplied; None where a reader of one of them forbids it."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray

    tree = read_model_from_bytearray(bytearray(model))
    graph = tree.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    for tensor, factor in tensor_factors.items():
        for op in (op for op in graph.operators if tensor in op.inputs):
            name = names[tree.operatorCodes[op.opcodeIndex].builtinCode]
            if name in _WITH_BIAS and op.inputs[0] == tensor:
                _shrink_bias(tree, graph, op, factor)
            elif name not in _SCALE_FREE:
                return None
        _multiply_scale(graph.tensors[tensor], factor)
    return bytes(convert_object_to_bytearray(tree))


def _shrink_bias(tree, graph, op, factor: float) -> None:
    if len(op.inputs) < 3 or op.inputs[2] < 0:
        return
    bias = graph.tensors[op.inputs[2]]
    _multiply_scale(bias, factor)
    buffer = tree.buffers[bias.buffer]
    values = np.frombuffer(bytes(buffer.data), np.int32) / factor
    buffer.data = np.frombuffer(np.round(values).astype(np.int32).tobytes(), np.uint8)


def _multiply_scale(tensor, factor: float) -> None:
    tensor.quantization.scale = np.asarray(tensor.quantization.scale, np.float32) * np.float32(factor)
