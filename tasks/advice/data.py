"""What to try next for the data: weak and rare classes, few images, figures that tell little."""

from tasks.advice.advice import Advice, Value, new_values, real_images, training_figures
from tasks.config.prepare import SPLITS
from tasks.gate import RELEASE_CHECKS
from tasks.night import Night
from tasks.train.operating_point import FEWEST_IMAGES

LOW_RECALL_GAP = 0.15
"""Recall this far under the macro recall marks a weak class."""
IMBALANCE = 5
"""Largest class over smallest, in training images, from which imbalance shows."""
FEW_IMAGES = 100
"""Images that the phase document asks for at least, per class, before they are split."""
WIDE_INTERVAL = 0.04
"""Width of accuracy's 95 % interval above which a night's gain can't be told from chance."""
POOR_CALIBRATION = 0.10
"""ECE above which a confidence threshold means little."""


def weak_class(run: Night) -> Advice | None:
    """The lowest recall lies LOW_RECALL_GAP under the macro recall, or under its floor."""
    trained = training_figures(run)
    recalls = {name: one.recall for name, one in trained.per_class.items() if one.recall is not None}
    name = min(recalls, key=recalls.__getitem__)
    floor = run.config.targets.class_recall_floors.get(name, run.config.targets.min_class_recall) or 0
    if recalls[name] >= max(floor, trained.macro_recall - LOW_RECALL_GAP):
        return None
    errors = [error for error in trained.common_errors if error.truth == name]
    taken_for = f"; {errors[0].share:.0%} of it is taken for {errors[0].predicted}" if errors else ""
    real = real_images(run).get(name, 0)
    can_shift = run.made.data.counts.get("val", {}).get(name, 0) >= FEWEST_IMAGES
    return Advice(
        finding=f"Only {recalls[name]:.0%} of {name} is found, of all classes {trained.macro_recall:.0%}"
        f"{taken_for}.",
        likely_cause=f"{name} has {real:,} real training images, or its labels overlap with the class it is "
        "taken for: look at the most confident errors.",
        changes=new_values(
            run,
            {"train.accuracy_for_recall": 0.01}
            if can_shift and not run.config.train.accuracy_for_recall
            else {"train.class_weights": 1.0},
        ),
        beyond_config=f"Collect more images of {name}, of people and light like those of the other classes.",
    )


def imbalance(run: Night) -> Advice | None:
    """What an epoch draws differs by IMBALANCE between classes, and nothing balances it."""
    every = run.made.data.counts
    drawn = every.get("train_drawn", every.get("train", {}))
    counts = {name: images for name, images in drawn.items() if images}
    if len(counts) < 2 or run.config.train.class_weights == 1:
        return None
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[large] < IMBALANCE * counts[small]:
        return None
    return Advice(
        finding=f"An epoch draws {counts[large]:,} images of {large}, {counts[small]:,} of {small}.",
        likely_cause="An imbalanced data set teaches the network to guess the frequent class.",
        changes=new_values(run, {"prepare.target_per_class": max(5000, run.config.prepare.target_per_class)})
        or {"train.class_weights": 1.0},
    )


def few_images(run: Night) -> Advice | None:
    """A class has fewer images than FEW_IMAGES in all splits together."""
    counts = run.made.data.counts
    every = {name: sum(counts.get(split, {}).get(name, 0) for split in SPLITS) for name in real_images(run)}
    scarce = {name: images for name, images in every.items() if images < FEW_IMAGES}
    if not scarce:
        return None
    listed = ", ".join(f"{name} {images}" for name, images in scarce.items())
    return Advice(
        finding=f"Fewer than {FEW_IMAGES} images: {listed}.",
        likely_cause="Few photos, however often drawn, teach those people and rooms, not the expression.",
        beyond_config="Collect more photos of different people; augmentation can't replace them.",
    )


def uncertain_figures(run: Night) -> Advice | None:
    """Accuracy's 95 % interval is wider than WIDE_INTERVAL."""
    images, (low, high) = run.made.int8.images, run.made.int8.accuracy_ci
    if high - low <= WIDE_INTERVAL:
        return None
    wanted = 100 * round(images * ((high - low) / WIDE_INTERVAL) ** 2 / 100)
    return Advice(
        finding=f"{images:,} test images tell accuracy to ± {50 * (high - low):.1f} points only.",
        likely_cause="The test split is small: a better or worse night may be chance.",
        beyond_config=f"About {wanted:,} test images bring it to ± 2 points.",
    )


def within_chance(run: Night) -> Advice | None:
    """Rejected only because it may be worse than a release, and it may be as good as that, too."""
    failed = run.verdict.failed if run.verdict else ()
    ranges = {check.name: check.interval for check in failed if check.interval and check.interval[1] >= 0}
    if not failed or len(ranges) < len(failed) or not ranges.keys() <= set(RELEASE_CHECKS.values()):
        return None
    found = "; ".join(f"{name} ({low:+.1f} to {high:+.1f} points)" for name, (low, high) in ranges.items())
    return Advice(
        finding=f"Nothing was missed but {found}: it may be worse, and it may be as good.",
        likely_cause="Chance suffices: three trainings of one preset on the same images, of different seeds, "
        "were 0.4 to 0.7 points apart.",
        beyond_config="The champion stays, and nothing needs repair. New images may make the next night "
        "better; more test images tell smaller differences.",
    )


def poor_calibration(run: Night) -> Advice | None:
    """ECE over POOR_CALIBRATION, where the config can change it: learning from votes makes modest, too."""
    int8 = run.made.int8
    if int8.ece <= POOR_CALIBRATION:
        return None
    too_sure = int8.mean_confidence > int8.accuracy
    changes: dict[str, Value] = {"train.label_smoothing": 0.1}
    if not too_sure:
        changes = {"train.label_smoothing": 0.0, "train.augmentation.mixup_alpha": 0.0}
    if not (changes := new_values(run, changes)):
        return None
    return Advice(
        finding=f"The model is too {'sure' if too_sure else 'modest'}: ECE {int8.ece:.2f}.",
        likely_cause="Hard labels and long training make a network too sure, soft targets too modest.",
        changes=changes,
    )
