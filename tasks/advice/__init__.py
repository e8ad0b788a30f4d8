"""What a person would try next, from measured figures alone.

In: the `Night` with its candidate. Out: a tuple of `Advice`, the most pressing first.
Each rule is one function: it states its threshold, looks at figures, and gives one piece of advice or None.
A change that the config holds already is never advised. The rules are the phase document's, and those
that measurements of this project added; none of them can tune the test set, they only name what to try.
"""

from collections.abc import Callable

from tasks.advice.advice import Advice
from tasks.advice.data import (
    few_images,
    imbalance,
    poor_calibration,
    uncertain_figures,
    weak_class,
    within_chance,
)
from tasks.advice.device import high_latency, large_model, quantization_loss, split_graph
from tasks.advice.training import (
    low_accuracy,
    near_target,
    noisy_labels,
    overfitting,
    stalled,
    stopped_early,
    worn_start,
)
from tasks.night import Night

__all__ = ["RULES", "Advice", "advise"]

RULES: tuple[Callable[[Night], Advice | None], ...] = (
    stalled, within_chance, noisy_labels, low_accuracy, near_target, overfitting, stopped_early, worn_start,
    quantization_loss, split_graph, high_latency, large_model, weak_class, imbalance, few_images,
    uncertain_figures, poor_calibration,
)  # fmt: skip


def advise(night: Night) -> tuple[Advice, ...]:
    """All advice that the rules give, in the order of `RULES`; none for a night that trained nothing."""
    found = (rule(night) for rule in RULES) if night.candidate else ()
    return tuple(one for one in found if one is not None)
