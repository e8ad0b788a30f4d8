"""When data counts as shifted, and what is done then."""

from pydantic import BaseModel, ConfigDict, Field

STRONG_PSI = 0.25


class DriftConfig(BaseModel):
    """What counts as a shift against the champion's data."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Drift")

    max_psi: float = Field(
        default=STRONG_PSI, gt=0, le=10, description="Population stability index above which data has shifted"
    )
    stop: bool = Field(default=False, description="End the run before training where the data has shifted")
