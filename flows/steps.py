"""Each step of a night alone, as a person takes it: prepare, train, evaluate, convert, benchmark, report.

Requires: an object store with data sets (README, "Your data"); the last four an experiment, or a file.
They run the night's own tasks on the night's own records: an experiment whose steps were taken by hand is a
night that has not ended, and `run` with its configuration goes on with it, to a release.
Ends as Prepared, Trained, Evaluated, Converted, Benchmarked or Reported, or as an error that names what is
amiss. The forms are short ones; the command line takes the whole configuration for prepare and train.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, Field

from deployments.fleet import Device
from flows.night import RunningNight, running_night
from flows.nightly import FormData, FormTraining, NightForm, whole_config
from flows.retrain import make_candidate
from flows.said import run_name
from flows.site import Site, open_site
from storage.errors import InputError
from storage.lease import exclusively
from storage.opening import open_store
from tasks.benchmark import BenchmarkConfig
from tasks.benchmark_file import benchmark_file, check_tflite
from tasks.config import RetrainConfig
from tasks.config.convert import Format
from tasks.convert import ConvertConfig, TfliteModel, convert_model
from tasks.evaluate import Evaluation, evaluate_model
from tasks.evaluate.cameras import evaluate_cameras
from tasks.evaluate.elsewhere import evaluate_elsewhere
from tasks.experiment import MODEL, NEWEST, bring_experiment, data_of, find_experiment, seen_by
from tasks.gate import GateConfig, judge_candidate
from tasks.ingest import ingest_sources
from tasks.night import find_night
from tasks.prepare import PreparedData, prepare_dataset
from tasks.report.publish import keep_experiment, publish_report
from tasks.rollout import RolloutConfig
from tasks.rollout.release import check_fleet
from tasks.train import train_model

_STORE = (
    "Object store: s3://bucket/prefix or a directory. Empty: the environment variable STRESS_VISION_STORE."
)
_WORK = "Directory for caches and unfinished work. Empty: STRESS_VISION_WORK or the default."


class StepForm(BaseModel, frozen=True, extra="forbid", title="Data and training"):
    """What a person decides; what is left empty comes from the settings in the store, or the preset."""

    data: FormData = Field(default=FormData(), title="Data")
    training: FormTraining = Field(default=FormTraining(), title="Training")

    def config(self) -> RetrainConfig:
        """The whole configuration, as a night's form gives it."""
        return whole_config(NightForm(data=self.data, training=self.training))


class ExperimentRequest(BaseModel, frozen=True, extra="forbid", title="Experiment"):
    """Which experiment to go on from."""

    store: str = Field(default="", description=_STORE)
    experiment: str = Field(
        default=NEWEST, description="YYYYMMDD_HHMMSS, or newest: the last one whose training ended."
    )
    work_dir: str = Field(default="", description=_WORK)


class ConversionRequest(ExperimentRequest, frozen=True, extra="forbid", title="Conversion"):
    """Which formats to write of which experiment."""

    formats: tuple[Format, ...] = Field(
        default=("int8", "float16", "float32"),
        description="Formats to write: int8 (always written), float16, float32.",
    )


class BenchmarkRequest(BaseModel, frozen=True, extra="forbid", title="Benchmark of a file"):
    """Which .tflite to time, and where."""

    file: str = Field(description="Path of a .tflite on the machine that runs this.")
    device: str = Field(default="", description="A device of the inventory. Empty: this machine.")
    inventory: str = Field(
        default="", description="The fleet's TOML file, for a device. Empty: STRESS_VISION_INVENTORY."
    )
    runs: int = Field(
        default=100,
        ge=10,
        le=10_000,
        description="Timed frames, at least: a device goes on until it has timed for two seconds.",
    )
    max_latency_ms: float = Field(
        default=GateConfig().max_latency_ms, gt=0, description="p95 of a frame that is wanted, at most (ms)."
    )


class StepResult(BaseModel, frozen=True):
    """What a step's final state carries for whoever started it."""

    rows: tuple[dict[str, Any], ...] = ()
    files: tuple[Path, ...] = ()
    experiment: str = ""


def prepare_alone(config: RetrainConfig) -> State:
    """Fetch what is new in the sources and prepare the data set."""
    data = _prepared(training_site(config), config)
    rows = [{"split": split, **counts} for split, counts in data.counts.items() if any(counts.values())]
    told = f"Data set {data.fingerprint}, labels {data.label_set}"
    return _ended("Prepared", f"{told}{', as it was' if data.reused else ''}.", rows, [data.directory])


