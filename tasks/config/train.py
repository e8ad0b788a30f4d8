"""What a person may choose about training; defaults and ranges are the phase document's."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

Architecture = Literal["mobilenet_v3_small", "custom_light", "resnet_native"]

DEFAULT_FILTERS: dict[str, tuple[int, ...]] = {
    "mobilenet_v3_small": (),
    "custom_light": (32, 64, 128, 256),
    "resnet_native": (24, 40, 72, 128),
}
_MOST_FILTERS = 2048
"""Far more than faces of this size need; what is above would fill any memory before it trains."""


class ModelConfig(BaseModel, frozen=True, extra="forbid", title="Network"):
    """The network: which one, how large, and what it starts from."""

    architecture: Architecture = Field(
        default="mobilenet_v3_small",
        description="mobilenet_v3_small (ImageNet backbone), custom_light (small and fast), or resnet_native "
        "(plain residual network at the images' own resolution, quantizes almost without loss).",
    )
    input_px: int = Field(
        default=160,
        ge=32,
        le=320,
        description="Side in pixels to which the graph enlarges an image, 32 to 320; smaller is faster "
        "(120 for speed). resnet_native ignores it and works at the images' own resolution.",
    )
    weights: str = Field(
        default="imagenet",
        min_length=1,
        description="Start of the mobilenet_v3_small backbone: imagenet (Keras' download), none (random), "
        "the path of a Keras weights file (.h5), store:KEY in the run's object store, or s3://bucket/key. "
        "The other networks start at random.",
    )
    trainable_layers: int = Field(
        default=30,
        ge=0,
        le=1000,
        description="How many of the backbone's last layers learn, 0 to 1000 (1000 = all, needed when "
        "weights = none). Frozen layers keep their batch-norm statistics.",
    )
    activation: Literal["hard_swish", "relu6"] = Field(
        default="hard_swish",
        description="Activation of the mobilenet_v3_small backbone. relu6 keeps the INT8 graph in one piece "
        "on the device; hard_swish is the published network.",
    )
    quantization_aware: bool = Field(
        default=False,
        description="The mobilenet_v3_small backbone learns with its activations rounded as INT8 rounds "
        "them: it loses less by quantization, and an epoch takes longer.",
    )
    filters: tuple[int, ...] = Field(
        default=(),
        description="Channels per stage, four numbers, for custom_light (default 32, 64, 128, 256) and "
        "resnet_native (default 24, 40, 72, 128). Empty = the default.",
    )
    blocks: tuple[int, ...] = Field(
        default=(1, 1, 1, 2),
        min_length=4,
        max_length=4,
        description="Residual blocks per stage of resnet_native, four numbers of at least 1; the first may "
        "be 0: the stage is then its convolution alone.",
    )
    emotions: bool = Field(
        default=False,
        description="Tell eight emotions apart inside, anger from fear from disgust, and sum their "
        "probabilities to the five classes in the graph.",
    )
    mirrored: bool = Field(
        default=False,
        description="Answer with the mean over an image and its mirror image: some tenths of a point for "
        "twice the work on the device.",
    )
    dropout: float = Field(
        default=0.3,
        ge=0,
        le=0.5,
        description="Share of features dropped before the head, 0 to 0.5; usual 0.2 to 0.5.",
    )
    head_dropout: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        description="Share dropped between mobilenet_v3_small's dense layers, 0 to 0.5.",
    )
    l2: float = Field(
        default=0.001,
        ge=0,
        le=0.01,
        description="L2 penalty on mobilenet_v3_small's dense layers, 0 to 0.01; usual from 0.0001.",
    )
    batch_norm_momentum: float = Field(
        default=0.95,
        ge=0.5,
        le=0.999,
        description="Momentum of all batch-norm statistics, 0.5 to 0.999. Keras' own MobileNetV3 has 0.999: "
        "validation then lags behind training for many epochs.",
    )

    @model_validator(mode="after")
    def _four_filters(self) -> Self:
        wanted = len(DEFAULT_FILTERS[self.architecture])
        if self.filters and (
            len(self.filters) != wanted or not all(1 <= one <= _MOST_FILTERS for one in self.filters)
        ):
            raise ValueError(
                f"filters of {self.architecture}: expected {wanted} numbers of 1 to {_MOST_FILTERS}, "
                f"got {self.filters}"
            )
        if self.blocks[0] < 0 or min(self.blocks[1:]) < 1:
            raise ValueError(f"blocks: expected four numbers of at least 1 (the first: 0), got {self.blocks}")
        return self

    @property
    def channels_per_stage(self) -> tuple[int, ...]:
        """The filters asked for, or the architecture's own."""
        return self.filters or DEFAULT_FILTERS[self.architecture]


