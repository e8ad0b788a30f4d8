"""What a release says of itself, and whether its files are what it says.

In: `manifest.json` of a release, as bytes or in its folder. Out: `Manifest`. The program on a device
(`deployments/pi/device.py`) reads the same file by itself, since it can import nothing of ours.
"""

import hashlib
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, FiniteFloat, StringConstraints, ValidationError, model_validator

from storage.errors import StoreError
from storage.files import explained

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
UNHASHED = (SIGNATURE, MANIFEST)
"""What a release holds besides the files that its manifest names; the manifest is written last."""

VERSION = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
"""UTC time of the experiment and the first 8 digits of the model's SHA-256."""

Version = Annotated[str, StringConstraints(pattern=rf"^{VERSION.pattern}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""No folder, nothing hidden: a name never leads out of the release's folder."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileFacts(BaseModel, frozen=True):
    """What is fixed of one file."""

    sha256: Sha256
    bytes: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The facts of a file as it lies there."""
        content = path.read_bytes()
        return cls(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))

    def fits(self, path: Path) -> bool:
        """Whether the file is there and is this one."""
        return path.is_file() and FileFacts.of(path) == self


class TensorInfo(BaseModel, frozen=True):
    """An input or output: real value = (stored value - zero_point) * scale; scale 0 means not quantized."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


class GoldenFacts(BaseModel, frozen=True):
    """The golden set: inputs, and the outputs that a device has to give."""

    file: FileName
    images: int
    runtime: str
    """Name and version of the runtime that gave the outputs; the same one gives them bit for bit."""
    delegate: str | None = None
    """The delegate beside it, xnnpack or none; None in releases that don't say."""
    tolerance_lsb: int
    """By how many steps of an output another runtime may differ in most images."""


class Manifest(BaseModel, frozen=True):
    """What a release says of itself.

    Fields that this version doesn't know are passed over, not refused: releases stay in the store for years
    and are written by newer versions, too, while the file itself is fixed by hash and signature. A change
    that older versions must not pass over takes another number of `schema`.
    """

    format: Literal[1] = Field(default=1, alias="schema")
    version: Version
    created_at: datetime
    """When the experiment began, so that registering it again gives the same manifest."""
    model: FileName
    golden: GoldenFacts
    files: dict[FileName, FileFacts]
    input: TensorInfo
    output: TensorInfo
    classes: tuple[str, ...]
    absent_classes: tuple[str, ...] = ()
    """Classes that no image was of when it learnt: it can't tell them."""
    label_set: str
    metrics: dict[str, FiniteFloat | None]
    output_shift: dict[str, FiniteFloat] = Field(default_factory=dict)
    """What was added to each class's logits, within the model, to find rare classes more often."""
    max_latency_ms: FiniteFloat
    data_fingerprint: str
    experiment_id: str
    min_runtime_version: str
    sequence: int = Field(default=0, ge=0)
    """How many releases the store had before, and one: a device goes to a lower one only where ordered to."""

    expires_at: datetime | None = None
    """From then on no device takes it anew, unless an order gives it more time; what runs goes on running."""

    @model_validator(mode="after")
    def _names_its_files(self) -> Self:
        for name in (self.model, self.golden.file):
            if name not in self.files:
                raise ValueError(f"{name} is not one of its files")
        if stray := set(self.files) & set(UNHASHED):
            raise ValueError(f"{min(stray)} can't be one of its files")
        return self

    @classmethod
    def parse(cls, content: bytes, where: str, version: str) -> Self:
        """The manifest of release `version` from the bytes that lie at `where`.

        Raises StoreError where they are no manifest, or that of another release.
        """
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            raise StoreError(f"{where} is no release's manifest: {_first(error)}; publish it anew") from None
        if manifest.version != version:
            raise StoreError(
                f"{where} is the manifest of {manifest.version}, expected {version}; publish both anew"
            )
        return manifest

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The manifest in a release's folder, which is named by its version.

        Raises StoreError as `parse` does, MissingObject where there is none.
        """
        path = directory / MANIFEST
        with explained("read", path):
            return cls.parse(path.read_bytes(), str(path), directory.name)

    def content(self) -> bytes:
        """The bytes of manifest.json; equal manifests have equal ones."""
        return self.model_dump_json(by_alias=True, indent=1).encode()

    @property
    def lifetime(self) -> timedelta | None:
        """For how long it may be rolled out once it is made; None: for ever."""
        return self.expires_at - self.created_at if self.expires_at else None

    def damaged(self, directory: Path) -> list[str]:
        """The files in a release's folder that are absent or aren't what the manifest says."""
        return [name for name, facts in self.files.items() if not facts.fits(directory / name)]


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg']}" if place else found["msg"]
