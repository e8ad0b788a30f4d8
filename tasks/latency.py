"""How long one frame takes: the figures that a benchmark gives, on this machine or on a device."""

from pydantic import BaseModel


class Latency(BaseModel, frozen=True, title="Latency", allow_inf_nan=False):
    """Of `runs` timed frames, milliseconds for one; `std_ms` is the sample's own (n - 1)."""

    runs: int
    mean_ms: float
    std_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    fps: float
    """Frames a second at the mean."""

    def row(self) -> dict[str, float]:
        """For a table on a terminal, which has 80 columns."""
        named = {"mean ms": self.mean_ms, "std": self.std_ms, "p50": self.p50_ms}
        named |= {"p95": self.p95_ms, "p99": self.p99_ms}
        return {name: round(value, 3) for name, value in named.items()} | {"FPS": round(self.fps, 1)}
