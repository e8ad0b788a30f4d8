"""Make a release of a converted model, and put it into the registry.

In: the INT8 model and the prepared data set. Out: `Release`, a directory that is its content:
    model_int8.tflite
    golden.npz       inputs uint8 (K, P, P, C), drawn, no person in them; outputs uint8 (K, classes)
    manifest.json    hashes, tensors, classes, figures, and what the device compares golden outputs by
    manifest.sig     where STRESS_VISION_SIGNING_KEY names a private ed25519 key file: its signature (OpenSSH)

ai-edge-litert with XNNPACK gives the same bits on x86 and aarch64, so a device that runs the same version
has to give the golden outputs bit for bit; another runtime uses other kernels, and the device allows it
`golden_tolerance_lsb` in most images (`deployments/pi/device.py`, `kin`). Nine trained networks answered
2,896 drawn images under tflite-runtime 2.14 with 5 to 10 steps off at the 95th percentile, 28 at most.
"""

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import get_run_logger, task
from pydantic import BaseModel, Field, FiniteFloat

from storage.errors import InputError
from storage.files import arriving_directory
from storage.manifest import MANIFEST, SIGNATURE, FileFacts, GoldenFacts, Manifest
from storage.opening import open_store
from storage.registry import Champion, Registry
from tasks.candidate import Candidate
from tasks.classes import CLASSES
from tasks.config.register import RegisterConfig
from tasks.convert import TfliteModel
from tasks.golden import classes_on_top, draw_candidates, spread
from tasks.litert import quantized_outputs
from tasks.prepare import PreparedData
from tasks.signing import sign

_MODEL, _GOLDEN = "model_int8.tflite", "golden.npz"
_BATCHES = 4


class Release(BaseModel, frozen=True, title="Release"):
    version: str
    uri: str
    manifest_sha256: str
    directory: Path


class ReleaseNotes(BaseModel, frozen=True, title="Release notes"):
    """What a release says of itself besides its files."""

    experiment_id: str = Field(pattern=r"^\d{8}_\d{6}$")
    metrics: dict[str, FiniteFloat | None]
    output_shift: dict[str, FiniteFloat] = Field(default_factory=dict)
    max_latency_ms: float


def notes_of(candidate: Candidate, max_latency_ms: float) -> ReleaseNotes:
    """What a candidate's release says of itself; a device refuses it where a frame takes longer than that."""
    metrics: dict[str, float | None] = {
        "accuracy": candidate.int8.accuracy,
        "macro_recall": candidate.int8.macro_recall,
        "float_accuracy": candidate.original.accuracy,
    }
    point = candidate.trained.operating_point
    if point:
        metrics |= {
            "validation_accuracy": point.after.accuracy,
            "validation_stress_recall": point.after.recall["stress"],
            "validation_stress_precision": point.after.precision["stress"],
        }
    return ReleaseNotes(
        experiment_id=candidate.trained.experiment_id,
        metrics=metrics,
        output_shift=point.shift if point else {},
        max_latency_ms=max_latency_ms,
    )


def release_version(experiment_id: str, model_sha256: str) -> str:
    """The version of that model as a release: the same one however often it is registered."""
    return f"{experiment_id.replace('_', '-')}-{model_sha256[:8]}"


