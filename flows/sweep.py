"""Which configuration is worth a night? A handful of them, trained and compared on the validation split.

Requires: an object store with data sets (README, "Your data"). Never reads the test split: whoever chooses
by it has no honest figure left for the night that follows. Makes no release and touches no device.
Ends as Compared, or as an error where no variant finished.
"""

from pathlib import Path

from prefect import flow, get_run_logger, task, unmapped
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, State
from prefect.task_runners import ProcessPoolTaskRunner
from pydantic import BaseModel

from flows.config import store_uri, work_path
from flows.experiment import champion_of, experiment_key, new_directory, open_experiment
from flows.logs import log_our_errors_in_one_line
from flows.template import config_template
from flows.variants import SweepConfig, Variant
from storage.errors import ModelError
from storage.files import replacing
from storage.opening import open_store
from tasks.convert import convert_model
from tasks.evaluate import evaluate_model
from tasks.ingest import Ingested, ingest_sources
from tasks.prepare import prepare, prepare_dataset
from tasks.report.publish import upload_experiment
from tasks.sweep import (
    Failed,
    Figures,
    Finished,
    Outcome,
    best,
    conclusion,
    figures_of,
    publish_sweep,
    recall_figures,
    record_figures,
)
from tasks.train import train_model


class Compared(BaseModel, frozen=True):
    """What the final state carries."""

    outcomes: tuple[Outcome, ...]
    directory: Path


def run_sweep(config: SweepConfig) -> State:
    """Run the flow with as many trainings at once as the configuration says.

    Each training has a process of its own: seeds and precision are global to one.
    """
    runner = ProcessPoolTaskRunner(max_workers=config.parallel)
    with get_client(sync_client=True) as client:
        # a server that Prefect has started for this process; the others would each start one of their own
        server = {PREFECT_API_URL: str(client.api_url)}
    with temporary_settings(server):
        return sweep.with_options(task_runner=runner)(config, return_state=True)


@flow(name="sweep")
def sweep(config: SweepConfig) -> State:
    """Train every variant, and compare accuracy with cost on the validation split.

    Args:
        config: The configurations to compare.
    """
    store, work = store_uri(config.base.store), work_path(config.base.work_dir)
    config = config.from_champion(champion_of(open_store(store)))
    ingested = ingest_sources(store, config.base.data, work)
    for preparation in dict.fromkeys(variant.config.prepare for variant in config.variants):
        # once each, before variants need it; one that fails fails its variants, not the others
        prepare_dataset(store, ingested, preparation, work, return_state=True)
    runs = run_variant.map(config.variants, unmapped(ingested), unmapped(store), unmapped(work))
    outcomes = [_outcome(variant.name, run) for variant, run in zip(config.variants, runs, strict=True)]

    directory = new_directory(work / "sweeps")
    winner = best(outcomes)
    if winner:
        with replacing(directory / "winner.toml") as file:
            file.write(config_template(config.named(winner.name)).encode())
    publish_sweep(store, outcomes, directory)
    if winner is None:
        raise ModelError(conclusion(outcomes))
    ended = Compared(outcomes=tuple(outcomes), directory=directory)
    return Completed(name="Compared", message=conclusion(outcomes), data=ended)


@task(name="variant", task_run_name="variant-{variant.name}")
def run_variant(variant: Variant, ingested: Ingested, store: str, work: Path) -> Figures:
    """Train, evaluate and convert one variant, or remember that it is done already."""
    log_our_errors_in_one_line()
    config = variant.config
    key = experiment_key(config, ingested.fingerprint)
    if known := recall_figures(open_store(store), key):
        get_run_logger().info(
            "%s is experiment %s already: not trained again", variant.name, known.experiment_id
        )
        return known
    # left open: a night with this configuration goes on with it, and has no need to train again
    experiment = open_experiment(work, key)
    data = prepare(ingested, config.prepare, work)
    trained = train_model(store, data, config.train, experiment.id, work)
    original = evaluate_model(trained.model_path, data, experiment.directory, "val_float", "val")
    converted = convert_model(trained.model_path, data, config.convert, experiment.directory)
    quantized = evaluate_model(converted.int8.path, data, experiment.directory, "val_int8", "val")
    figures = figures_of(trained, original, converted.int8, quantized)
    upload_experiment(open_store(store), experiment.directory)
    record_figures(open_store(store), key, figures)
    return figures


def _outcome(name: str, run: PrefectFuture) -> Outcome:
    result = run.result(raise_on_failure=False)
    if isinstance(result, Figures):
        return Finished(name=name, figures=result)
    return Failed(name=name, error=str(result))
