"""What to try next for the device: quantization, pieces of the graph, latency, size."""

from tasks.advice.advice import Advice, Value, new_values
from tasks.night import Night


def quantization_loss(run: Night) -> Advice | None:
    """INT8 loses more accuracy than the target allows."""
    loss = run.made.points_lost
    if loss <= run.config.targets.max_quantization_loss:
        return None
    worst = ", ".join(layer.name for layer in run.layer_errors[:3])
    changes: dict[str, Value] = {"train.model.architecture": "resnet_native"}
    network = run.config.train.model
    if network.architecture == "mobilenet_v3_small" and network.activation == "hard_swish":
        changes = {"train.model.activation": "relu6"}
    return Advice(
        finding=f"INT8 loses {loss:.1f} points of accuracy" + (f", most in {worst}." if worst else "."),
        likely_cause="Activations with a long tail (hard-swish, squeeze-excite) leave few of 256 levels to "
        "the values that matter; plain ReLU convolutions quantize almost without loss.",
        changes=new_values(run, changes),
    )


def split_graph(run: Night) -> Advice | None:
    """The delegate cuts the graph into more pieces than its design asks for; hard-swish is a known cause."""
    pieces, left = run.made.model.delegate_partitions, sorted(set(run.made.model.undelegated))
    model = run.config.train.model
    # the runtime keeps to itself a softmax, after which emotions are summed up, and turning an image round
    by_design = 3 if model.mirrored else 2 if model.emotions else 1
    if pieces is None or pieces <= by_design:
        return None
    changes: dict[str, Value] = {"train.model.activation": "relu6"}
    outside = f"; outside of them run {', '.join(left)}" if left else ""
    return Advice(
        finding=f"The INT8 graph runs in {pieces} pieces{outside}.",
        likely_cause="The delegate has no INT8 kernel for some operation (hard-swish is one), and tensors "
        "are copied around each.",
        changes=new_values(run, changes) if model.architecture == "mobilenet_v3_small" else {},
    )


def high_latency(run: Night) -> Advice | None:
    """p95 latency over the target."""
    limit_ms = run.config.targets.max_latency_ms
    if run.latency_ms is None or run.latency_ms <= limit_ms:
        return None
    changes: dict[str, Value] = {
        "train.model.architecture": "custom_light",
        "train.model.input_px": min(120, run.config.train.model.input_px),
    }
    return Advice(
        finding=f"A frame takes {run.latency_ms:.0f} ms (p95), over {limit_ms:g} ms.",
        likely_cause="The network does too much work per frame for the device.",
        changes=new_values(run, changes),
        beyond_config="Release the INT8 file, use ai-edge-litert on the device (tflite-runtime 2.14 has no "
        "fast INT8 path), and consider a Coral USB TPU where latency stays critical.",
    )


def large_model(run: Night) -> Advice | None:
    """The INT8 file is over the target."""
    size_mb, limit_mb, network = (
        run.made.model.bytes / 1e6,
        run.config.targets.max_model_mb,
        run.config.train.model,
    )
    if size_mb <= limit_mb:
        return None
    changes: dict[str, Value] = {"train.model.architecture": "custom_light"}
    if network.architecture == "custom_light":
        changes = {"train.model.filters": tuple(channels // 2 for channels in network.channels_per_stage)}
    return Advice(
        finding=f"The INT8 file has {size_mb:.1f} MB, over {limit_mb:g} MB.",
        likely_cause="Too many weights.",
        changes=new_values(run, changes),
    )
