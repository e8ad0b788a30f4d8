"""What a candidate must reach."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.classes import CLASSES


class GateConfig(BaseModel):
    """Targets that a candidate must reach before it may be released."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Targets")

    min_accuracy: float = Field(
        default=0.84,
        ge=0,
        le=1,
        description="Accuracy of the INT8 model on the test split, at least (share, 0 to 1).",
    )
    max_model_mb: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        description="Size of the INT8 .tflite file, at most (MB of 1,000,000 bytes).",
    )
    max_latency_ms: float = Field(
        default=200.0,
        gt=0,
        le=60_000,
        description="Latency per frame, p95, at most (ms). Measured on this host as a guard before "
        "the release; each Pi measures again and returns to its previous release where it is slower.",
    )
    max_quantization_loss: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="Accuracy lost from the float to the INT8 model, at most (points of 100).",
    )
    max_leaked_pairs: int = Field(
        default=0,
        ge=0,
        description="Pairs of duplicate images in different splits, as the audit found, at most (pairs).",
    )
    max_twin_share: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="Test images of which a photo in training is found again by a second look at a sample, "
        "another way than the search, at most (share, 0 to 1).",
    )
    max_shortcut_added: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="How much better sharpness, noise and light alone tell a class on the training files "
        "than on the original images, at most (area under the curve, 0 to 0.5).",
    )
    min_macro_recall: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Mean recall over the classes, at least (share, 0 to 1). Empty: no floor.",
    )
    min_class_recall: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Recall of every class, at least (share, 0 to 1). Empty: no floor.",
    )
    class_recall_floors: dict[str, float] = Field(
        default={"stress": 0.5, "sad": 0.45},
        description="Recall of single classes, at least (share, 0 to 1); goes before min_class_recall. The "
        "classes that accuracy can do without are those that the product is for.",
    )
    min_source_accuracy: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Accuracy on the images of every source, at least (share, 0 to 1). Empty: no floor.",
    )
    source_accuracy_floors: dict[str, float] = Field(
        default_factory=dict,
        description='Accuracy on single sources, at least (share, 0 to 1), as {"fer2013": 0.84}; goes before '
        "min_source_accuracy.",
    )
    elsewhere_recall_floors: dict[str, float] = Field(
        default={"fatigue": 0.5},
        description='Recall of single classes on every set from elsewhere (a source with use = "evaluate") '
        "that has images of them, at least (share, 0 to 1). Fatigue is learnt from one source alone.",
    )
    min_camera_accuracy: float | None = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Accuracy under the worst camera (blur, noise, JPEG, light, ...), as a share of that on "
        "the images as they are, at least (share, 0 to 1). Empty: no floor.",
    )
    max_camera_growth: float | None = Field(
        default=15.0,
        ge=0,
        le=100,
        description="How much larger the share of any class in the answers may be under a camera, at most "
        "(points of 100). Empty: no limit.",
    )
    max_delegate_partitions: int | None = Field(
        default=None,
        ge=1,
        description="Pieces that the delegate cuts the graph into, at most. Empty: no limit.",
    )
    max_instructions_m: float | None = Field(
        default=None,
        gt=0,
        description="Instructions per inference, at most (million), where measured. Empty: no limit.",
    )
    max_seen_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Test images that are left out because a release from which training started "
        "(init_from) had learnt from them, at most (share, 0 to 1).",
    )
    champion_margin: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="Accuracy that a candidate may lie below the champion, at most (points of 100).",
    )
    anchor_margin: float = Field(
        default=2.0,
        ge=0,
        le=100,
        description="Accuracy that a candidate may lie below the best release so far, at most (points of "
        "100): what small steps down from champion to champion may add up to.",
    )
    champion_confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="One-sided confidence that it does not lie below by more (share, 0.5 to 1).",
    )

    @field_validator("class_recall_floors", "source_accuracy_floors", "elsewhere_recall_floors")
    @classmethod
    def _shares(cls, floors: dict[str, float]) -> dict[str, float]:
        wrong = {name: floor for name, floor in floors.items() if not 0 <= floor <= 1}
        if wrong:
            raise ValueError(f"expected shares from 0 to 1, got {wrong}")
        return floors

    @field_validator("class_recall_floors", "elsewhere_recall_floors")
    @classmethod
    def _known_classes(cls, floors: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(floors) - set(CLASSES))
        if unknown:
            raise ValueError(f"no such class: {', '.join(unknown)}; expected some of {', '.join(CLASSES)}")
        return floors
