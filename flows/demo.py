"""The whole night in miniature: drawn faces, a directory as object store, a device on this machine.

The device is an SSH server inside this process that keeps its files under the demo's folder, so that
upload, checks, switch and benchmark are those of a real Raspberry Pi; only the machine is not.
"""

from pathlib import Path

from prefect.client.schemas.objects import State

from deployments.demo_device import demo_device
from flows.retrain import retrain
from tasks.config import RetrainConfig
from tasks.synthetic import write_dataset

_PER_CLASS = 700
_SEED = 7

NEXT_STEPS = """
The object store of the demo is {home}/store, the device {home}/device.
Next:
  open the report above in a browser
  stress-vision fleet --store {home}/store     what the device runs, and how fast
  stress-vision config > retrain.toml          a configuration for your own data (README, "Your data")
  stress-vision up                             the Prefect UI with the nightly schedule"""


def demo(home: Path) -> State:
    """Run the night under the empty folder `home`."""
    print(f"drawing {5 * _PER_CLASS} faces …", flush=True)
    write_dataset(home / "store", _PER_CLASS, _SEED)

    with demo_device(home / "device") as inventory:
        return retrain(demo_config(home, inventory), return_state=True)


def demo_config(home: Path, inventory: Path) -> RetrainConfig:
    """The demo's configuration: a small network at the faces' own size, a few epochs, one device."""
    return RetrainConfig.model_validate(
        {
            "store": str(home / "store"),
            "work_dir": str(home / "work"),
            "preset": "smallest",
            "prepare": {"target_per_class": 0},
            "train": {
                "epochs": 16,
                "batch_size": 32,
                "augmentation": {"blur_share": 0.6, "blur_px": 2.2, "erasing_share": 0.6},
            },
            # where a quarter is covered, a drawn face has nothing else to be told by
            "targets": {"min_camera_accuracy": 0.6},
            "rollout": {"inventory": str(inventory)},
        }
    )
