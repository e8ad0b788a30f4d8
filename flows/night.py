"""What one night has measured, and what follows from it: verdict, release's facts, report, final state."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from flows.config import RetrainConfig
from flows.experiment import Experiment
from tasks.advice import Measured, advise
from tasks.champion import AgainstChampion
from tasks.convert import ConvertedModels
from tasks.drift import Drift
from tasks.evaluate import Evaluation, agreement, load_predictions
from tasks.evaluate.layers import LayerError
from tasks.gate import Figures, Verdict, figures_of, judge
from tasks.ingest import Ingested
from tasks.prepare import PreparedData
from tasks.register import Release, ReleaseNotes
from tasks.report import ReportInputs, installed_versions
from tasks.rollout import FleetOutcome
from tasks.train import TrainedModel, starts_from_release


@dataclass(frozen=True)
class Night:
    """The results of all stages up to the gate."""

    config: RetrainConfig
    started: datetime
    experiment: Experiment
    ingested: Ingested
    data: PreparedData
    drift: Drift | None
    trained: TrainedModel
    original: Evaluation
    converted: ConvertedModels
    quantized: Evaluation
    champion: AgainstChampion | None

    @cached_property
    def verdict(self) -> Verdict:
        """The gate's judgement of the INT8 model as it will run."""
        figures = figures_of(
            self.quantized,
            self.original,
            model_bytes=self.converted.int8.bytes,
            host_latency_ms=self.converted.int8.host_latency_ms["p95"],
            leaked_pairs=self.data.leaked_pairs,
            delegate_partitions=self.converted.int8.delegate_partitions,
            instructions_m=self.converted.int8.instructions_m,
            warm_start=starts_from_release(self.config.train),
            against_champion=self.champion.paired if self.champion else None,
        )
        return judge(figures, self.config.targets, Figures() if self.champion else None)

    @property
    def lost_by_quantization(self) -> bool:
        """Whether INT8 loses more than its bound, so that it is worth knowing which layers lose it."""
        return any(check.name == "quantization loss" for check in self.verdict.failed)

    @property
    def notes(self) -> ReleaseNotes:
        """What the release's manifest says of the model."""
        return ReleaseNotes(
            experiment_id=self.experiment.id,
            metrics={
                "accuracy": self.quantized.accuracy,
                "macro_recall": self.quantized.macro_recall,
                "float_accuracy": self.original.accuracy,
            },
            max_latency_ms=self.config.targets.max_latency_ms,
        )

    def report_inputs(
        self, release: Release | None, fleet: FleetOutcome | None, layers: tuple[LayerError, ...]
    ) -> ReportInputs:
        """All results for the report; `release` and `fleet` are None where the run didn't get there."""
        float32, int8 = load_predictions(self.original)[0], load_predictions(self.quantized)[0]
        return ReportInputs(
            experiment_id=self.experiment.id,
            started_at=self.started,
            config=self.config.model_dump(mode="json"),
            targets=self.config.targets,
            data=self.data,
            trained=self.trained,
            evaluations={"float": self.original, "int8": self.quantized},
            converted=self.converted,
            verdict=self.verdict,
            agreement=agreement(float32, int8),
            champion=self.champion,
            drift=self.drift,
            layer_errors=layers,
            advice=advise(self._measured(fleet, layers)),
            release=release,
            fleet=fleet,
            stage_seconds={
                "ingest": self.ingested.seconds,
                "train": self.trained.seconds,
                "evaluate": self.original.seconds + self.quantized.seconds,
            },
            versions=installed_versions(),
        )

    def _measured(self, fleet: FleetOutcome | None, layers: tuple[LayerError, ...]) -> Measured:
        devices = [device.benchmark.p95_ms for device in fleet.devices if device.benchmark] if fleet else []
        int8 = self.converted.int8
        return Measured(
            train=self.config.train,
            prepare=self.config.prepare,
            targets=self.config.targets,
            history=self.trained.history,
            counts=self.data.counts,
            int8=self.quantized,
            float_evaluation=self.original,
            model_bytes=int8.bytes,
            latency_ms=max(devices, default=int8.host_latency_ms["p95"]),
            delegate_partitions=int8.delegate_partitions,
            undelegated=int8.undelegated,
            layer_errors=layers,
        )
