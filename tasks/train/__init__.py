"""Train: a prepared data set in, a Keras network and the story of its training out.

In: PreparedData (images uint8 (N, P, P, C), votes float32 (N, 5)) and TrainConfig.
Out: TrainedModel, whose final_model.keras maps uint8 (N, P, P, C) to softmax float32 (N, 5).
"""

from pathlib import Path

from prefect import get_run_logger, task

from tasks.prepare import PreparedData
from tasks.train.config import AugmentationConfig, ModelConfig, OptimizerConfig, TrainConfig
from tasks.train.fit import TrainedModel, train
from tasks.train.progress import finished_files

__all__ = [
    "AugmentationConfig", "ModelConfig", "OptimizerConfig", "TrainConfig", "TrainedModel",
    "train", "train_model",
]  # fmt: skip


@task
def train_model(
    store_uri: str, data: PreparedData, config: TrainConfig, experiment_id: str, work_dir: Path
) -> TrainedModel:
    """Train in `work_dir`/experiments/<experiment_id> and keep the experiment in the store."""
    from storage.objects import open_store

    log = get_run_logger()
    store = open_store(store_uri)
    trained = train(data, config, work_dir / "experiments" / experiment_id, store=store, report=log.info)
    for path in finished_files(trained.directory):
        store.upload(path, f"experiments/{experiment_id}/{path.relative_to(trained.directory).as_posix()}")
    log.info("kept epoch %d of %d: experiments/%s", trained.best_epoch, trained.epochs, experiment_id)
    return trained
