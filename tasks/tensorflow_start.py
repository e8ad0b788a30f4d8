"""The first import of TensorFlow in a process, without what it writes past every log level.

Its C++ part writes about oneDNN and CUDA to file descriptor 2 before its logging is set up; a person who
follows a run takes that for trouble.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def start_tensorflow() -> None:
    """Import TensorFlow and look for GPUs; an exception passes, its chatter doesn't."""
    prefer_onednn()
    if "tensorflow" not in sys.modules:
        with _silent_stderr():
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")


def prefer_onednn() -> None:
    """Have oneDNN's kernels with AVX2, too, unless someone said no; of no effect once TensorFlow is imported.

    TensorFlow itself has them on with AVX-512 alone. They save a fifth to four tenths of training's CPU
    time (docs/experiments.md); on Arm they were not tried.
    """
    if platform.machine() == "x86_64":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