class AugmentationConfig(BaseModel, frozen=True, extra="forbid", title="Augmentation while training"):
    """Random changes to every training image, drawn anew each epoch; never to validation or test images."""

    enabled: bool = Field(default=True, description="Change training images at random while training.")
    rotation_degrees: float = Field(
        default=12, ge=0, le=45, description="Rotation, ± degrees, 0 to 45; usual 10 to 15."
    )
    shift_share: float = Field(default=0.1, ge=0, le=0.5, description="Shift, ± share of the side, 0 to 0.5.")
    zoom_share: float = Field(default=0.05, ge=0, le=0.5, description="Zoom, ± share, 0 to 0.5.")
    brightness_share: float = Field(
        default=0.1, ge=0, le=0.9, description="Brightness, ± share, 0 to 0.9; 0.1 is a factor of 0.9 to 1.1."
    )
    contrast_share: float = Field(
        default=0.0, ge=0, le=0.9, description="Contrast about mid-grey, ± share, 0 (off) to 0.9."
    )
    erasing_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of images of which a rectangle is painted over in one random grey, 0 (off) to 1.",
    )
    horizontal_flip: bool = Field(default=True, description="Mirror half of the images left to right.")
    mixup_alpha: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Blend pairs of images and labels, Beta(alpha, alpha), 0 (off) to 1.",
    )
    blur_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of images that are out of focus, 0 (off) to 1."
    )
    blur_px: float = Field(
        default=1.8,
        gt=0,
        le=8,
        description="Largest blur, standard deviation of a Gaussian in pixels of a 48 px image, up to 8; "
        "drawn from a quarter of it up.",
    )
    low_resolution_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of images that a sensor of fewer pixels has seen, 0 (off) to 1.",
    )
    low_resolution_side: float = Field(
        default=0.5,
        ge=0.1,
        lt=1,
        description="Fewest pixels along the side, as a share of the image's, 0.1 to 1.",
    )
    noise_share: float = Field(default=0.0, ge=0, le=1, description="Share of noisy images, 0 (off) to 1.")
    noise_levels: float = Field(
        default=12.0,
        gt=0,
        le=100,
        description="Most noise, standard deviation in grey levels of 255, up to 100; drawn from 0 up.",
    )
    sharpening_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of sharpened images, 0 (off) to 1."
    )
    sharpening_strength: float = Field(
        default=1.5,
        gt=0,
        le=5,
        description="Strongest sharpening, up to 5: how many times more what a blur of 1 px takes away.",
    )
    jpeg_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of images compressed as JPEG, 0 (off) to 1."
    )
    jpeg_quality: int = Field(
        default=30, ge=1, le=94, description="Lowest JPEG quality, 1 to 94; drawn up to 95."
    )
    gamma_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of images with another gamma, 0 (off) to 1."
    )
    gamma_log: float = Field(
        default=0.7,
        gt=0,
        le=2,
        description="Largest logarithm of the gamma either way, up to 2; 0.7 is half to twice.",
    )
    dark_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of images with less light, 0 (off) to 1."
    )
    dark_light: float = Field(
        default=0.25, gt=0.01, lt=1, description="Least light, as a share of the image's own, 0.01 to 1."
    )