def train_alone(config: RetrainConfig) -> State:
    """Prepare the data set and train on it: an experiment, which evaluate, convert and report go on from."""
    site = training_site(config)
    ingested = ingest_sources(site.store, config.data, site.work)
    with running_night(site, config, ingested.fingerprint) as night:
        data = night.keep("data", prepare_dataset(site.store, ingested, config.prepare, site.work))
        trained = train_model(site.store, data, night.record.config.train, night.record.id, site.work)
        keep_experiment(site.store, night.directory)
    found = f"epoch {trained.best_epoch} of {trained.epochs} kept"
    accuracy = trained.history["val_accuracy"][trained.best_epoch - 1]
    message = f"Experiment {night.record.id}: {found}, validation accuracy {accuracy:.1%}."
    return _ended("Trained", message, files=[trained.model_path], experiment=night.record.id)


def alone(name: str) -> Flow[[RetrainConfig], State]:
    """The step of a whole configuration, as the command line has it; the forms' configurations are short."""
    step = prepare_alone if name == "prepare" else train_alone
    return flow(name=name, flow_run_name=run_name)(step)


@flow(name="prepare", flow_run_name=run_name)
def prepare(config: StepForm = StepForm()) -> State:  # noqa: B008 (frozen)
    """Prepare the data set of the store's images.

    Args:
        config: Which data, and the preset, which says how classes are balanced.
    """
    return prepare_alone(config.config())


@flow(name="train", flow_run_name=run_name)
def train(config: StepForm = StepForm()) -> State:  # noqa: B008 (frozen)
    """Train a network; nothing is judged, released or rolled out.

    Args:
        config: Which data, which preset, and for how long.
    """
    return train_alone(config.config())


@flow(name="evaluate", flow_run_name=run_name)
def evaluate(config: ExperimentRequest = ExperimentRequest()) -> State:  # noqa: B008 (frozen)
    """Measure an experiment's network, and its TFLite files, on the test split.

    Args:
        config: Which experiment.
    """
    site, directory, data = _experiment(config)
    converted = (directory / f"model_{name}.tflite" for name in get_args(Format))
    files = [directory / MODEL, *(path for path in converted if path.exists())]
    measured = [_measured(path, data, directory) for path in files]
    if (int8 := directory / "model_int8.tflite").exists():
        evaluate_cameras(int8, data, directory, "int8", seen=seen_by(directory))
        evaluate_elsewhere(int8, data, directory, "int8", seen=seen_by(directory))
    keep_experiment(site.store, directory)
    message = f"Experiment {directory.name} on {measured[0].images:,} test images that it never saw."
    if absent := measured[0].absent:
        message += f" None of them shows {' or '.join(absent)}: the means are of the other classes."
    files = [path for one in measured for path in (one.json_path, one.pictures["confusion_matrix"])]
    return _ended("Evaluated", message, map(_row, measured), files, directory.name)


@flow(name="convert", flow_run_name=run_name)
def convert(config: ConversionRequest = ConversionRequest()) -> State:  # noqa: B008 (frozen)
    """Convert an experiment's network to TFLite; accuracy, size and latency of each file are verified.

    Args:
        config: Which experiment, and to which formats.
    """
    site, directory, data = _experiment(config)
    converted = convert_model(directory / MODEL, data, ConvertConfig(formats=config.formats), directory)
    floating = _measured(directory / MODEL, data, directory).accuracy
    rows = [
        _file_row(file, _measured(file.path, data, directory).accuracy, floating)
        for file in converted.models.values()
    ]
    keep_experiment(site.store, directory)
    limit_mb = GateConfig().max_model_mb
    int8_mb = converted.int8.bytes / 1e6
    fits = "within" if int8_mb <= limit_mb else "over"
    message = f"Experiment {directory.name}: INT8 {int8_mb:.2f} MB, {fits} {limit_mb:g} MB."
    files = [file.path for file in converted.models.values()]
    return _ended("Converted", message, rows, files, directory.name)


