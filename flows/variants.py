"""What a sweep compares: one configuration and the variants of it, from one TOML file.

preset = "balanced"            # all that `stress-vision run` accepts, for every variant
[train]
epochs = 20

[[variant]]
name = "as-is"

[[variant]]
name = "wide"                  # and whatever is different here
train.model.filters = [48, 96, 192, 384]
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from flows.config import parse_config, read_toml
from flows.night import from_champion
from storage.errors import InputError
from tasks.config import RetrainConfig, merge

MAY_DIFFER = {"preset", "prepare", "train", "convert"}
"""What a variant may change; the rest is about the data's place, or comes after the choice."""


class Variant(BaseModel, frozen=True, extra="forbid", title="Variant"):
    """One configuration under comparison."""

    name: str = Field(
        pattern=r"^[\w.+-]{1,40}$",
        description="Name in table and picture: up to 40 letters, digits and . _ + -.",
    )
    config: RetrainConfig = Field(description="The whole configuration, as of a run.")


class SweepConfig(BaseModel, frozen=True, extra="forbid", title="Sweep"):
    """Configurations that are trained and compared on the validation split."""

    variants: tuple[Variant, ...] = Field(
        min_length=1, max_length=50, description="1 to 50 configurations that differ in how a model is made."
    )
    parallel: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Trainings at once, 1 to 16; each uses all CPUs or the GPU of the machine.",
    )

    @property
    def base(self) -> RetrainConfig:
        """What all variants share: store, data and work directory."""
        return self.variants[0].config

    def named(self, name: str) -> RetrainConfig:
        """The configuration of the variant of that name."""
        return next(variant.config for variant in self.variants if variant.name == name)

    def from_champion(self, champion: str | None) -> "SweepConfig":
        """The same with the champion's version in every variant that starts from it."""
        variants = (
            variant.model_copy(update={"config": from_champion(variant.config, champion)})
            for variant in self.variants
        )
        return self.model_copy(update={"variants": tuple(variants)})

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        shared = self.base.model_dump(exclude=MAY_DIFFER)
        for variant in self.variants:
            ours = variant.config.model_dump(exclude=MAY_DIFFER)
            if differing := [key for key in shared if ours[key] != shared[key]]:
                allowed = ", ".join(sorted(MAY_DIFFER))
                raise ValueError(
                    f"variant {variant.name} changes {', '.join(differing)}; it may change {allowed}"
                )
        for one, other in combinations(self.variants, 2):
            if one.name == other.name:
                raise ValueError(f"two variants are named {one.name}")
            if one.config == other.config:
                raise ValueError(f"variants {one.name} and {other.name} are the same configuration")
        return self


def load_sweep(path: Path, store: str = "") -> SweepConfig:
    """Read the TOML file; `store` wins over the file's. Raises InputError, naming each bad field."""
    base = read_toml(path)
    tables, parallel = base.pop("variant", []), base.pop("parallel", 1)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise InputError(
            f"{path} names nothing to compare: give each variant a [[variant]] table with a name"
        )
    base |= {"store": store} if store else {}
    variants = list(_variants(base, tables, path))
    return parse_config(SweepConfig, {"variants": variants, "parallel": parallel}, str(path))


def _variants(base: dict[str, Any], tables: list[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    for number, table in enumerate(tables, start=1):
        name = table.pop("name", f"variant-{number}")
        config = parse_config(RetrainConfig, merge(base, table), f"{path}, variant {name}")
        yield {"name": name, "config": config}