def build_release(
    model: TfliteModel,
    data: PreparedData,
    notes: ReleaseNotes,
    config: RegisterConfig,
    releases: Path,
    sequence: int = 0,
) -> Path:
    """Write the release's folder `releases/<version>`, which appears only when whole.

    The same model, data, notes, configuration and sequence give the same bytes again.
    """
    directory = releases / release_version(notes.experiment_id, model.sha256)
    with arriving_directory(directory) as part:
        shutil.copyfile(model.path, part / _MODEL)
        inputs, outputs = golden_set(model, config.golden_images)
        np.savez(part / _GOLDEN, inputs=inputs, outputs=outputs)
        created_at = datetime.strptime(notes.experiment_id, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
        manifest = Manifest(
            version=directory.name,
            created_at=created_at,
            expires_at=created_at + timedelta(config.valid_days) if config.valid_days else None,
            model=_MODEL,
            golden=_golden_facts(model, len(inputs), config),
            files={name: FileFacts.of(part / name) for name in (_GOLDEN, _MODEL)},
            input=model.input,
            output=model.output,
            classes=CLASSES,
            absent_classes=data.absent,
            label_set=data.label_set,
            metrics=notes.metrics,
            output_shift=notes.output_shift,
            max_latency_ms=notes.max_latency_ms,
            data_fingerprint=data.fingerprint,
            experiment_id=notes.experiment_id,
            min_runtime_version=model.min_runtime_version,
            sequence=sequence,
        )
        (part / MANIFEST).write_bytes(manifest.content())
        if signature := sign(manifest.content()):
            (part / SIGNATURE).write_bytes(signature)
        shutil.rmtree(directory, ignore_errors=True)
    return directory


def golden_set(model: TfliteModel, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """At most `count` inputs uint8 (K, P, P, C), and the model's outputs uint8 (K, classes).

    Every class is the largest output at least once where any of a few thousand candidates makes it so.
    """
    _, px, _, channels = model.input.shape
    inputs, faces = draw_candidates(px, channels)
    outputs = quantized_outputs(model.path, inputs)
    for batch in range(1, _BATCHES):
        if classes_on_top(outputs) == outputs.shape[1]:
            break
        more, _ = draw_candidates(px, channels, batch)
        inputs = np.concatenate([inputs, more])
        outputs = np.concatenate([outputs, quantized_outputs(model.path, more)])
    chosen = spread(outputs, faces, count)
    return inputs[chosen], outputs[chosen]


def _golden_facts(model: TfliteModel, images: int, config: RegisterConfig) -> GoldenFacts:
    delegated = None if model.delegate_partitions is None else model.delegate_partitions > 0
    return GoldenFacts(
        file=_GOLDEN,
        images=images,
        runtime=f"ai-edge-litert {installed_version('ai-edge-litert')}",
        delegate=None if delegated is None else "xnnpack" if delegated else "none",
        tolerance_lsb=config.golden_tolerance_lsb,
    )


def register(
    registry: Registry,
    store_id: str,
    model: TfliteModel,
    data: PreparedData,
    notes: ReleaseNotes,
    config: RegisterConfig,
    releases: Path,
) -> Release:
    """Build a release under `releases` and publish it; one that was published already is taken as it is.

    `store_id` is the store's identity at the run's start: StoreError where it is another one by now.
    """
    version = release_version(notes.experiment_id, model.sha256)
    if version in registry.versions():
        directory = registry.fetch(version, releases)
    else:
        directory = build_release(model, data, notes, config, releases, registry.next_sequence())
        registry.publish(directory, store_id=store_id)
    return as_release(registry, directory)


def as_release(registry: Registry, directory: Path) -> Release:
    """The release that lies in `directory`, as it travels between tasks."""
    manifest = (directory / MANIFEST).read_bytes()
    return Release(
        version=directory.name,
        uri=registry.uri(directory.name),
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        directory=directory,
    )


@task(name="register", task_run_name="register")
def register_release(
    store_uri: str,
    store_id: str,
    candidate: Candidate,
    max_latency_ms: float,
    config: RegisterConfig,
    work_dir: Path,
) -> Release:
    """Register the candidate (see `register`); it is not champion yet."""
    registry, notes = Registry(open_store(store_uri)), notes_of(candidate, max_latency_ms)
    release = register(
        registry, store_id, candidate.model, candidate.data, notes, config, work_dir / "releases"
    )
    get_run_logger().info("registered %s", release.uri)
    return release


@task(name="fetch-release", task_run_name="fetch-release")
def fetch_release(store_uri: str, version: str, work_dir: Path) -> Release:
    """Bring a registered release here, checked by hash; `champion` is the champion's version."""
    registry = Registry(open_store(store_uri))
    if version == "champion":
        champion = registry.champion()
        if champion is None:
            raise InputError(f"{store_uri} has no champion yet; name one of {registry.versions()}")
        version = champion.version
    return as_release(registry, registry.fetch(version, work_dir / "releases"))


@task(name="promote", task_run_name="promote")
def promote_release(
    store_uri: str, release: Release, *, expected: str | None, store_id: str, anchor: str | None = None
) -> Champion:
    """Make a release the champion, in the place of `expected` (see `Registry.promote`)."""
    registry = Registry(open_store(store_uri))
    champion = registry.promote(release.version, expected=expected, store_id=store_id, anchor=anchor)
    get_run_logger().info("champion is now %s", champion.version)
    return champion
