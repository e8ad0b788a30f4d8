"""Roll a release out to the fleet.

In: a release and an inventory. Out: `FleetOutcome`, the truth about each device.

    outcome   the five outcomes of a device, the four words for a fleet
    visit     one device: prove, switch, prove again, confirm or go back
    waves     the fleet: canaries, growing shares, all; when to stop and undo
    ledger    what is seen of each device, written down as it happens
    per_device  each visit and each benchmark as a task
    release   a registered release to the inventory's devices, in a flow
"""

from tasks.config.rollout import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome, FleetWord

__all__ = ["DeviceOutcome", "FleetOutcome", "FleetWord", "RolloutConfig"]
