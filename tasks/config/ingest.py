"""Where images come from, and what this machine keeps of them."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from storage.errors import InputError
from storage.objects import check_key
from tasks.vocabulary import Numbers, vocabulary

Use = Literal["train", "evaluate"]


class Source(BaseModel, frozen=True, extra="forbid", title="Source"):
    """One named data set in the store."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Name in reports and image ids; lower case, digits, - and _",
    )
    prefix: str = Field(description="Folder in the store, e.g. datasets/custom")
    format: Literal["auto", "fer2013_csv", "class_folders"] = Field(
        default="auto",
        description="Layout; auto takes fer2013.csv where there is one, else folders named by class",
    )
    lists: tuple[str, ...] = Field(
        default=(),
        description="Files below prefix that say the class of each image, a line an image (CSV, TSV or "
        "text), where folders don't, e.g. EmoLabel/list_patition_label.txt",
    )
    numbers: Numbers = Field(
        default="",
        description="Whose numbers the class folders or lists use: fer2013, affectnet or raf_db; empty: they "
        "use names",
    )
    mapping: dict[str, str] = Field(
        default={},
        description='Further names or numbers and the class or emotion that each means, as {"tired": '
        '"fatigue"}; an empty one leaves its images out',
    )
    use: Use = Field(
        default="train",
        description="train: images for training, validation and test. evaluate: never learnt from, every "
        "model is measured on it beside the test split",
    )
    required: bool = Field(default=True, description="Whether a run without any file of it is an error")

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, prefix: str) -> str:
        return check_key(prefix.strip("/"))

    @field_validator("lists")
    @classmethod
    def _are_below_it(cls, lists: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_key(name) for name in lists)

    @model_validator(mode="after")
    def _labels_make_sense(self) -> "Source":
        if self.lists and self.format != "auto":
            raise ValueError(f"lists: expected with format = 'auto' only, got format = {self.format!r}")
        vocabulary(self.numbers, self.mapping)
        return self

    @property
    def vocabulary(self) -> dict[str, str]:
        """What its folders and lists say, in lower case, to our names; "": left out."""
        return vocabulary(self.numbers, self.mapping)


class IngestConfig(BaseModel, frozen=True, extra="forbid", title="Ingest"):
    """Where the images come from, and what this machine keeps of them."""

    sources: tuple[Source, ...] = Field(
        default=(
            Source(name="fer2013", prefix="datasets/fer2013"),
            Source(name="custom", prefix="datasets/custom", required=False),
        ),
        min_length=1,
        description="Data sets to combine; each name once",
    )
    max_threads: int = Field(
        default=32, ge=1, le=256, description="Objects fetched at the same time, count, 1 to 256"
    )
    max_image_bytes: int = Field(
        default=64 * 2**20, ge=2**10, description="Largest image file accepted, bytes, 1 KiB or more"
    )
    cache_max_bytes: int = Field(
        default=50 * 2**30, ge=2**20, description="Bound of the local cache, bytes, 1 MiB or more"
    )
    recheck_days: int = Field(
        default=30,
        ge=0,
        le=3650,
        description="Days within which every cached file is hashed again; 0 never, 1 every run",
    )

    @model_validator(mode="after")
    def _some_are_to_learn_from(self) -> "IngestConfig":
        if all(source.use == "evaluate" for source in self.sources):
            raise InputError(
                f"sources: all of {', '.join(source.name for source in self.sources)} have use = 'evaluate'; "
                "at least one must have use = 'train'"
            )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> "IngestConfig":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise InputError(f"two sources claim one name: {', '.join(names)}; give each its own")
        return self
