"""The five classes, and how other label sets map to them.

Sources: the user's phase document (mapping of FER-2013) and the FER+ paper
(Barsoum et al., 2016, "Training deep networks for facial expression recognition with
crowd-sourced label distribution") for the columns of `fer2013new.csv`.
"""

CLASSES = ("neutral", "stress", "sad", "happy", "fatigue")
"""Class names in the order of every label, probability vector and confusion matrix of this project."""

FER2013_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER-2013's own classes, indexed by the number in the column `emotion` of fer2013.csv."""

FERPLUS_EMOTIONS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt",
)  # fmt: skip
"""FER+'s emotion columns, in the file's order (`unknown` and `NF`, no face, follow them)."""

TO_CLASS = {
    "angry": "stress", "anger": "stress", "fear": "stress", "fearful": "stress", "disgust": "stress",
    "disgusted": "stress",
    "sad": "sad", "sadness": "sad",
    "neutral": "neutral", "surprise": "neutral", "surprised": "neutral",
    "happy": "happy", "happiness": "happy",
    "stress": "stress", "fatigue": "fatigue",
}  # fmt: skip
"""Any source's class name to one of `CLASSES`. Contempt has no counterpart and is left out on purpose."""

EMOTIONS = ("neutral", "surprise", "anger", "disgust", "fear", "sadness", "happiness", "fatigue")
"""What a network may tell apart inside, finer than `CLASSES`."""

CLASS_OF_EMOTION = tuple(CLASSES.index(TO_CLASS[emotion]) for emotion in EMOTIONS)
"""For each of `EMOTIONS` the place of its class in `CLASSES`."""

_SAME_EMOTION = {
    "angry": "anger", "disgusted": "disgust", "fearful": "fear", "sad": "sadness", "happy": "happiness",
    "surprised": "surprise",
}  # fmt: skip


def emotion_of(name: str) -> int | None:
    """The place in `EMOTIONS` of a source's class name; None for one that holds several, as stress does."""
    name = _SAME_EMOTION.get(name, name)
    return EMOTIONS.index(name) if name in EMOTIONS else None
