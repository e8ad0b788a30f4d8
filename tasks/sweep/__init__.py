"""Compare what a sweep's variants reached on the validation split with what they cost.

In: per variant a `TrainedModel`, the evaluations of its float and INT8 model on "val", and its files.
Out: `Outcome`s, a table, sweep.json and accuracy_cost.png. A sweep chooses, so nothing here may come from
the test split: the winner's test figures are those of the night that runs it.
"""

from tasks.sweep.outcome import (
    Failed,
    Figures,
    Finished,
    Outcome,
    best,
    figures_of,
    frontier,
    recall_figures,
    record_figures,
)
from tasks.sweep.publish import conclusion, publish_sweep, table, write_sweep

__all__ = [
    "Failed",
    "Figures",
    "Finished",
    "Outcome",
    "best",
    "conclusion",
    "figures_of",
    "frontier",
    "publish_sweep",
    "recall_figures",
    "record_figures",
    "table",
    "write_sweep",
]
