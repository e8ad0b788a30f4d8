"""What prepare takes and what it hands on. No import heavier than pydantic: a form is drawn from this."""

import json
from hashlib import sha256
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.classes import CLASSES

CODE_VERSION = 10
"""Part of every fingerprint. Raise it when the same input and config would now give other files."""

SPLITS = ("train", "val", "test")

LabelSet = Literal["fer2013", "ferplus", "ferplus_votes"]
LabelChoice = Literal["auto", LabelSet]


class Drawing(NamedTuple):
    """How often an epoch of training draws each class."""

    target: int = 0
    equal: bool = False
    """Whether a class with more images than the target is drawn down to it, too."""


class PrepareConfig(BaseModel):
    """Which labels, how images are split, and what counts as a duplicate."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Data preparation")

    label_set: LabelChoice = Field(
        default="auto",
        description="fer2013: the original labels. ferplus: the majority of ten annotators. "
        "ferplus_votes: the same labels, and the annotators' votes as soft targets in training. "
        "auto: ferplus_votes where fer2013new.csv lies beside FER-2013, else fer2013",
    )
    ferplus_min_share: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="A FER+ label must hold more than this share of an image's votes (paper: 0.5)",
    )
    posted_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="With ferplus_votes, how much of a training target is the emotion that the photo was "
        "posted as (FER-2013's own label), 0 to 1: the crowd sees neutral in much posted anger and fear",
    )
    split: Literal["stratified", "official"] = Field(
        default="stratified",
        description="stratified: by the hash of an image, alike in every class and source. "
        "official: FER-2013's own Usage, less leaked images",
    )
    train_share: float = Field(default=0.70, gt=0, lt=1, description="Share of images to train on, 0 to 1")
    val_share: float = Field(default=0.15, gt=0, lt=1, description="Share of images to tune on, 0 to 1")
    test_share: float = Field(default=0.15, gt=0, lt=1, description="Share of images held out, 0 to 1")
    image_px: int = Field(
        default=48,
        ge=16,
        le=512,
        description="Side of the stored square images, pixels. 160 keeps more of larger photos, in colour, "
        "for eleven times the work in resnet_native; FER-2013 has 48 and no colour to give",
    )
    channels: Literal[0, 1, 3] = Field(
        default=0, description="1: grey. 3: colour. 0: colour where image_px is more than FER-2013's 48"
    )
    target_per_class: int = Field(
        default=5000,
        ge=0,
        le=200_000,
        description="Images of each class that an epoch of training draws at least: rarer classes are drawn "
        "more often, 0 = every image once",
    )
    balance: Literal["fill up", "equal"] = Field(
        default="fill up",
        description="fill up: classes with more images than target_per_class are drawn whole. equal: another "
        "target_per_class of them in every epoch",
    )
    store_augmented: bool = Field(
        default=False,
        description="Fill classes up with stored copies in train_data.npz, mirrored and by up to a tenth "
        "brighter or darker, instead of drawing their images more often",
    )
    expected_classes: tuple[str, ...] = Field(
        default=(),
        description="Classes of which at least one image must be there. Others that no source provides are "
        "named in report, manifest and gate, and the model is judged on the rest",
    )
    max_bad_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of a source's rows or photos that may be unreadable, 0 to 1",
    )
    blank_std: float = Field(
        default=5.0,
        ge=0,
        le=128,
        description="Images whose grey levels deviate less than this are dropped as blank",
    )
    near_duplicate: float = Field(
        default=0.87,
        ge=0.8,
        le=1,
        description="Images whose detail correlates more than this, part by part, once laid over each other, "
        "are one photo, 0 to 1",
    )
    disputed: Literal["dropped", "kept in test"] = Field(
        default="dropped",
        description="Images of one photo with different labels: in no split, or in test alone, where what is "
        "right for one of them is wrong for the other",
    )
    same_scene: float = Field(
        default=0.75,
        ge=0.5,
        le=1,
        description="Photos of near file numbers that correlate more are one person, 0 to 1",
    )
    max_photo_mpx: float = Field(
        default=50.0,
        gt=0,
        le=170,
        description="Photos of more megapixels are refused unread (decompression bombs)",
    )
    seed: int = Field(default=20130, ge=0, description="Seed of splits, augmentation and order")
    threads: int = Field(default=0, ge=0, le=64, description="Threads that parse and decode, 0 = one per CPU")

    @model_validator(mode="after")
    def _check(self) -> "PrepareConfig":
        total = self.train_share + self.val_share + self.test_share
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train_share + val_share + test_share must be 1, got {total:g}")
        if self.balance == "equal" and not self.target_per_class:
            raise ValueError("balance = equal needs to know how many: set target_per_class, got 0")
        unknown = sorted(set(self.expected_classes) - set(CLASSES))
        if unknown:
            raise ValueError(f"expected_classes: {unknown} unknown, expected any of {list(CLASSES)}")
        return self

    @property
    def drawing(self) -> Drawing:
        """How often an epoch of training draws each class."""
        return Drawing(self.target_per_class, self.balance == "equal")

    def fingerprint(self, content: str) -> str:
        """16 hex digits that name the data set which this config makes of that content."""
        settings = self.model_dump(mode="json", exclude={"threads"})
        text = json.dumps([CODE_VERSION, content, settings], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]
