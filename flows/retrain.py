"""The nightly story: new images in, a proven release on the fleet out.

Requires: an object store with data sets (README, "Your data"). With an inventory, every device needs a
pinned host key and a key file that opens it.
Ends as Deployed, Registered (no fleet given), PartlyDeployed, Rejected, Drifted, Skipped, or Failed.
"""

from datetime import UTC, datetime

from prefect import flow
from prefect.states import Completed, State

from flows.config import RetrainConfig, store_uri, work_path
from flows.experiment import (
    Experiment,
    champion_of,
    close_experiment,
    ended_experiment,
    experiment_key,
    from_champion,
    open_experiment,
)
from flows.night import Night
from flows.outcome import drifted_state, night_state
from storage.identity import store_identity
from storage.opening import open_store
from tasks.champion import measure_against_champion
from tasks.convert import convert_model
from tasks.drift import Drift, watch_drift
from tasks.evaluate import evaluate_model, measure_layers
from tasks.ingest import ingest_sources
from tasks.prepare import PreparedData, prepare_dataset
from tasks.register import promote_release, register_release
from tasks.report import DriftedInputs
from tasks.report.publish import publish_drift_report, publish_report
from tasks.rollout import roll_out_release
from tasks.train import train_model


@flow(name="retrain")
def retrain(config: RetrainConfig = RetrainConfig()) -> State:  # noqa: B008 (frozen)
    """Retrain on the data in the store, judge the INT8 model, and roll out what passes.

    Args:
        config: Where the data is, how to train, what to reach, and which devices to update.
    """
    started = datetime.now(UTC)
    store, work = store_uri(config.store), work_path(config.work_dir)

    store_id = store_identity(open_store(store), (source.prefix for source in config.data.sources))
    ingested = ingest_sources(store, config.data, work)
    key = experiment_key(config, ingested.fingerprint)
    if not config.force and (ended := ended_experiment(open_store(store), key)):
        return Completed(name="Skipped", message=nothing_new(ended))
    experiment = open_experiment(work, key, champion_of(open_store(store)))
    config = from_champion(config, experiment.champion)

    data = prepare_dataset(store, ingested, config.prepare, work)
    drift = watch_drift(store, data, config.drift, experiment.directory)
    if config.drift.stop and drift and drift.report.shifted:
        return stopped_by_drift(store, config, started, experiment, data, drift)
    trained = train_model(store, data, config.train, experiment.id, work)
    seen, out = trained.seen_images, experiment.directory
    original = evaluate_model(trained.model_path, data, out, "float", seen=seen)
    converted = convert_model(trained.model_path, data, config.convert, out)
    quantized = evaluate_model(converted.int8.path, data, out, "int8", seen=seen)
    champion = measure_against_champion(store, data, quantized, work)

    night = Night(
        config, started, experiment, ingested, data, drift, trained, original, converted, quantized, champion
    )
    release = fleet = None
    if night.verdict.passed:
        release = register_release(store, store_id, converted.int8, data, night.notes, config.release, work)
        if config.rollout.inventory:
            fleet = roll_out_release(store, release, config.rollout)
        if fleet is None or fleet.accepted:
            promote_release(store, release, expected=experiment.champion, store_id=store_id)

    layers = measure_layers(converted, data) if night.lost_by_quantization else ()
    inputs = night.report_inputs(release, fleet, layers)
    report = publish_report(store, inputs, experiment.directory)
    state = night_state(inputs, report)
    close_experiment(open_store(store), experiment, state.name)
    return state


def nothing_new(ended: dict) -> str:
    """Why a night is skipped, and what to do if it should not be."""
    return (
        f"data and configuration are those of experiment {ended['experiment']}, which ended as "
        f"{ended['outcome']}; set force to train all the same, or roll its release out with the flow rollout"
    )


def stopped_by_drift(
    store: str,
    config: RetrainConfig,
    started: datetime,
    experiment: Experiment,
    data: PreparedData,
    drift: Drift,
) -> State:
    """The end of a night whose data is too far from the champion's to train on unseen."""
    settings = config.model_dump(mode="json")
    inputs = DriftedInputs(
        experiment_id=experiment.id, started_at=started, config=settings, data=data, drift=drift
    )
    report = publish_drift_report(store, inputs, experiment.directory)
    close_experiment(open_store(store), experiment, "Drifted")
    return drifted_state(inputs, report)
