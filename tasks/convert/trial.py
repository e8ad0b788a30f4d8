"""Load and run a .tflite the way a device does: ai-edge-litert, default delegate, one thread.

A program of its own, because a runtime that dislikes a file may take its process along. Of ours it imports
only `tasks.litert`. In: the file's path and the count of timed runs as arguments, one image's raw uint8 bytes
on stdin.
Out: one line of JSON on stdout, with either `error` and `suspects` or the figures.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tasks.litert import Runner, quantize

XNNPACK_MAX_REQUANTIZATION = 256
"""XNNPACK takes scale_in * scale_weight / scale_out below 2^8 only (its qs8 operators' own check)."""

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def main(path: Path, runs: int, image: bytes) -> dict[str, Any]:
    runner = Runner(path)
    try:
        runner.allocate()
    except (RuntimeError, ValueError) as error:
        return {"error": str(error), "suspects": _suspects(runner.interpreter)}
    pixels = quantize(np.frombuffer(image, np.uint8).reshape(runner.entry["shape"]), runner.entry)
    finite, milliseconds = True, []
    for run in range(runs + runs // 10):
        began = time.perf_counter()
        output = runner.invoke(pixels)
        if run >= runs // 10:
            milliseconds.append(1000 * (time.perf_counter() - began))
        finite = bool(np.isfinite(output.astype(np.float32)).all())
    partitions, undelegated = _partitions(runner.interpreter)
    return {
        "input": _tensor(runner.entry),
        "output": _tensor(runner.exit),
        "finite": finite,
        "delegate_partitions": partitions,
        "undelegated": undelegated,
        "host_latency": _statistics(np.array(milliseconds)),
    }


def _tensor(details: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = details["quantization"]
    return {
        "shape": details["shape"].tolist(),
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scale),
        "zero_point": int(zero_point),
    }


def _statistics(milliseconds: np.ndarray) -> dict[str, float]:
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    mean, std = milliseconds.mean(), milliseconds.std(ddof=1)
    values = {"mean_ms": mean, "std_ms": std, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "fps": 1000 / mean}
    return {"runs": len(milliseconds), **{name: float(value) for name, value in values.items()}}


def _partitions(interpreter: Any) -> tuple[int, list[str]]:
    """How many pieces the delegate took, and the operations that it left to the runtime.

    The runtime lists replaced operations beside the DELEGATE nodes that replaced them: an operation was
    replaced when it lies between some DELEGATE's inputs and outputs.
    """
    operations = interpreter._get_ops_details()
    delegates = [op for op in operations if op["op_name"] == "DELEGATE"]
    plain = [op for op in operations if op["op_name"] != "DELEGATE"]
    maker = {int(tensor): op for op in plain for tensor in op["outputs"]}
    replaced: set[int] = set()
    for delegate in delegates:
        given = {int(tensor) for tensor in delegate["inputs"]}
        wanted = [int(tensor) for tensor in delegate["outputs"]]
        while wanted:
            op = maker.get(wanted.pop())
            if op is None or op["index"] in replaced:
                continue
            replaced.add(op["index"])
            wanted.extend(int(tensor) for tensor in op["inputs"] if int(tensor) not in given)
    return len(delegates), [op["op_name"] for op in plain if op["index"] not in replaced]


def _suspects(interpreter: Any) -> list[dict[str, Any]]:
    """Convolutions whose output range is too narrow for XNNPACK: tensor index, name, and by how much."""
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}

    def scales(tensor: int) -> np.ndarray:
        return details[int(tensor)]["quantization_parameters"]["scales"]

    suspects = []
    for op in interpreter._get_ops_details():
        if op["op_name"] in _CONVOLUTIONS and len(scales(op["outputs"][0])):
            output = int(op["outputs"][0])
            ratio = float((scales(op["inputs"][0]) * scales(op["inputs"][1]) / scales(output)).max())
            if ratio >= XNNPACK_MAX_REQUANTIZATION:
                name = f"{op['op_name']} {details[output]['name'].split(';')[0]}"
                suspects.append({"tensor": output, "operation": name, "ratio": ratio})
    return suspects


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer.read())))
