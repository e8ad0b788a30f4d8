"""What conversion hands on."""

import hashlib
from pathlib import Path

from pydantic import BaseModel

from storage.manifest import TensorInfo
from tasks.config.convert import Format
from tasks.convert.coral import Coral
from tasks.latency import Latency


class TfliteModel(BaseModel, frozen=True, extra="forbid"):
    """A file that ai-edge-litert has loaded and run with its default delegate on this machine."""

    format: Format
    path: Path
    bytes: int
    sha256: str
    input: TensorInfo
    output: TensorInfo
    min_runtime_version: str
    delegate_partitions: int | None
    undelegated: tuple[str, ...]
    """Operations that run outside of the delegate's partitions, in order."""
    widened: tuple[str, ...] = ()
    """Tensors whose range had to be widened for XNNPACK (`tasks.convert.ranges`)."""
    host_latency: Latency | None = None
    """On the machine that converted it, one thread; None: not measured."""
    instructions_m: float | None = None
    """Millions of instructions per inference, by the user's own counter; None: there is none."""

    def at(self, path: Path) -> "TfliteModel":
        """The same file where it lies now."""
        return self.model_copy(update={"path": path})

    def is_whole(self) -> bool:
        """Whether its file is there with the bytes that were tried."""
        return self.path.exists() and hashlib.sha256(self.path.read_bytes()).hexdigest() == self.sha256

    @property
    def host_p95_ms(self) -> float | None:
        """What the gate judges of the latency here."""
        return self.host_latency.p95_ms if self.host_latency else None


class ConvertedModels(BaseModel, frozen=True, extra="forbid"):
    """The files by format."""

    models: dict[str, TfliteModel]
    coral: Coral | None = None
    made_of: str = ""
    """SHA-256 of weights, calibration images and settings; empty of an earlier version's."""

    @property
    def int8(self) -> TfliteModel:
        """The one that devices run."""
        return self.models["int8"]
