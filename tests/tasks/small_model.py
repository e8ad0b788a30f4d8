"""A prepared data set of drawn faces and a network small enough to train and convert within seconds."""

import json
from pathlib import Path

import numpy as np

from tasks.classes import CLASS_OF_EMOTION, CLASSES, EMOTIONS
from tasks.prepare import PreparedData
from tasks.prepare.blocks import hash_images
from tasks.synthetic import draw_faces

EMOTION_TARGETS = np.eye(len(EMOTIONS), dtype=np.float32)[
    [CLASS_OF_EMOTION.index(one) for one in range(len(CLASSES))]
]
"""float32 (5, 8): each class as the first of its emotions."""

SOURCES = ("fer2013", "custom")


def save_split(
    directory: Path,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    groups: np.ndarray | None = None,
) -> None:
    """Write a split as prepare does; without `groups` every image stands alone."""
    np.savez(
        directory / f"{name}_data.npz",
        images=images,
        labels=labels.astype(np.uint8),
        emotions=EMOTION_TARGETS[labels],
        sources=sources.astype(np.uint8),
        ids=np.array([f"{SOURCES[int(source)]}:{name}:{row}" for row, source in enumerate(sources)], "S"),
        augmented=np.zeros(len(labels), bool),
        digests=hash_images(images),
        groups=(np.arange(len(labels)) if groups is None else groups).astype(np.int32),
    )


def prepared_data(
    directory: Path, test_classes: tuple[str, ...] = CLASSES, per_class: int = 24
) -> PreparedData:
    """Drawn faces in the layout that the prepare stage writes; fatigue is the custom source's only class."""
    directory.mkdir(parents=True, exist_ok=True)
    counts = {}
    for seed, name in enumerate(("train", "val", "test")):
        images, labels = draw_faces(per_class, seed)
        if name == "test":
            kept = np.isin(labels, [CLASSES.index(one) for one in test_classes])
            images, labels = images[kept], labels[kept]
        save_split(directory, name, images, labels, labels == CLASSES.index("fatigue"))
        counts[name] = {one: int((labels == place).sum()) for place, one in enumerate(CLASSES)}
    metadata = directory / "metadata.json"
    metadata.write_text(json.dumps({"classes": CLASSES, "sources": SOURCES, "counts": counts}))
    return PreparedData(
        directory=directory,
        fingerprint="0123456789abcdef",
        label_set="fer2013",
        image_px=48,
        channels=1,
        sources=SOURCES,
        counts=counts,
        metadata_path=metadata,
        reused=False,
        pictures={},
    )


def save_keras(path: Path, data: PreparedData, epochs: int = 20) -> Path:
    """Train a tiny network on the data's training split and save it as the train stage does."""
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((48, 48, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, strides=4, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    with np.load(data.directory / "train_data.npz") as split:
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(split["images"], split["labels"], batch_size=16, epochs=epochs, verbose=0)
    model.save(path)
    return path


def save_tflite(path: Path, keras_path: Path, data: PreparedData | None = None) -> Path:
    """Float32 TFLite, or INT8 with uint8 in and out where `data` is given to calibrate on."""
    import keras
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(keras_path))
    if data:
        with np.load(data.directory / "train_data.npz") as split:
            images = split["images"][:50]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    path.write_bytes(converter.convert())
    return path
