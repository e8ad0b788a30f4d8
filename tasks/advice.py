"""What a person would try next, from measured figures alone.

In: `Measured`, the figures and the config of one run. Out: a tuple of `Advice`, the most pressing first.
Each rule is one function: it states its threshold, looks at figures, and gives one piece of advice or None.
A change that the config holds already is never advised. The rules are the phase document's, and those
that measurements of this project added; none of them can tune the test set, they only name what to try.
"""

from collections.abc import Callable

from pydantic import BaseModel

from tasks.evaluate.figures import Evaluation
from tasks.evaluate.layers import LayerError
from tasks.gate import GateConfig
from tasks.prepare import PrepareConfig
from tasks.train import TrainConfig

LOW_ACCURACY = 0.70
"""The phase document's bound under which it advises another network, more augmentation, a lower rate."""
OVERFITTING_RATIO = 1.5
"""Validation loss over training loss that counts as "far over"."""
STALLED_GAIN = 0.02
"""Share by which the training loss must fall over the whole run to count as learning at all."""
LOW_RECALL_GAP = 0.15
"""Recall this far under the macro recall marks a weak class."""
IMBALANCE = 5
"""Largest class over smallest, in training images, from which imbalance shows."""
FEW_IMAGES = 100
"""Real training images that the phase document asks for at least, per class."""
WIDE_INTERVAL = 0.04
"""Width of accuracy's 95 % interval above which a night's gain can't be told from chance."""
POOR_CALIBRATION = 0.10
"""ECE above which a confidence threshold means little."""

Value = str | float | int | bool | tuple[int, ...]


class Advice(BaseModel, frozen=True):
    """One finding, its likely cause, and config fields (dotted, from the run's config) with values to try."""

    finding: str
    likely_cause: str
    changes: dict[str, Value] = {}
    beyond_config: str = ""


class Measured(BaseModel, frozen=True):
    """The figures the rules look at. `latency_ms`: p95 of the slowest device, or of this host."""

    train: TrainConfig
    prepare: PrepareConfig
    targets: GateConfig
    history: dict[str, list[float]]
    counts: dict[str, dict[str, int]]
    int8: Evaluation
    float_evaluation: Evaluation | None = None
    model_bytes: int | None = None
    latency_ms: float | None = None
    delegate_partitions: int | None = None
    undelegated: tuple[str, ...] = ()
    layer_errors: tuple[LayerError, ...] = ()


def advise(measured: Measured) -> tuple[Advice, ...]:
    """All advice that the rules give, in the order of `RULES`."""
    found = (rule(measured) for rule in RULES)
    return tuple(one for one in found if one is not None)


def stalled(run: Measured) -> Advice | None:
    """The training loss fell by less than STALLED_GAIN: nothing was learnt."""
    loss = run.history.get("loss", [])
    if len(loss) < 2 or min(loss[1:]) < loss[0] * (1 - STALLED_GAIN):
        return None
    return Advice(
        finding=f"The training loss went from {loss[0]:.3f} to {min(loss[1:]):.3f}: it doesn't learn.",
        likely_cause="The learning rate is too high, or a backbone without weights is frozen.",
        changes=_new(run, {"train.optimizer.learning_rate": run.train.optimizer.learning_rate / 10}),
    )


def low_accuracy(run: Measured) -> Advice | None:
    """Accuracy under LOW_ACCURACY."""
    accuracy = _trained(run).accuracy
    if accuracy >= LOW_ACCURACY:
        return None
    network = run.train.model.architecture
    changes = {
        "train.model.architecture": "mobilenet_v3_small" if network == "custom_light" else network,
        "train.augmentation.enabled": True,
        "train.augmentation.rotation_degrees": max(15.0, run.train.augmentation.rotation_degrees),
        "train.optimizer.learning_rate": min(0.0001, run.train.optimizer.learning_rate),
        "train.epochs": max(100, run.train.epochs),
    }
    return Advice(
        finding=f"Accuracy {accuracy:.1%} is under {LOW_ACCURACY:.0%}.",
        likely_cause="The network is too small for the task or was trained too short or too coarsely.",
        changes=_new(run, changes),
    )


def noisy_labels(run: Measured) -> Advice | None:
    """Accuracy between LOW_ACCURACY and the target, on FER-2013's original labels."""
    accuracy = _trained(run).accuracy
    if not LOW_ACCURACY <= accuracy < run.targets.min_accuracy or run.prepare.label_set != "fer2013":
        return None
    return Advice(
        finding=f"Accuracy {accuracy:.1%} misses {run.targets.min_accuracy:.0%} on original labels.",
        likely_cause="FER-2013's original labels agree with the majority of ten annotators on two of three "
        "images: they cap what any network can reach.",
        changes=_new(run, {"prepare.label_set": "ferplus_votes"}),
        beyond_config="Put fer2013new.csv (FER+) beside fer2013.csv first.",
    )


