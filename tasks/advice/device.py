"""What to try next for the device: quantization, pieces of the graph, latency, size."""

from tasks.advice.measured import Advice, Measured, Value, new_values, points_lost


def quantization_loss(run: Measured) -> Advice | None:
    """INT8 loses more accuracy than the target allows."""
    loss = points_lost(run)
    if loss <= run.targets.max_quantization_loss:
        return None
    worst = ", ".join(layer.name for layer in run.layer_errors[:3])
    changes: dict[str, Value] = {"train.model.architecture": "resnet_native"}
    if run.train.model.architecture == "mobilenet_v3_small" and run.train.model.activation == "hard_swish":
        changes = {"train.model.activation": "relu6"}
    return Advice(
        finding=f"INT8 loses {loss:.1f} points of accuracy" + (f", most in {worst}." if worst else "."),
        likely_cause="Activations with a long tail (hard-swish, squeeze-excite) leave few of 256 levels to "
        "the values that matter; plain ReLU convolutions quantize almost without loss.",
        changes=new_values(run, changes),
    )


def split_graph(run: Measured) -> Advice | None:
    """The delegate cuts the graph into more than one piece, and hard-swish is a known cause."""
    if run.delegate_partitions is None or run.delegate_partitions <= 1:
        return None
    changes: dict[str, Value] = {"train.model.activation": "relu6"}
    outside = f"; outside of them run {', '.join(sorted(set(run.undelegated)))}" if run.undelegated else ""
    return Advice(
        finding=f"The INT8 graph runs in {run.delegate_partitions} pieces{outside}.",
        likely_cause="The delegate has no INT8 kernel for some operation (hard-swish is one), and tensors "
        "are copied around each.",
        changes=new_values(run, changes if run.train.model.architecture == "mobilenet_v3_small" else {}),
    )


def high_latency(run: Measured) -> Advice | None:
    """p95 latency over the target."""
    if run.latency_ms is None or run.latency_ms <= run.targets.max_latency_ms:
        return None
    changes = {
        "train.model.architecture": "custom_light",
        "train.model.input_px": min(120, run.train.model.input_px),
    }
    return Advice(
        finding=f"A frame takes {run.latency_ms:.0f} ms (p95), over {run.targets.max_latency_ms:g} ms.",
        likely_cause="The network does too much work per frame for the device.",
        changes=new_values(run, changes),
        beyond_config="Release the INT8 file, use ai-edge-litert on the device (tflite-runtime 2.14 has no "
        "fast INT8 path), and consider a Coral USB TPU where latency stays critical.",
    )


def large_model(run: Measured) -> Advice | None:
    """The INT8 file is over the target."""
    if run.model_bytes is None or run.model_bytes <= run.targets.max_model_mb * 1e6:
        return None
    changes: dict[str, Value] = {"train.model.architecture": "custom_light"}
    if run.train.model.architecture == "custom_light":
        changes = {
            "train.model.filters": tuple(channels // 2 for channels in run.train.model.channels_per_stage)
        }
    return Advice(
        finding=f"The INT8 file has {run.model_bytes / 1e6:.1f} MB, over {run.targets.max_model_mb:g} MB.",
        likely_cause="Too many weights.",
        changes=new_values(run, changes),
    )
