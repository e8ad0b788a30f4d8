"""What to try next in training: learning rate, epochs, network, start."""

from tasks.advice.measured import Advice, Measured, new_values, training_figures

LOW_ACCURACY = 0.70
"""The phase document's bound under which it advises another network, more augmentation, a lower rate."""
OVERFITTING_RATIO = 1.5
"""Validation loss over training loss that counts as "far over"."""
STALLED_GAIN = 0.02
"""Share by which the training loss must fall over the whole run to count as learning at all."""


def stalled(run: Measured) -> Advice | None:
    """The training loss fell by less than STALLED_GAIN: nothing was learnt."""
    loss = run.history.get("loss", [])
    if len(loss) < 2 or min(loss[1:]) < loss[0] * (1 - STALLED_GAIN):
        return None
    return Advice(
        finding=f"The training loss went from {loss[0]:.3f} to {min(loss[1:]):.3f}: it doesn't learn.",
        likely_cause="The learning rate is too high, or a backbone without weights is frozen.",
        changes=new_values(run, {"train.optimizer.learning_rate": run.train.optimizer.learning_rate / 10}),
    )


def low_accuracy(run: Measured) -> Advice | None:
    """Accuracy under LOW_ACCURACY."""
    accuracy = training_figures(run).accuracy
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
        changes=new_values(run, changes),
    )


def noisy_labels(run: Measured) -> Advice | None:
    """Accuracy between LOW_ACCURACY and the target, on FER-2013's original labels."""
    accuracy = training_figures(run).accuracy
    if not LOW_ACCURACY <= accuracy < run.targets.min_accuracy or run.prepare.label_set != "fer2013":
        return None
    return Advice(
        finding=f"Accuracy {accuracy:.1%} misses {run.targets.min_accuracy:.0%} on original labels.",
        likely_cause="FER-2013's original labels agree with the majority of ten annotators on two of three "
        "images: they cap what any network can reach.",
        changes=new_values(run, {"prepare.label_set": "ferplus_votes"}),
        beyond_config="Put fer2013new.csv (FER+) beside fer2013.csv first.",
    )


def near_target(run: Measured) -> Advice | None:
    """Accuracy between LOW_ACCURACY and the target on labels that are good already: a better network."""
    accuracy = training_figures(run).accuracy
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
        changes=new_values(run, changes),
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
        changes=new_values(run, changes),
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
        changes=new_values(run, {"train.epochs": min(1000, 2 * run.train.epochs)}),
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
        changes=new_values(run, {"train.init_from": ""}),
        beyond_config="One night from scratch is enough; the next ones may start from its champion.",
    )


def _loss_ratio(history: dict[str, list[float]]) -> float | None:
    training, validation = sum(history.get("loss", [])[-3:]), sum(history.get("val_loss", [])[-3:])
    return validation / training if training > 0 and validation > 0 else None
