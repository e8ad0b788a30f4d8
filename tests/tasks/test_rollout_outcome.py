"""What a rollout is told and what it says, without any device."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.errors import DeviceError, FleetError, InputError
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig, check_fleet
from tests.ssh_devices import new_key


def fleet_outcome(*outcomes: str, stopped: str | None = None) -> FleetOutcome:
    devices = [
        DeviceOutcome.model_validate(
            {"device": f"pi-{number}", "outcome": outcome, "reason": f"why {number}"}
        )
        for number, outcome in enumerate(outcomes, start=1)
    ]
    return FleetOutcome(release="R", devices=tuple(devices), stopped=stopped, max_latency_ms=200)


@pytest.mark.parametrize(
    ("outcomes", "stopped", "word"),
    [
        (["updated", "updated"], None, "Deployed"),
        (["updated", "unreachable"], None, "PartlyDeployed"),
        (["updated", "inconclusive"], None, "PartlyDeployed"),
        (["updated", "failed"], None, "RolloutFailed"),
        (["failed", "inconclusive"], "wave 1", "RolloutFailed"),
        (["updated", "inconclusive"], "wave 1", "RolloutFailed"),
        (["unreachable", "inconclusive"], None, "NotDeployed"),
    ],
)
def test_one_word_says_how_a_rollout_ended(outcomes, stopped, word):
    assert fleet_outcome(*outcomes, stopped=stopped).word == word


def test_one_sentence_says_how_many_devices_run_the_release_and_why_others_do_not():
    assert fleet_outcome("updated", "updated").sentence == "R runs on 2 of 2 devices."
    assert fleet_outcome("unreachable", "updated", "failed").sentence == (
        "R runs on 1 of 3 devices. pi-1: unreachable, why 1; pi-3: failed, why 3"
    )


def test_nothing_can_be_said_of_no_device():
    with pytest.raises(ValidationError, match="at least 1 item"):
        fleet_outcome()


@pytest.mark.parametrize("waves", [(), (0.5,), (1.0, 0.5), (0.5, 0.5, 1.0), (0.0, 1.0)])
def test_waves_that_do_not_grow_to_all_are_refused(waves):
    with pytest.raises(ValidationError, match=r"growing shares"):
        RolloutConfig(waves=waves)


def inventory(folder: Path, key: str = "key") -> str:
    """Two devices at addresses where nobody is, of the groups press and canteen."""
    places = {"a": "press", "b": "canteen"}
    tables = [
        f"[[devices]]\nname = '{name}'\nhost = '{name}.invalid'\ngroup = '{group}'\nhost_key = '{pin}'"
        for name, group in places.items()
        for pin in [new_key(folder / f"host-{name}")]
    ]
    new_key(folder / "key")
    path = folder / "fleet.toml"
    path.write_text("\n".join([f"[defaults]\nuser = 'pi'\nkey_file = '{key}'", *tables]))
    return str(path)


def test_the_fleet_that_a_configuration_means_is_known_before_any_device_is_spoken_to(tmp_path):
    path = inventory(tmp_path)
    everyone, press = (check_fleet(RolloutConfig(inventory=path, group=group)) for group in ("", "press"))
    assert everyone and [device.name for device in everyone.devices] == ["a", "b"]
    assert press and [device.name for device in press.devices] == ["a"]
    assert check_fleet(RolloutConfig()) is None


def test_an_unknown_group_ends_before_any_device_is_spoken_to(tmp_path):
    with pytest.raises(FleetError, match=r"'pres'.*canteen, press"):
        check_fleet(RolloutConfig(inventory=inventory(tmp_path), group="pres"))


def test_a_key_file_that_is_none_ends_before_any_device_is_spoken_to(tmp_path):
    path = inventory(tmp_path, key="fleet.toml")
    with pytest.raises(DeviceError, match=r"device a .*key_file .*fleet\.toml can't be used"):
        check_fleet(RolloutConfig(inventory=path))


def test_a_missing_inventory_ends_before_any_device_is_spoken_to(tmp_path):
    with pytest.raises(InputError, match="there is no inventory"):
        check_fleet(RolloutConfig(inventory=str(tmp_path / "none.toml")))