def near_target(run: Measured) -> Advice | None:
    """Accuracy between LOW_ACCURACY and the target on labels that are good already: a better network."""
    accuracy = _trained(run).accuracy
    if not LOW_ACCURACY <= accuracy < run.targets.min_accuracy or run.prepare.label_set == "fer2013":
        return None
    changes = {
        "train.model.architecture": "resnet_native",
        "train.optimizer.schedule": "cosine",
        "train.augmentation.mixup_alpha": max(0.2, run.train.augmentation.mixup_alpha),
    }
    return Advice(
        finding=f"Accuracy {accuracy:.1%} misses {run.targets.min_accuracy:.0%}.",
        likely_cause="Enlarged 48-pixel faces hold no more than the faces themselves; a network at their own "
        "resolution and a cosine rate reached more in the same time.",
        changes=_new(run, changes),
    )


def overfitting(run: Measured) -> Advice | None:
    """Validation loss over OVERFITTING_RATIO times the training loss, mean of the last three epochs."""
    ratio = _loss_ratio(run.history)
    if ratio is None or ratio < OVERFITTING_RATIO:
        return None
    changes = {
        "train.model.dropout": 0.5,
        "train.model.l2": min(0.01, max(run.train.model.l2 * 5, 0.005)),
        "train.augmentation.enabled": True,
        "train.augmentation.rotation_degrees": max(15.0, run.train.augmentation.rotation_degrees),
        "train.early_stopping_patience": min(5, run.train.early_stopping_patience),
    }
    return Advice(
        finding=f"At the end the validation loss is {ratio:.1f} times the training loss.",
        likely_cause="Overfitting: the network learns its training images by heart.",
        changes=_new(run, changes),
    )


def stopped_early(run: Measured) -> Advice | None:
    """The best validation figure came in the last tenth of the epochs that the config allows."""
    values = run.history.get(run.train.monitor, [])
    if len(values) < run.train.epochs or not values:
        return None
    best = values.index(max(values) if run.train.monitor == "val_accuracy" else min(values))
    if best + 1 <= 0.9 * run.train.epochs:
        return None
    return Advice(
        finding=f"Epoch {best + 1} of {run.train.epochs} was the best: the network was still getting better.",
        likely_cause="Too few epochs.",
        changes=_new(run, {"train.epochs": min(1000, 2 * run.train.epochs)}),
    )


def worn_start(run: Measured) -> Advice | None:
    """A release that training started from had learnt from more test images than the target allows."""
    share = run.int8.left_out / (run.int8.images + run.int8.left_out)
    if share <= run.targets.max_seen_share:
        return None
    return Advice(
        finding=f"Training started from a release that knew {share:.0%} of the test images.",
        likely_cause="The data set has grown much, or its preparation was changed, so images went from one "
        "split to another.",
        changes=_new(run, {"train.init_from": ""}),
        beyond_config="One night from scratch is enough; the next ones may start from its champion.",
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
        changes=_new(run, changes),
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
        changes=_new(run, changes),
    )


def quantization_loss(run: Measured) -> Advice | None:
    """INT8 loses more accuracy than the target allows."""
    loss = _points_lost(run)
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
        changes=_new(run, changes),
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
        changes=_new(run, changes if run.train.model.architecture == "mobilenet_v3_small" else {}),
    )


def weak_class(run: Measured) -> Advice | None:
    """The lowest recall lies LOW_RECALL_GAP under the macro recall, or under its floor."""
    trained = _trained(run)
    recalls = {name: one.recall for name, one in trained.per_class.items() if one.recall is not None}
    name = min(recalls, key=recalls.__getitem__)
    floor = run.targets.class_recall_floors.get(name, run.targets.min_class_recall) or 0
    if recalls[name] >= max(floor, trained.macro_recall - LOW_RECALL_GAP):
        return None
    errors = [error for error in trained.common_errors if error.truth == name]
    taken_for = f"; {errors[0].share:.0%} of it is taken for {errors[0].predicted}" if errors else ""
    real = _real_images(run).get(name, 0)
    return Advice(
        finding=f"Only {recalls[name]:.0%} of {name} is found, of all classes {trained.macro_recall:.0%}"
        f"{taken_for}.",
        likely_cause=f"{name} has {real:,} real training images, or its labels overlap with the class it is "
        "taken for: look at the most confident errors.",
        changes=_new(run, {"train.balance_outputs": True}) or _new(run, {"train.class_weights": 1.0}),
        beyond_config=f"Collect more images of {name}, of people and light like those of the other classes.",
    )


