"""All that a report can tell of one night, and the one word for how it ended."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from tasks.advice import Advice
from tasks.champion import AgainstChampion
from tasks.convert import ConvertedModels
from tasks.drift import Drift
from tasks.evaluate import Agreement, Evaluation
from tasks.evaluate.layers import LayerError
from tasks.gate import GateConfig, Verdict
from tasks.prepare import PreparedData
from tasks.register import Release
from tasks.rollout import DeviceOutcome, FleetOutcome
from tasks.train import TrainedModel

Outcome = Literal[
    "Deployed", "PartlyDeployed", "NotDeployed", "RolloutFailed", "Registered", "Accepted", "Rejected",
]  # fmt: skip


class DriftedInputs(BaseModel, frozen=True):
    """What there is to tell of a night that was stopped before it trained."""

    experiment_id: str
    started_at: datetime
    config: dict[str, Any]
    data: PreparedData
    drift: Drift

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        return (
            f"Nothing was trained: {', '.join(self.drift.report.shifted)} shifted against the data of "
            f"champion {self.drift.champion}."
        )


class ReportInputs(BaseModel, frozen=True):
    """The results of the stages. What a run didn't reach is None and its section says so.

    `converted`, `evaluations` hold the formats by name ("float" is the Keras model, "int8" the one to
    release); `config` is the run's whole configuration as plain data; `stage_seconds` is time per stage.
    """

    experiment_id: str
    started_at: datetime
    config: dict[str, Any]
    targets: GateConfig
    data: PreparedData
    trained: TrainedModel
    evaluations: dict[str, Evaluation]
    converted: ConvertedModels
    verdict: Verdict
    agreement: Agreement | None = None
    champion: AgainstChampion | None = None
    drift: Drift | None = None
    layer_errors: tuple[LayerError, ...] = ()
    advice: tuple[Advice, ...] = ()
    release: Release | None = None
    fleet: FleetOutcome | None = None
    stage_seconds: dict[str, float] = {}
    versions: dict[str, str] = {}
    run_url: str | None = None

    @property
    def int8(self) -> Evaluation:
        return self.evaluations["int8"]

    @property
    def updated(self) -> int:
        """How many devices run the new release."""
        return sum(device.outcome == "updated" for device in self._devices)

    @property
    def outcome(self) -> Outcome:
        """Accepted: the gate passed, and the release was not made yet. Registered: no fleet was asked for.

        RolloutFailed: a device refused the release, or the rollout was stopped. PartlyDeployed: devices
        were away.
        """
        if not self.verdict.passed:
            return "Rejected"
        if self.release is None:
            return "Accepted"
        if not self._devices:
            return "Registered"
        if self.updated == len(self._devices):
            return "Deployed"
        if self.fleet.stopped or self.fleet.failed:
            return "RolloutFailed"
        return "PartlyDeployed" if self.updated else "NotDeployed"

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        if self.outcome == "Rejected":
            missed = ", ".join(check.name for check in self.verdict.failed)
            return f"Nothing was released. Missed targets: {missed}."
        if self.release is None:
            return "The candidate passed every check; its release is the next step."
        if not self._devices:
            return f"Release {self.release.version} is registered; no fleet was asked for."
        return f"Release {self.release.version} runs on {self.updated} of {len(self._devices)} devices."

    @property
    def slowest_p95_ms(self) -> float | None:
        """p95 latency of the slowest device that measured."""
        return max((device.benchmark.p95_ms for device in self._devices if device.benchmark), default=None)

    @property
    def _devices(self) -> tuple[DeviceOutcome, ...]:
        return self.fleet.devices if self.fleet else ()
