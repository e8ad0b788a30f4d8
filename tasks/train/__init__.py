"""Train: a prepared data set in, a Keras network and the story of its training out.

In: PreparedData (images uint8 (N, P, P, C), votes float32 (N, 5)) and TrainConfig.
Out: TrainedModel, whose final_model.keras maps uint8 (N, P, P, C) to softmax float32 (N, 5).
"""

from pathlib import Path

from prefect import get_run_logger, task

from tasks.config.train import AugmentationConfig, ModelConfig, OptimizerConfig, TrainConfig
from tasks.prepare import PreparedData
from tasks.progress import showing_progress
from tasks.train.fit import TrainedModel, train
from tasks.train.seen import SEEN_IMAGES, unseen
from tasks.train.weights import name_start

__all__ = [
    "SEEN_IMAGES", "AugmentationConfig", "ModelConfig", "OptimizerConfig", "TrainConfig", "TrainedModel",
    "name_start", "train", "train_model", "unseen",
]  # fmt: skip


@task(name="train", task_run_name="train")
def train_model(
    store_uri: str, data: PreparedData, config: TrainConfig, experiment_id: str, work_dir: Path
) -> TrainedModel:
    """Train in `work_dir`/experiments/<experiment_id>, or go on there with what a killed run left."""
    from storage.opening import open_store

    log = get_run_logger()
    store = open_store(store_uri)
    directory = work_dir / "experiments" / experiment_id
    with showing_progress("training", "epochs", key="training-progress") as advanced:
        trained = train(data, config, directory, store=store, report=log.info, advanced=advanced)
    log.info("kept epoch %d of %d: experiments/%s", trained.best_epoch, trained.epochs, experiment_id)
    return trained