def imbalance(run: Measured) -> Advice | None:
    """Training images differ by IMBALANCE between classes, and nothing balances them."""
    counts = {name: images for name, images in run.counts.get("train", {}).items() if images}
    if len(counts) < 2 or run.train.class_weights == 1:
        return None
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[large] < IMBALANCE * counts[small]:
        return None
    return Advice(
        finding=f"{large} has {counts[large]:,} training images, {small} {counts[small]:,}.",
        likely_cause="An imbalanced data set teaches the network to guess the frequent class.",
        changes=_new(run, {"prepare.target_per_class": max(5000, run.prepare.target_per_class)})
        or {"train.class_weights": 1.0},
    )


def few_images(run: Measured) -> Advice | None:
    """A class has fewer real training images than FEW_IMAGES."""
    scarce = {name: images for name, images in _real_images(run).items() if images < FEW_IMAGES}
    if not scarce:
        return None
    listed = ", ".join(f"{name} {images}" for name, images in scarce.items())
    return Advice(
        finding=f"Fewer than {FEW_IMAGES} real training images: {listed}.",
        likely_cause="Augmented copies of few photos teach those people and rooms, not the expression.",
        beyond_config="Collect more photos of different people; augmentation can't replace them.",
    )


def uncertain_figures(run: Measured) -> Advice | None:
    """Accuracy's 95 % interval is wider than WIDE_INTERVAL."""
    low, high = run.int8.accuracy_ci
    if high - low <= WIDE_INTERVAL:
        return None
    wanted = 100 * round(run.int8.images * ((high - low) / WIDE_INTERVAL) ** 2 / 100)
    return Advice(
        finding=f"{run.int8.images:,} test images tell accuracy to ± {50 * (high - low):.1f} points only.",
        likely_cause="The test split is small: a better or worse night may be chance.",
        beyond_config=f"About {wanted:,} test images bring it to ± 2 points.",
    )


def poor_calibration(run: Measured) -> Advice | None:
    """ECE over POOR_CALIBRATION."""
    if run.int8.ece <= POOR_CALIBRATION:
        return None
    too_sure = run.int8.mean_confidence > run.int8.accuracy
    changes: dict[str, Value] = {"train.label_smoothing": 0.1}
    if not too_sure:
        changes = {"train.label_smoothing": 0.0, "train.augmentation.mixup_alpha": 0.0}
    return Advice(
        finding=f"The model is too {'sure' if too_sure else 'modest'}: ECE {run.int8.ece:.2f}.",
        likely_cause="Hard labels and long training make a network too sure, soft targets too modest.",
        changes=_new(run, changes),
    )


RULES: tuple[Callable[[Measured], Advice | None], ...] = (
    stalled, low_accuracy, noisy_labels, near_target, overfitting, stopped_early, worn_start,
    quantization_loss, split_graph, high_latency, large_model, weak_class, imbalance, few_images,
    uncertain_figures, poor_calibration,
)  # fmt: skip


def _new(run: Measured, changes: dict[str, Value]) -> dict[str, Value]:
    """The changes that differ from the run's own config."""
    return {path: value for path, value in changes.items() if _current(run, path) != value}


def _current(run: Measured, path: str) -> Value:
    value: object = run
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _trained(run: Measured) -> Evaluation:
    """What training is judged by: INT8, but float where quantization loses more than its bound.

    What that loses isn't put down to training: `quantization_loss` tells of it.
    """
    lossy = _points_lost(run) > run.targets.max_quantization_loss
    return run.float_evaluation if run.float_evaluation and lossy else run.int8


def _points_lost(run: Measured) -> float:
    """Accuracy lost by quantization in points; none where the float model was not evaluated."""
    return 100 * (run.float_evaluation.accuracy - run.int8.accuracy) if run.float_evaluation else 0.0


def _loss_ratio(history: dict[str, list[float]]) -> float | None:
    training, validation = sum(history.get("loss", [])[-3:]), sum(history.get("val_loss", [])[-3:])
    return validation / training if training > 0 and validation > 0 else None


def _real_images(run: Measured) -> dict[str, int]:
    """Training images per expected class, augmented ones not counted."""
    total, augmented = run.counts.get("train", {}), run.counts.get("train_augmented", {})
    return {name: total.get(name, 0) - augmented.get(name, 0) for name in run.prepare.expected_classes}