@flow(name="benchmark", flow_run_name=run_name)
def benchmark(config: BenchmarkRequest) -> State:
    """Time a .tflite file, on this machine or on a device of the inventory, without a rollout.

    Args:
        config: Which file, and where.
    """
    path = check_tflite(Path(config.file).expanduser())
    device = device_of(config)
    timeout_s = RolloutConfig().command_timeout_s
    figures = benchmark_file(path, device, BenchmarkConfig(runs=config.runs), timeout_s)
    where = device.name if device else "this machine"
    verdict = "within" if figures.p95_ms <= config.max_latency_ms else "over"
    message = f"{path.name} on {where}: p95 {figures.p95_ms:.2f} ms, {verdict} {config.max_latency_ms:g} ms."
    return _ended("Benchmarked", message, [{"on": where, "runs": figures.runs, **figures.row()}])


@flow(name="report", flow_run_name=run_name)
def report(config: ExperimentRequest = ExperimentRequest()) -> State:  # noqa: B008 (frozen)
    """Write an experiment's report again; what of it was not measured and judged yet is now.

    Args:
        config: Which experiment.
    """
    site, directory, data = _experiment(config)
    record = find_night(open_store(site.store), directory.name, site.work)
    with exclusively(site.work / "nights" / record.key[:16]):
        night = RunningNight(site, record)
        if night.record.data is None:
            night.keep("data", data)
        made = record.candidate or night.keep("candidate", make_candidate(site, night, data))
        verdict = record.verdict or night.keep("verdict", judge_candidate(made, record.config.targets))
        page = publish_report(site.store, night.record, night.directory)
    missed = f"missed {', '.join(verdict.missed)}" if verdict.missed else "every target reached"
    return _ended(
        "Reported", f"Experiment {directory.name}: {missed}.", files=[page], experiment=directory.name
    )


def training_site(config: RetrainConfig) -> Site:
    """As a night's, less what only a release and a rollout need."""
    folders = [source.prefix for source in config.data.sources]
    return open_site(config.store, config.work_dir, None, folders)


def _prepared(site: Site, config: RetrainConfig) -> PreparedData:
    ingested = ingest_sources(site.store, config.data, site.work)
    return prepare_dataset(site.store, ingested, config.prepare, site.work)


def device_of(config: BenchmarkRequest) -> Device | None:
    """The device that is to time the file; None for this machine.

    InputError without an inventory, FleetError where it has no such device.
    """
    if not config.device:
        return None
    fleet = check_fleet(RolloutConfig(inventory=config.inventory))
    if fleet is None:
        raise InputError(
            f"device {config.device}: no inventory is given; name the fleet's TOML file with --inventory "
            "or in STRESS_VISION_INVENTORY"
        )
    return fleet.device(config.device)


def _experiment(config: ExperimentRequest) -> tuple[Site, Path, PreparedData]:
    """The site, the experiment's folder there, and the data set it was trained on."""
    site = open_site(config.store, config.work_dir, None, ("datasets", "experiments"))
    store = open_store(site.store)
    experiment = find_experiment(store, site.work, config.experiment)
    directory = bring_experiment(store, site.work, experiment)
    return site, directory, data_of(store, site.work, directory)


def _measured(path: Path, data: PreparedData, directory: Path) -> Evaluation:
    name = "float" if path.name == MODEL else path.stem.removeprefix("model_")
    return evaluate_model(path, data, directory, name, seen=seen_by(directory))


def _row(one: Evaluation) -> dict[str, Any]:
    low, high = one.accuracy_ci
    figures = {"accuracy": one.accuracy, "precision": one.macro_precision, "recall": one.macro_recall}
    figures |= {"F1": one.macro_f1, "AUC": one.auc}
    rounded = {name: None if value is None else round(value, 3) for name, value in figures.items()}
    accuracy, interval = rounded.pop("accuracy"), f"{low:.3f} to {high:.3f}"
    return {"model": one.model, "accuracy": accuracy, "95 % interval": interval, **rounded}


def _file_row(file: TfliteModel, accuracy: float, floating: float) -> dict[str, Any]:
    """What conversion made of it, beside the accuracy of the network as trained."""
    verified = {"accuracy": round(accuracy, 3), "points lost": round(100 * (floating - accuracy), 1)}
    timing = file.host_latency.row() if file.host_latency else {}
    return {"model": file.format, "MB": round(file.bytes / 1e6, 3), **verified, **timing}


def _ended(
    name: str,
    message: str,
    rows: Iterable[dict[str, Any]] = (),
    files: Iterable[Path] = (),
    experiment: str = "",
) -> State:
    result = StepResult(rows=tuple(rows), files=tuple(files), experiment=experiment)
    return Completed(name=name, message=message, data=result)
