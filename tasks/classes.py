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
    "angry": "stress", "anger": "stress", "fear": "stress", "disgust": "stress",
    "sad": "sad", "sadness": "sad",
    "neutral": "neutral", "surprise": "neutral",
    "happy": "happy", "happiness": "happy",
    "stress": "stress", "fatigue": "fatigue",
}  # fmt: skip
"""Any source's class name to one of `CLASSES`. Contempt has no counterpart and is left out on purpose."""
