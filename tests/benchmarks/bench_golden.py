"""Does a device with another runtime refuse good releases by chance, or take a foreign model?

`python -m tests.benchmarks.bench_golden --python /path/to/a/python/with/tflite-runtime MODEL.tflite…`

Each INT8 model answers the drawn candidates here and under the other runtime. From random quarters of these,
golden sets are chosen as a release's is: how many does the device's rule refuse, how many would "no image by
more than the tolerance", and how many of the other models' answers does it let through?
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.pi.device import kin
from tasks.golden import draw_candidates, spread
from tasks.litert import load, quantized_outputs
from tasks.register import RegisterConfig

_CONFIG = RegisterConfig()
_SETS, _BATCHES = 200, 4
_THERE = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

model, inputs, outputs = sys.argv[1:]
interpreter = Interpreter(model_path=model, num_threads=1)
interpreter.allocate_tensors()
entry, leave = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
answers = []
for image in np.load(inputs):
    interpreter.set_tensor(entry, image[None])
    interpreter.invoke()
    answers.append(interpreter.get_tensor(leave)[0])
np.save(outputs, np.stack(answers))
"""

Answers = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", required=True, help="one that has tflite-runtime")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.tflite")
    given = parser.parse_args()
    images, faces = candidates(given.models[0])
    here = [quantized_outputs(model, images).astype(np.int64) for model in given.models]
    there = [answers_there(given.python, model, images) for model in given.models]
    print("| model | off at p95, most | refused | refused by the largest difference | others taken |")
    print("|---|---|---|---|---|")
    for number, model in enumerate(given.models):
        off = abs(here[number] - there[number]).max(1)
        figures = simulate(number, here, there, faces)
        shares = " | ".join(f"{100 * share:.1f} %" for share in figures)
        print(f"| {model.name} | {np.percentile(off, 95):.0f}, {off.max()} | {shares} |", flush=True)


def candidates(model: Path) -> tuple[NDArray[np.uint8], int]:
    """Drawn images uint8 (N, P, P, C) of the model's size, and how many of each batch are faces."""
    _, px, _, channels = map(int, load(model).entry["shape"])
    batches = [draw_candidates(px, channels, batch) for batch in range(_BATCHES)]
    return np.concatenate([images for images, _ in batches]), batches[0][1]


def answers_there(python: str, model: Path, images: NDArray[np.uint8]) -> Answers:
    """The outputs (N, classes) under the other runtime."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(inputs, images)
        subprocess.run([python, "-c", _THERE, str(model), str(inputs), str(outputs)], check=True, timeout=600)
        return np.load(outputs).astype(np.int64)


def simulate(
    number: int, here: list[Answers], there: list[Answers], faces: int
) -> tuple[float, float, float]:
    """Shares of golden sets: refused, refused by their largest difference, and others' answers taken."""
    rng, allowed = np.random.default_rng(number), _CONFIG.golden_tolerance_lsb
    refused, by_largest, taken = 0, 0, []
    for _ in range(_SETS):
        pool = np.sort(rng.choice(len(here[number]), len(here[number]) // _BATCHES, replace=False))
        drawn = max(1, int((pool < faces).sum()))
        chosen = pool[spread(here[number][pool].astype(np.uint8), drawn, _CONFIG.golden_images)]
        expected = here[number][chosen]
        refused += not kin(there[number][chosen], expected, allowed)
        by_largest += bool((abs(there[number][chosen] - expected) > allowed).any())
        taken += [kin(other[chosen], expected, allowed) for at, other in enumerate(there) if at != number]
    return refused / _SETS, by_largest / _SETS, float(np.mean(taken)) if taken else 0.0


if __name__ == "__main__":
    main()
