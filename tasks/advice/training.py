"""What to try next in training: learning rate, epochs, network, start."""

from tasks.advice.advice import Advice, Value, new_values, training_figures
from tasks.night import Night

LOW_ACCURACY = 0.70
"""The phase document's bound under which it advises another network, more augmentation, a lower rate."""
LOW_ON_ORIGINAL_LABELS = 0.60
"""The same bound where labels are FER-2013's own: a network that reaches 82.7 % on FER+'s gets 65 % there."""
OVERFITTING_RATIO = 1.5
"""Validation loss over training loss that counts as "far over"."""
STALLED_GAIN = 0.02
"""Share by which the training loss must fall over the whole run to count as learning at all."""
STILL_GAINING = 0.02
"""Share by which the validation loss falls in the last tenth of a run that was cut short; at the end of a
cosine rate it was at most a quarter of that (docs/experiments.md)."""


def stalled(run: Night) -> Advice | None:
    """The training loss fell by less than STALLED_GAIN: nothing was learnt."""
    loss = run.made.trained.history.get("loss", [])
    if len(loss) < 2 or min(loss[1:]) < loss[0] * (1 - STALLED_GAIN):
        return None
    return Advice(
        finding=f"The training loss went from {loss[0]:.3f} to {min(loss[1:]):.3f}: it doesn't learn.",
        likely_cause="The learning rate is too high, or a backbone without weights is frozen.",
        changes={"train.optimizer.learning_rate": run.config.train.optimizer.learning_rate / 10},
    )


def low_accuracy(run: Night) -> Advice | None:
    """Accuracy under LOW_ACCURACY, or so low that not even FER-2013's own labels explain it."""
    accuracy = training_figures(run).accuracy
    bound = LOW_ON_ORIGINAL_LABELS if _has_original_labels(run) else LOW_ACCURACY
    if accuracy >= bound:
        return None
    train, network = run.config.train, run.config.train.model.architecture
    changes = {
        "train.model.architecture": "mobilenet_v3_small" if network == "custom_light" else network,
        "train.augmentation.enabled": True,
        "train.augmentation.rotation_degrees": max(15.0, train.augmentation.rotation_degrees),
        "prepare.target_per_class": max(5000, run.config.prepare.target_per_class),
        "train.optimizer.learning_rate": min(0.0001, train.optimizer.learning_rate),
        "train.epochs": max(100, train.epochs),
    }
    return Advice(
        finding=f"Accuracy {accuracy:.1%} is under {bound:.0%}.",
        likely_cause="The network is too small for the task or was trained too short or too coarsely.",
        changes=new_values(run, changes),
    )


def noisy_labels(run: Night) -> Advice | None:
    """Accuracy under the target on FER-2013's original labels, however low."""
    accuracy, target = training_figures(run).accuracy, run.config.targets.min_accuracy
    if accuracy >= target or not _has_original_labels(run):
        return None
    return Advice(
        finding=f"Accuracy {accuracy:.1%} misses {target:.0%} on original labels.",
        likely_cause="FER-2013's original labels agree with the majority of ten annotators on two of three "
        "images: they cap what any network can reach.",
        changes=new_values(run, {"prepare.label_set": "auto"}),
        beyond_config="Put FER+'s fer2013new.csv beside FER-2013's images: its votes are then used.",
    )


def near_target(run: Night) -> Advice | None:
    """Accuracy between LOW_ACCURACY and the target on labels that are good already: a better network."""
    accuracy, target = training_figures(run).accuracy, run.config.targets.min_accuracy
    if not LOW_ACCURACY <= accuracy < target or _has_original_labels(run):
        return None
    large = run.config.preset in ("balanced", "highest_accuracy")
    changes: dict[str, Value] = {
        "preset": "highest_accuracy" if large else "balanced",
        "train.model.architecture": "resnet_native",
    }
    return Advice(
        finding=f"Accuracy {accuracy:.1%} misses {target:.0%}.",
        likely_cause="The network or the data: of the presets highest_accuracy found most, then balanced.",
        changes=new_values(run, changes),
        beyond_config="For the data: more images, and labels looked at.",
    )


def overfitting(run: Night) -> Advice | None:
    """Validation loss over OVERFITTING_RATIO times the training loss, mean of the last three epochs."""
    train, ratio = run.config.train, _loss_ratio(run.made.trained.history)
    if ratio is None or ratio < OVERFITTING_RATIO:
        return None
    stronger = {"train.model.l2": min(0.01, max(train.model.l2 * 5, 0.005))}
    changes = {
        "train.model.dropout": 0.5,
        # the only network with an L2 penalty; another one would take the value and do nothing with it
        **(stronger if train.model.architecture == "mobilenet_v3_small" else {}),
        "train.augmentation.enabled": True,
        "train.augmentation.rotation_degrees": max(15.0, train.augmentation.rotation_degrees),
        "train.early_stopping_patience": min(5, train.early_stopping_patience),
    }
    return Advice(
        finding=f"At the end the validation loss is {ratio:.1f} times the training loss.",
        likely_cause="Overfitting: the network learns its training images by heart.",
        changes=new_values(run, changes),
    )


def stopped_early(run: Night) -> Advice | None:
    """In the last tenth of the epochs that the config allows, the validation loss fell by STILL_GAINING.

    That the last epoch is the best one says nothing: at the end of a cosine rate it mostly is.
    """
    epochs, losses = run.config.train.epochs, run.made.trained.history.get("val_loss", [])
    last = max(1, epochs // 10)
    if not last < epochs <= len(losses):
        return None
    before, after = min(losses[:-last]), min(losses[-last:])
    if after >= before * (1 - STILL_GAINING):
        return None
    return Advice(
        finding=f"In the last {last} of {epochs} epochs the validation loss fell by {1 - after / before:.1%}"
        ": the network was still getting better.",
        likely_cause="Too few epochs.",
        changes=new_values(run, {"train.epochs": min(1000, 2 * epochs)}),
    )


def worn_start(run: Night) -> Advice | None:
    """A release that training started from had learnt from more test images than the target allows."""
    share = run.made.seen_share
    if share <= run.config.targets.max_seen_share:
        return None
    return Advice(
        finding=f"Training started from a release that knew {share:.0%} of the test images.",
        likely_cause="The data set has grown much, or its preparation was changed, so images went from one "
        "split to another.",
        changes=new_values(run, {"train.init_from": ""}),
        beyond_config="One night from scratch is enough; the next ones may start from its champion.",
    )


def _has_original_labels(run: Night) -> bool:
    return run.made.data.label_set == "fer2013"


def _loss_ratio(history: dict[str, list[float]]) -> float | None:
    training, validation = sum(history.get("loss", [])[-3:]), sum(history.get("val_loss", [])[-3:])
    return validation / training if training > 0 and validation > 0 else None
