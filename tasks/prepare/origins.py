"""What became of a source's files: whose labels its images have, how many were left, what the canvas cost.

In: a source's blocks. Out: an `Origin`, for metadata.json, and sentences for log and report.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from pydantic import BaseModel, Field

from storage.errors import InputError
from tasks.classes import FER2013_EMOTIONS, TO_CLASS
from tasks.config.prepare import PrepareConfig
from tasks.ingest import SourceManifest
from tasks.prepare.blocks import Block
from tasks.prepare.reading import LEFT_OUT, RECOGNISED, STRANGE, UNLISTED, UNSURE

_FEW = 0.5
"""Of a source with FER+'s votes, a smaller share of recognised images means that it isn't FER-2013."""


class Origin(BaseModel, frozen=True, extra="forbid"):
    """One source."""

    images: int = Field(description="Images read")
    recognised: int | None = Field(
        description="Images found in FER-2013 by their content, which have FER+'s votes; none: not looked for"
    )
    strange: int = Field(description="Images that were looked for and are like none of FER-2013's")
    unsure: int = Field(description="Images that might be one of several of FER-2013's")
    unlisted: int = Field(description="Images that no list names")
    left_out: int = Field(description="Images whose class the source's mapping leaves out")
    side_px: int = Field(description="Median of the shorter sides as they came, pixels; 0: no image")
    larger: int = Field(description="Images larger than the canvas, which loses detail of them")
    larger_px: int = Field(description="Median of the shorter sides of these, pixels; 0: none")
    unread: str = Field(description="What there is to say of photos in formats that aren't read")
    unmapped: dict[str, str] = Field(
        default={},
        description="Names of the source's mapping that none of its folders or labels has, and the nearest "
        "that one has; empty: none is near",
    )
    outvoted: tuple[str, ...] = Field(
        default=(), description="Emotions that the source's mapping gives another class than FER+'s votes do"
    )

    def notes(self, name: str, config: PrepareConfig) -> list[str]:
        """What a person should know of the source."""
        found = [f"{name}: {self.unread}"] if self.unread else []
        if self.recognised is not None:
            found.append(
                f"{name}: {self.recognised:,} of {self.images:,} images "
                f"({self.recognised / max(1, self.images):.2%}) were found in FER-2013 by their content and "
                f"have FER+'s votes; {self.strange:,} are like none of its images and {self.unsure:,} like "
                "several: these keep their folder's label"
            )
        if self.unlisted or self.left_out:
            found.append(
                f"{name}: {self.unlisted:,} images that no list names and {self.left_out:,} of classes that "
                "its mapping leaves out were not taken"
            )
        if self.larger:
            px, colour = config.image_px, "grey" if config.channels == 1 else "colour"
            found.append(
                f"{name}: {self.larger:,} photos, of {self.larger_px} px in the median, stand in the data "
                f"set as {px} x {px} px, {colour}"
                + ("; image_px = 160 keeps more of them" if px < 160 else "")
            )
        return found

    def warnings(self, name: str) -> list[str]:
        """What is likely a mistake in the source's configuration."""
        found = []
        if self.outvoted:
            found.append(
                f"{name}: its mapping of {', '.join(self.outvoted)} counts only for the images that are not "
                "recognised: of the others FER+'s votes say what they show; set label_set to fer2013 to go "
                "by the mapping, or remove it"
            )
        if not self.unmapped:
            return found
        told = ", ".join(
            f"{asked!r}{near and f' (nearest: {near!r})'}" for asked, near in self.unmapped.items()
        )
        found.append(
            f"{name}: its mapping has names that no image of it has: {told}; correct them in the source's "
            "mapping, or remove them"
        )
        return found


def origin_of(source: SourceManifest, blocks: list[Block], config: PrepareConfig) -> Origin:
    """InputError for images beside FER+'s votes most of which aren't FER-2013's."""
    counts = {
        key: sum(block.counts[key] for block in blocks) for key in (LEFT_OUT, STRANGE, UNLISTED, UNSURE)
    }
    images, looked_for = (
        sum(len(block.ids) for block in blocks),
        [RECOGNISED in block.counts for block in blocks],
    )
    recognised = sum(block.counts[RECOGNISED] for block in blocks) if any(looked_for) else None
    if recognised is not None and recognised < _FEW * images:
        raise InputError(
            f"{source.name}: fer2013new.csv lies beside {images} images, of which only {recognised} are "
            "FER-2013's; move it to FER-2013's images, or set label_set to fer2013"
        )
    sides = np.concatenate([np.empty(0, np.int64), *(block.sides for block in blocks)])
    larger = sides[sides > config.image_px]
    return Origin(
        images=images,
        recognised=recognised,
        strange=counts[STRANGE],
        unsure=counts[UNSURE],
        unlisted=counts[UNLISTED],
        left_out=counts[LEFT_OUT] + source.left_out,
        side_px=int(np.median(sides)) if len(sides) else 0,
        larger=len(larger),
        larger_px=int(np.median(larger)) if len(larger) else 0,
        unread=source.unread_note if source.unread_photos else "",
        unmapped=_unmapped(source.mapping, {*source.folders}.union(*(block.said for block in blocks))),
        outvoted=() if recognised is None else _moved(source),
    )


def _moved(source: SourceManifest) -> tuple[str, ...]:
    """The emotions of FER-2013 whose images the source's mapping puts into another class."""
    given = ((name, source.vocabulary[name]) for name in source.mapping if name in FER2013_EMOTIONS)
    return tuple(name for name, to in given if to and TO_CLASS[to] != TO_CLASS[name])


def _unmapped(mapping: Sequence[str], said: set[str]) -> dict[str, str]:
    """Names of a mapping that a source doesn't have, each with the nearest that it has."""
    missing = [name for name in mapping if name not in said]
    return {name: next(iter(get_close_matches(name, sorted(said), 1)), "") for name in missing}
