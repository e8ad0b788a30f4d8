"""What conversion is told: formats and calibration."""

from typing import Literal

from pydantic import BaseModel, Field

Format = Literal["int8", "float16", "float32"]


class ConvertConfig(BaseModel, frozen=True, extra="forbid", title="Conversion to TFLite"):
    """Formats to write and how INT8 is calibrated."""

    formats: tuple[Format, ...] = Field(
        default=("int8", "float16", "float32"),
        description="Formats to write: int8 (released to devices, always written), float16, float32.",
    )
    calibration_images: int = Field(
        default=500,
        ge=1,
        le=20_000,
        description="Real training images that set the INT8 ranges, 1 to 20000; augmented ones are left out.",
    )
    benchmark_runs: int = Field(
        default=100,
        ge=10,
        le=10_000,
        description="Timed runs on this machine, 10 to 10000, after a tenth as warm-up.",
    )