class OptimizerConfig(BaseModel, frozen=True, extra="forbid", title="Optimiser and learning rate"):
    """How the weights move."""

    name: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description="adam, adamw (decoupled weight decay), or sgd with momentum."
    )
    learning_rate: float = Field(
        default=0.001,
        ge=1e-6,
        le=0.01,
        description="Largest learning rate, 0.000001 to 0.01; usual 0.0001 to 0.01, less to fine-tune.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd, 0 to 1.")
    weight_decay: float = Field(default=0.01, ge=0, le=0.5, description="Weight decay of adamw, 0 to 0.5.")
    clip_norm: float = Field(
        default=0.0, ge=0, le=100, description="Largest norm of a step's whole gradient, 0 (no limit) to 100."
    )
    schedule: Literal["plateau", "cosine"] = Field(
        default="plateau",
        description="plateau: constant, halved when validation stalls; cosine: warm-up, then down to 0.",
    )
    warmup_epochs: float = Field(
        default=1, ge=0, le=20, description="Epochs of linear warm-up before cosine, 0 to 20."
    )
    plateau_factor: float = Field(
        default=0.5, gt=0, lt=1, description="Factor on the learning rate when validation stalls, 0 to 1."
    )
    plateau_patience: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Epochs without a better validation before the rate falls, 1 to 100.",
    )
    ema_momentum: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Momentum of the averaged weights that are validated and kept, 0 (off) to 0.9999.",
    )


class TrainConfig(BaseModel, frozen=True, extra="forbid", title="Training"):
    """Everything that decides how a network is trained."""

    model: ModelConfig = Field(default=ModelConfig(), description="The network and what it starts from.")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="Optimiser and learning rate.")
    augmentation: AugmentationConfig = Field(
        default=AugmentationConfig(), description="Changes to training images."
    )
    epochs: int = Field(
        default=50, ge=1, le=1000, description="Largest number of epochs, 1 to 1000; usual 30 to 100."
    )
    batch_size: int = Field(
        default=32, ge=1, le=4096, description="Images per step, 1 to 4096; usual 16 to 64."
    )
    early_stopping_patience: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Epochs without a better validation before training ends, 1 to 1000.",
    )
    monitor: Literal["val_accuracy", "val_loss"] = Field(
        default="val_accuracy", description="The validation figure by which epochs are compared."
    )
    batch_norm_images: int = Field(
        default=2048,
        ge=0,
        le=1_000_000,
        description="Real training images, unaugmented, on which batch-norm statistics are computed anew "
        "before each validation; 0 = keep Keras' running ones, of augmented batches.",
    )
    accuracy_for_recall: float = Field(
        default=0.0,
        ge=0,
        le=0.2,
        description="Accuracy on the validation images that may be given up to find rare classes more "
        "often, 0 (off) to 0.2: after training the last layer's biases are shifted to the largest macro "
        "recall that this buys, at no cost on the device. A class of fewer than 200 validation images stays "
        "as it is.",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, le=0.5, description="Share of every label spread over all classes, 0 (off) to 0.5."
    )
    class_weights: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How far rare classes count more, 0 to 1: 0 every image counts the same, 1 every class; "
        "between, an image counts as its class's share to the power of minus this.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="What layers compute in: auto (float16 where a GPU is present, else float32), float32, "
        "or bfloat16 (faster on a CPU with AVX-512 BF16, though mobilenet_v3_small takes twice as long; "
        "refused on one without any). Weights and the kept model are float32.",
    )
    keep_checkpoints: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="How many of the newest per-epoch checkpoints stay on disk, 1 to 1000.",
    )
    init_from: str = Field(
        default="",
        description="What training starts from: champion (its float model; before the first champion as if "
        "empty), release:VERSION, or the path of a .keras model with its seen_images.npy beside it; each of "
        "the same network. Empty = start from model.weights.",
    )
    seed: int = Field(
        default=20261122,
        ge=0,
        lt=2**31,
        description="Seed of weights, order, augmentation and dropout, 0 to 2^31 - 1.",
    )

    @model_validator(mode="after")
    def _statistics_unrounded(self) -> Self:
        if self.model.quantization_aware and not self.batch_norm_images:
            raise ValueError(
                "model.quantization_aware: batch_norm_images must be at least 1, got 0; the running "
                "statistics are those of rounded activations, and the kept network isn't rounded"
            )
        return self
