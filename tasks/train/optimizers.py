"""The optimiser and its learning rate."""

from tasks.config.train import TrainConfig


def new_optimizer(config: TrainConfig, steps_per_epoch: int):
    """The configured optimiser; with ema_momentum it also keeps the average of the weights."""
    from keras import optimizers

    ours = config.optimizer
    common = {"learning_rate": _learning_rate(config, steps_per_epoch)}
    if ours.clip_norm:
        common |= {"global_clipnorm": ours.clip_norm}
    if ours.ema_momentum:
        common |= {"use_ema": True, "ema_momentum": ours.ema_momentum}
    if ours.name == "sgd":
        return _warm_average(optimizers.SGD)(momentum=ours.momentum, **common)
    if ours.name == "adam":
        return _warm_average(optimizers.Adam)(**common)
    optimizer = _warm_average(optimizers.AdamW)(weight_decay=ours.weight_decay, **common)
    # shrinking batch-norm scales and biases buys nothing and slows learning
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _warm_average(kind):
    """`kind` with an average that soon forgets the random weights of the start.

    Its momentum in step n is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage; with a
    constant one of 0.998, validation of the first 400 steps would judge random weights.
    """
    from keras import ops

    class WarmAverage(kind):
        def _update_model_variables_moving_average(self, trainable_variables):
            configured, step = self.ema_momentum, ops.cast(self.iterations, "float32")
            self.ema_momentum = ops.minimum(configured, (1 + step) / (10 + step))
            super()._update_model_variables_moving_average(trainable_variables)
            self.ema_momentum = configured

    return WarmAverage


def _learning_rate(config: TrainConfig, steps_per_epoch: int):
    """A constant (ReduceLROnPlateau lowers it), or a warm-up followed by a cosine down to zero."""
    from keras import optimizers

    ours = config.optimizer
    if ours.schedule == "plateau":
        return ours.learning_rate
    total = config.epochs * steps_per_epoch
    warmup = min(round(ours.warmup_epochs * steps_per_epoch), total - 1)
    if not warmup:
        return optimizers.schedules.CosineDecay(ours.learning_rate, total)
    return optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=ours.learning_rate, warmup_steps=warmup
    )
