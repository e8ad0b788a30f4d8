"""What training is measured by: accuracy, precision, recall and AUC against each image's first label.

Soft labels (votes, mixup) train the network; Keras' precision, recall and AUC would count every class with
any vote as right, so they are shown the class with the most votes. Emotions are summed to classes first.
"""

from tasks.classes import CLASSES
from tasks.prepare.labels import CLASS_SUMS


def new_metrics():
    """Fresh accuracy, precision, recall and auc, for labels and predictions (N, 5) or (N, 8)."""
    from keras import metrics

    return [
        _by_class(metrics.CategoricalAccuracy, name="accuracy"),
        _by_class(metrics.Precision, name="precision"),
        _by_class(metrics.Recall, name="recall"),
        _by_class(metrics.AUC, name="auc", num_thresholds=50),
    ]


def _by_class(kind, **options):
    from keras import ops

    class ByClass(kind):
        def update_state(self, y_true, y_pred, sample_weight=None):
            y_true, y_pred = _summed(y_true), _summed(y_pred)
            first = ops.one_hot(ops.argmax(y_true, axis=-1), len(CLASSES))
            return super().update_state(first, y_pred, sample_weight)

    return ByClass(**options)


def _summed(shares):
    from keras import ops

    if shares.shape[-1] == len(CLASSES):
        return shares
    return ops.matmul(shares, CLASS_SUMS)
