"""Which configuration is worth a night? A handful of them, trained and compared on the validation split.

Requires: an object store with data sets (README, "Your data"). Never reads the test split: whoever chooses
by it has no honest figure left for the night that follows. Makes no release and touches no device.
Ends as Compared, or as an error where no variant finished.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from prefect.task_runners import ProcessPoolTaskRunner
from pydantic import BaseModel

from flows.logs import log_our_errors_in_one_line
from flows.night import running_night
from flows.said import run_name
from flows.site import Site, champion_of, new_directory, preflight
from flows.template import config_template
from flows.variants import SweepConfig, Variant
from storage.errors import ModelError
from storage.files import write_whole
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
        server: dict[Any, str] = {PREFECT_API_URL: str(client.api_url)}
    with temporary_settings(server):
        # Prefect annotates its runners as not fitting its own parameter
        options: dict[str, Any] = {"task_runner": runner}
        return sweep.with_options(**options)(config, return_state=True)


@flow(name="sweep", flow_run_name=run_name)
def sweep(config: SweepConfig) -> State:
    """Train every variant, and compare accuracy with cost on the validation split.

    Args:
        config: The configurations to compare.
    """
    site = preflight(config.base)
    config = config.from_champion(champion_of(site))
    ingested = ingest_sources(site.store, config.base.data, site.work)
    for preparation in dict.fromkeys(variant.config.prepare for variant in config.variants):
        # once each, before variants need it; one that fails fails its variants, not the others
        prepare_dataset(site.store, ingested, preparation, site.work, return_state=True)
    runs = run_variant.map(config.variants, unmapped(ingested), unmapped(site))
    outcomes = [_outcome(variant.name, run) for variant, run in zip(config.variants, runs, strict=True)]

    directory = new_directory(site.work / "sweeps")
    winner = best(outcomes)
    if winner:
        write_whole(directory / "winner.toml", config_template(config.named(winner.name)))
    publish_sweep(site.store, outcomes, directory)
    if winner is None:
        raise ModelError(conclusion(outcomes))
    ended = Compared(outcomes=tuple(outcomes), directory=directory)
    return Completed(name="Compared", message=conclusion(outcomes), data=ended)


@task(name="variant", task_run_name="variant-{variant.name}")
def run_variant(variant: Variant, ingested: Ingested, site: Site) -> Figures:
    """Train, evaluate and convert one variant, or remember that it is done already."""
    log_our_errors_in_one_line()
    config, store = variant.config, open_store(site.store)
    # not ended: a night with this configuration goes on with it, and has no need to train again
    with running_night(site, config, ingested.fingerprint) as night:
        if known := recall_figures(store, night.record.key):
            get_run_logger().info("%s is done: experiment %s", variant.name, known.experiment_id)
            return known
        data, out = prepare(ingested, config.prepare, site.work), night.directory
        trained = train_model(site.store, data, config.train, night.record.id, site.work)
        original = evaluate_model(trained.model_path, data, out, "val_float", "val")
        converted = convert_model(trained.model_path, data, config.convert, out)
        quantized = evaluate_model(converted.int8.path, data, out, "val_int8", "val")
        figures = figures_of(trained, original, converted.int8, quantized)
        upload_experiment(store, out)
        record_figures(store, night.record.key, figures)
    return figures


def _outcome(name: str, run: PrefectFuture) -> Outcome:
    result = run.result(raise_on_failure=False)
    if isinstance(result, Figures):
        return Finished(name=name, figures=result)
    return Failed(name=name, error=str(result))
