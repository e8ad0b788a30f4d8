"""What a release contains besides the model."""

from pydantic import BaseModel, Field


class RegisterConfig(BaseModel, frozen=True, extra="forbid", title="Register"):
    golden_images: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Drawn images on which a device must give the outputs that the model gave here.",
    )
    golden_tolerance_lsb: int = Field(
        default=16,
        ge=0,
        le=64,
        description="Difference that another runtime may show in three of four golden images, in steps of "
        "1/256 of a probability.",
    )
    valid_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        description="Devices take a release no more once it is older than this; each rollout of the champion "
        "gives it as much time again. 0: it never expires.",
    )
