"""Convert: a Keras model in, TFLite files that have been loaded and run out.

In: the path of a .keras model, uint8 (N, P, P, C) to softmax float32 (N, 5), and its data set.
Out: ConvertedModels: model_int8.tflite (uint8 in and out), model_float16.tflite, model_float32.tflite.
"""

from pathlib import Path

from prefect import get_run_logger, task

from tasks.config.convert import ConvertConfig
from tasks.convert.conversion import convert
from tasks.convert.converted import ConvertedModels, TensorInfo, TfliteModel
from tasks.convert.instructions import check_counter, count_instructions
from tasks.prepare import PreparedData

__all__ = [
    "ConvertConfig",
    "ConvertedModels",
    "TensorInfo",
    "TfliteModel",
    "check_counter",
    "convert",
    "convert_model",
    "count_instructions",
]


@task(name="convert", task_run_name="convert")
def convert_model(
    model_path: Path, data: PreparedData, config: ConvertConfig, out_dir: Path
) -> ConvertedModels:
    """Convert, load and run every format."""
    log = get_run_logger()
    converted = convert(model_path, data, config, out_dir)
    for model in converted.models.values():
        log.info(
            "%s: %.2f MB, %s pieces in the delegate, p95 %.2f ms on this machine, %s million instructions",
            model.path.name,
            model.bytes / 1e6,
            model.delegate_partitions,
            model.host_p95_ms,
            "unmeasured" if model.instructions_m is None else f"{model.instructions_m:.2f}",
        )
    if converted.coral:
        log.info(converted.coral.said)
    return converted
