"""What prepare hands on."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from storage.errors import InputError
from tasks.classes import CLASSES
from tasks.config.prepare import SPLITS, Drawing, LabelSet, PrepareConfig


class PreparedData(BaseModel):
    """A finished data set on disk. `load_split(prepared.directory, "train")` reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path
    fingerprint: str
    label_set: LabelSet
    image_px: int
    channels: int
    sources: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()
    """Sources that are only measured on: `load_elsewhere(prepared.directory, name)` reads one."""
    counts: dict[str, dict[str, int]]
    """train, val, test → class → real images. train_augmented: stored copies. train_drawn: by an epoch."""
    drawing: Drawing = Drawing()
    leaked_pairs: int | None = None
    """Pairs that the audit found across splits; None where there was no audit."""
    twin_share: float | None = None
    """Test images in the audit's sample of which a second look found the photo in train or val, share."""
    shortcut_added: float | None = None
    """Area under the curve by which nuisance figures tell a class better in the files than in originals."""
    metadata_path: Path
    reused: bool
    pictures: dict[str, Path]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of which no split has an image: the network can't tell them."""
        return tuple(
            name for name in CLASSES if not any(self.counts.get(split, {}).get(name) for split in SPLITS)
        )

    @classmethod
    def read(cls, directory: Path, reused: bool) -> "PreparedData":
        """The data set of a finished directory. InputError where its metadata can't be read."""
        path = directory / "metadata.json"
        try:
            metadata = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"prepare: {path} can't be read ({error}); delete {directory} and run again"
            ) from None
        return cls(
            directory=directory,
            elsewhere=tuple(metadata["elsewhere"]),
            leaked_pairs=metadata["audit"]["leaked_pairs"],
            twin_share=metadata["audit"]["second_look"]["share"],
            shortcut_added=metadata["audit"]["shortcuts"]["added"],
            drawing=PrepareConfig.model_validate(metadata["config"]).drawing,
            metadata_path=path,
            reused=reused,
            pictures={name: directory / file for name, file in metadata["pictures"].items()},
            **{
                key: metadata[key]
                for key in ("fingerprint", "label_set", "image_px", "channels", "sources", "counts")
            },
        )
