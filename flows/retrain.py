"""The nightly story: new images in, a proven release on the fleet out.

Requires: an object store with data sets (README, "Your data"). With an inventory, every device needs a
pinned host key and a key file that opens it.
Ends as Deployed, Registered (no fleet given), PartlyDeployed, Rejected, Drifted, Skipped, or Failed.
"""

from datetime import UTC, datetime

from prefect import flow
from prefect.client.schemas.objects import State

from flows.logs import log_our_errors_in_one_line
from flows.night import RunningNight, nothing_left, running_night
from flows.outcome import night_state, skipped_state
from flows.said import night_name, say_outcome, this_run
from flows.site import Site, expect_champion, fleet_slot, night_slot, preflight
from flows.time_limit import time_limit
from flows.unseen import tell_unseen
from tasks.candidate import Candidate
from tasks.champion import measure_against_releases, new_anchor
from tasks.config import RetrainConfig
from tasks.convert import convert_model
from tasks.drift import watch_drift
from tasks.evaluate import evaluate_model, measure_layers
from tasks.evaluate.cameras import evaluate_cameras
from tasks.evaluate.elsewhere import evaluate_elsewhere
from tasks.gate import judge_candidate
from tasks.ingest import ingest_sources
from tasks.prepare import PreparedData, prepare_dataset
from tasks.register import promote_release, register_release
from tasks.report.publish import keep_experiment, publish_report
from tasks.rollout.release import roll_out_release
from tasks.train import train_model


@flow(name="retrain", flow_run_name=night_name)
def retrain(config: RetrainConfig = RetrainConfig()) -> State:  # noqa: B008 (frozen)
    """Retrain on the data in the store, judge the INT8 model, and roll out what passes.

    Args:
        config: Where the data is, how to train, what to reach, and which devices to update.
    """
    return run_night(config)


def run_night(config: RetrainConfig) -> State:
    """The night within its limits: one at a time, in its time, and with its outcome in the run's name."""
    log_our_errors_in_one_line()
    with time_limit(config.time_limit_h), night_slot(site := preflight(config)):
        state = one_night(site, config)
        tell_unseen(site)
        return say_outcome(state, config.preset)


def one_night(site: Site, config: RetrainConfig) -> State:
    """Everything from the images to the fleet, as far as the night gets."""
    ingested = ingest_sources(site.store, config.data, site.work)
    with running_night(site, config, ingested.fingerprint) as night:
        if why := nothing_left(site, night.record):
            again = night.record.run == this_run()  # by Retry on the run's page: it says what it said
            return night_state(night.record, night.report) if again else skipped_state(why)
        night.keep("run", this_run())
        data = night.keep("data", prepare_dataset(site.store, ingested, config.prepare, site.work))
        night.keep("drift", watch_drift(site.store, data, config.drift, night.directory))
        if not night.record.stopped_by_drift:
            candidate = night.record.candidate or night.keep("candidate", make_candidate(site, night, data))
            verdict = night.keep("verdict", judge_candidate(candidate, config.targets))
            if verdict.passed:
                release_candidate(site, night, candidate)
            elif "quantization loss" in verdict.missed:
                night.keep("layer_errors", measure_layers(candidate.converted, data))
        report = publish_report(site.store, night.record, night.directory)
        night.keep("ended_at", datetime.now(UTC))
        return night_state(night.record, report)


def make_candidate(site: Site, night: RunningNight, data: PreparedData) -> Candidate:
    """Train a network, convert it, and measure it as it will run: alone and against the champion."""
    config, out = night.record.config, night.directory
    trained = train_model(site.store, data, config.train, night.record.id, site.work)
    original = evaluate_model(trained.model_path, data, out, "float", seen=trained.seen_images)
    converted = convert_model(trained.model_path, data, config.convert, out)
    files = {
        name: evaluate_model(file.path, data, out, name, seen=trained.seen_images)
        for name, file in converted.models.items()
    }
    int8 = files.pop("int8")
    cameras = evaluate_cameras(converted.int8.path, data, out, "int8", seen=trained.seen_images)
    elsewhere = evaluate_elsewhere(converted.int8.path, data, out, "int8", seen=trained.seen_images)
    against = measure_against_releases(site.store, data, int8, site.work)
    return Candidate(
        data=data,
        trained=trained,
        original=original,
        converted=converted,
        int8=int8,
        float_files=files,
        cameras=cameras,
        elsewhere=elsewhere,
        against=against,
    )


def release_candidate(site: Site, night: RunningNight, candidate: Candidate) -> None:
    """Register it, bring it to the fleet if there is one, and make it champion where devices prove it."""
    config, before = night.record.config, night.record.champion
    limit_ms = config.targets.max_latency_ms
    with fleet_slot(site, f"retrain {night.record.id}") as held:
        expect_champion(site, before, night.record.release)
        keep_experiment(site.store, night.directory)
        release = night.record.release or register_release(
            site.store, site.store_id, candidate, limit_ms, config.release, site.work
        )
        night.keep("release", release)
        fleet = roll_out_release(site.store, release, config.rollout) if site.fleet else None
        night.keep("fleet", fleet)
        if fleet is None or fleet.accepted:
            held.check()
            anchor = new_anchor(release.version, candidate.against)
            promote_release(site.store, release, expected=before, store_id=site.store_id, anchor=anchor)
