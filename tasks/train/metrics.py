"""What training is measured by: accuracy, precision, recall and AUC against each image's first label.

Soft labels (votes, mixup) train the network; Keras' precision, recall and AUC would count every class with
any vote as right, so they are shown the class with the most votes.
"""

from tasks.classes import CLASSES


def new_metrics():
    """Fresh metrics named accuracy, precision, recall and auc, for labels and predictions (N, 5)."""
    from keras import metrics

    return [
        metrics.CategoricalAccuracy(name="accuracy"),
        _against_first_label(metrics.Precision, name="precision"),
        _against_first_label(metrics.Recall, name="recall"),
        _against_first_label(metrics.AUC, name="auc", num_thresholds=50),
    ]


def _against_first_label(kind, **options):
    from keras import ops

    class AgainstFirstLabel(kind):
        def update_state(self, y_true, y_pred, sample_weight=None):
            first = ops.one_hot(ops.argmax(y_true, axis=-1), len(CLASSES))
            return super().update_state(first, y_pred, sample_weight)

    return AgainstFirstLabel(**options)
