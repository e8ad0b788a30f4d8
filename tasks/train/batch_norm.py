"""Batch-norm statistics for the network as it will be used: of its final weights, on images as they are.

While it trains, batch norm keeps a running mean over augmented batches, made by weights that still change.
What is validated and kept has other weights, their average, and sees other images, unaugmented and not filled
up for rare classes; with the running statistics it loses points of accuracy and finds rare classes too
seldom (docs/experiments.md). So they are computed anew: precise batch norm (Wu and Johnson, 2021, "Rethinking
Batch in BatchNorm", section 3), on images of the kind to come (section 5 there).
"""

from collections.abc import Callable

import numpy as np

from tasks.config.train import TrainConfig
from tasks.prepare.splits import Split
from tasks.train.networks import build_network

_BATCH = 256
"""Images at once: as many as validation takes, so no more memory than that."""

Weights = list[np.ndarray]


def new_statistics(config: TrainConfig, split: Split) -> Callable[[Weights], Weights]:
    """A function from all weights of `config`'s network to the same weights with statistics of their own.

    They are the means over batches of `config.batch_norm_images` real training images, the same ones at every
    call. Frozen layers keep theirs.
    """
    # momentum 0: a layer then holds the statistics of its last batch alone. Unrounded: where rounding makes a
    # channel constant, its variance of then would make noise of it in the network that is kept
    alone = {"batch_norm_momentum": 0.0, "dropout": 0.0, "head_dropout": 0.0, "quantization_aware": False}
    twin = build_network(config.model.model_copy(update=alone), split.images.shape[1], split.images.shape[3])
    real = np.flatnonzero(~split.augmented)
    chosen = np.random.default_rng(config.seed).permutation(real)[: config.batch_norm_images]
    batches = np.array_split(chosen, -(-len(chosen) // _BATCH))

    def estimate(weights: Weights) -> Weights:
        twin.set_weights(weights)
        seen = []
        for rows in batches:
            twin(split.images[rows], training=True)
            seen.append([variable.numpy() for variable in twin.non_trainable_weights])
        for variable, values in zip(twin.non_trainable_weights, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0, dtype=np.float64))
        return twin.get_weights()

    return estimate
