"""Starting values of a run by name: plain data, which the command line can name without loading a stage."""

from typing import Any, Literal

Preset = Literal["highest_accuracy", "balanced", "highest_speed", "smallest", "mobilenet_v3"]

_RECIPE: dict[str, Any] = {
    "class_weights": 0.4,
    "accuracy_for_recall": 0.01,
    "early_stopping_patience": 30,
    # the best of accuracies that have come to a halt is luck: docs/experiments.md, "Which epoch is kept"
    "monitor": "val_loss",
    "augmentation": {
        "shift_share": 0.08,
        "zoom_share": 0.12,
        "brightness_share": 0.15,
        "contrast_share": 0.25,
        "erasing_share": 0.3,
        "blur_share": 0.33,
        "low_resolution_share": 0.05,
        "noise_share": 0.4,
        "noise_levels": 13.0,
        "sharpening_share": 0.2,
        "jpeg_share": 0.1,
        "gamma_share": 0.3,
        "dark_share": 0.12,
    },
}
_OPTIMIZER: dict[str, Any] = {
    "name": "adamw",
    "weight_decay": 0.05,
    "clip_norm": 5.0,
    "schedule": "cosine",
    "ema_momentum": 0.998,
}
"""What proved itself for resnet_native and MobileNetV3."""
_SMALL: dict[str, Any] = {
    **_RECIPE,
    "optimizer": {**_OPTIMIZER, "learning_rate": 0.004, "weight_decay": 0.01},
    "augmentation": {**_RECIPE["augmentation"], "contrast_share": 0.2, "erasing_share": 0.0},
}
"""For networks of less than 300,000 weights: they don't learn all that they are shown as it is."""

_BALANCED: dict[str, Any] = {
    "architecture": "resnet_native",
    "filters": (24, 48, 112, 256),
    "blocks": (0, 1, 1, 1),
    "emotions": True,
}

PRESETS: dict[Preset, dict[str, Any]] = {
    "highest_accuracy": {
        "prepare": {"target_per_class": 3_000, "posted_share": 0.15},
        "train": {
            **_RECIPE,
            "model": {**_BALANCED, "filters": (48, 96, 224, 512), "mirrored": True},
            "epochs": 36,
            "batch_size": 64,
            "optimizer": {**_OPTIMIZER, "learning_rate": 0.002},
        },
    },
    "mobilenet_v3": {
        "prepare": {"target_per_class": 3_000, "posted_share": 0.15},
        "train": {
            **_RECIPE,
            # it has recall to spare and little accuracy: a whole point would cost it the gate's 84 %
            "accuracy_for_recall": 0.005,
            "model": {
                "architecture": "mobilenet_v3_small",
                "input_px": 160,
                "trainable_layers": 1_000,
                "quantization_aware": True,
                "emotions": True,
            },
            "epochs": 50,
            "batch_size": 32,
            "optimizer": {**_OPTIMIZER, "learning_rate": 0.001},
        },
    },
    "highest_speed": {
        "prepare": {"target_per_class": 3_000, "posted_share": 0.15},
        "train": {
            **_SMALL,
            "model": {
                "architecture": "custom_light",
                "filters": (32, 128, 384, 768),
                "input_px": 120,
                "dropout": 0.2,
                "emotions": True,
            },
            "epochs": 50,
            "batch_size": 64,
        },
    },
    "balanced": {
        "prepare": {"target_per_class": 3_000, "posted_share": 0.15},
        "train": {
            **_RECIPE,
            "model": _BALANCED,
            "epochs": 36,
            "batch_size": 64,
            "optimizer": {**_OPTIMIZER, "learning_rate": 0.002},
        },
    },
    "smallest": {
        "prepare": {"target_per_class": 3_000, "posted_share": 0.15},
        "train": {
            **_SMALL,
            "model": {
                "architecture": "resnet_native",
                "filters": (8, 16, 32, 56),
                "blocks": (0, 1, 1, 1),
                "dropout": 0.1,
                "emotions": True,
            },
            "epochs": 30,
            "batch_size": 64,
        },
    },
}
"""mobilenet_v3 and highest_speed are the phase document's networks with its epochs and batches, in the recipe
that proved itself; highest_speed has more filters and learns at four times its rate. docs/figures.md has what
each reached."""
