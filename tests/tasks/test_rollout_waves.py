"""The fleet in waves, with devices that only answer."""

from tasks.rollout import RolloutConfig
from tasks.rollout.waves import wave_targets


def test_waves_reach_the_canaries_then_growing_shares_then_all():
    config = RolloutConfig(canaries=2, waves=(0.1, 0.5, 1.0))
    assert wave_targets(40, config) == [2, 4, 20, 40]
    assert wave_targets(1, config) == [1]
