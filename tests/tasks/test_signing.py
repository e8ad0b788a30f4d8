"""Who may sign, and for how long: from the store to a device behind a real sshd, key after key."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.errors import InputError, StoreError
from storage.identity import store_identity
from storage.objects import ObjectStore
from storage.registry import Registry
from storage.signers import Signers
from tasks.benchmark import BenchmarkConfig
from tasks.prepare import PreparedData
from tasks.register import RegisterConfig, build_release
from tasks.rollout import DeviceOutcome, RolloutConfig
from tasks.rollout.payload import read_payload
from tasks.rollout.visit import visit
from tasks.signing import (
    SIGNING_KEY_VARIABLE,
    check_signing_key,
    current_order,
    order_rollback,
    replace_signers,
)
from tests.releases import describe, new_store, notes
from tests.ssh_devices import SshDevice, new_key

CONFIG = RolloutConfig(benchmark=BenchmarkConfig(runs=10, min_cpu_share=0))


class Fleet:
    """A store, its champion and a device: what the rollout flow does with them."""

    def __init__(self, device: SshDevice, store: ObjectStore, work: Path):
        self.device, self.store, self.work = device, store, work
        self.registry = Registry(store)

    def champion(self, release: Path) -> str:
        store_id, before = store_identity(self.store), self.registry.champion()
        version = self.registry.publish(release, store_id=store_id)
        self.registry.promote(version, expected=before.version if before else None, store_id=store_id)
        return version

    def roll_out(self, version: str) -> DeviceOutcome:
        directory = self.registry.fetch(version, self.work)
        order, signers = current_order(self.registry, version), Signers(self.store).lists()
        return visit(self.device.device, read_payload(directory, CONFIG, order, signers), CONFIG)


@pytest.fixture
def fleet(ssh_device: SshDevice, tmp_path: Path) -> Fleet:
    ssh_device.root.mkdir()
    return Fleet(ssh_device, new_store(tmp_path / "store"), tmp_path / "work")


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {name: new_key(tmp_path / name) for name in ("old", "new")}


def use(patch: pytest.MonkeyPatch, key: Path) -> None:
    patch.setenv(SIGNING_KEY_VARIABLE, str(key))


def release(folder: Path, made: Path, data: PreparedData, day: int, valid_days: int = 0) -> Path:
    config = RegisterConfig(valid_days=valid_days)
    return build_release(describe(made / "model_int8.tflite"), data, notes(day), config, folder, sequence=day)


def change_keys(
    fleet: Fleet,
    made: Path,
    data: PreparedData,
    keys: dict[str, str],
    folder: Path,
    patch: pytest.MonkeyPatch,
) -> str:
    """A champion that the old key has signed, and two lists since, after which only the new one counts."""
    use(patch, folder / "old")
    version = fleet.champion(release(folder / "made", made, data, 1))
    fleet.registry.fetch(version, fleet.work)
    replace_signers(fleet.store, [keys["old"], keys["new"]])
    use(patch, folder / "new")
    replace_signers(fleet.store, [keys["new"]])
    return version


def test_a_device_follows_a_change_of_keys_and_takes_the_champion_signed_anew(
    fleet: Fleet, tiny_releases: tuple[Path, Path], tiny_data: PreparedData, keys: dict[str, str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    signers = fleet.device.root / "allowed_signers"
    signers.write_text(f"stress-vision {keys['old']}\n")
    version = change_keys(fleet, tiny_releases[0], tiny_data, keys, tmp_path, monkeypatch)
    outcome = fleet.roll_out(version)
    assert outcome.outcome == "updated", outcome.reason
    assert signers.read_text() == f"# list 2\nstress-vision {keys['new']}\n"
    use(monkeypatch, tmp_path / "old")
    stale = release(tmp_path / "made", tiny_releases[1], tiny_data, 2)
    refused = fleet.roll_out(fleet.champion(stale))
    assert refused.outcome == "failed" and "doesn't hold" in refused.reason


def test_a_device_that_can_not_follow_says_so_and_one_that_has_the_last_key_needs_no_steps(
    fleet: Fleet, tiny_releases: tuple[Path, Path], tiny_data: PreparedData, keys: dict[str, str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    signers = fleet.device.root / "allowed_signers"
    signers.write_text(f"stress-vision {new_key(tmp_path / 'foreign')}\n")
    version = change_keys(fleet, tiny_releases[0], tiny_data, keys, tmp_path, monkeypatch)
    outcome = fleet.roll_out(version)
    assert outcome.outcome == "faulty" and "doesn't follow to list 2 of signers" in outcome.reason
    assert "allowed_signers by hand" in outcome.reason and fleet.device.current is None

    signers.write_text(f"stress-vision {keys['new']}\n")
    assert fleet.roll_out(version).outcome == "updated"
    assert signers.read_text().startswith("# list 2\n")


def test_an_order_to_go_back_holds_after_a_change_of_keys_too(
    fleet: Fleet, tiny_releases: tuple[Path, Path], tiny_data: PreparedData, keys: dict[str, str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (fleet.device.root / "allowed_signers").write_text(f"stress-vision {keys['old']}\n")
    use(monkeypatch, tmp_path / "old")
    newer = fleet.champion(release(tmp_path / "made", tiny_releases[1], tiny_data, 2))
    assert fleet.roll_out(newer).outcome == "updated"
    older = fleet.champion(release(tmp_path / "made", tiny_releases[0], tiny_data, 1))
    order_rollback(fleet.registry, older)
    replace_signers(fleet.store, [keys["old"], keys["new"]])
    use(monkeypatch, tmp_path / "new")
    replace_signers(fleet.store, [keys["new"]])
    outcome = fleet.roll_out(older)
    assert outcome.outcome == "updated" and fleet.device.current == older, outcome.reason


def test_a_list_that_would_lock_devices_out_is_not_written(
    keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path / "store")
    monkeypatch.delenv(SIGNING_KEY_VARIABLE, raising=False)
    with pytest.raises(InputError, match="has to be signed"):
        replace_signers(store, [keys["old"]])
    use(monkeypatch, tmp_path / "old")
    with pytest.raises(InputError, match="is not on it: first add the new key beside it"):
        replace_signers(store, [keys["new"]])
    with pytest.raises(InputError, match='expected public keys, "ssh-ed25519 AAAA…", got'):
        replace_signers(store, [keys["old"], "ssh-rsa AAAA"])
    replace_signers(store, [keys["old"]])
    use(monkeypatch, tmp_path / "new")
    with pytest.raises(InputError, match="devices that hold list 1 know no ssh-ed25519"):
        replace_signers(store, [keys["new"]])
    assert [listed.count for listed in Signers(store).lists()] == [1]

    store.write("signers/1.sig", b"")
    assert Signers(store).lists()[0].signature == "", "that is for devices to refuse"
    store.write("signers/1.json", b"{}")
    with pytest.raises(StoreError, match=r"signers/1.json is no signed list of signers"):
        Signers(store).lists()


# ---------------------------------------------------------------- how long a release may be rolled out


def test_each_rollout_of_the_champion_gives_it_more_time_before_half_is_over(
    tiny_releases: tuple[Path, Path], tiny_data: PreparedData, tmp_path: Path, fleet: Fleet
) -> None:
    version = fleet.champion(release(tmp_path / "made", tiny_releases[0], tiny_data, 1, valid_days=30))
    assert fleet.roll_out(version).outcome == "updated", "made months ago, and expired but for this"
    order = fleet.registry.rollback_order(version)
    assert order and order.expires_at and order.up_to == 1
    assert timedelta(29.9) < order.expires_at - datetime.now(UTC) < timedelta(30)
    assert current_order(fleet.registry, version) == order, "half of it is left"
    order_rollback(fleet.registry, version)
    assert fleet.registry.renew(version, lambda content: None).up_to == 1


def test_an_expired_release_that_is_not_the_champion_ends_before_any_device_is_asked(
    tiny_releases: tuple[Path, Path], tiny_data: PreparedData, tmp_path: Path, fleet: Fleet
) -> None:
    old = fleet.champion(release(tmp_path / "made", tiny_releases[0], tiny_data, 1, valid_days=30))
    fleet.champion(release(tmp_path / "made", tiny_releases[1], tiny_data, 2))
    with pytest.raises(InputError, match=rf"{old} expired on 2026-01-31.*promote --release {old}"):
        fleet.roll_out(old)
    order_rollback(fleet.registry, old)
    assert current_order(fleet.registry, old) is not None


def test_without_its_key_a_signed_champion_is_not_given_time_that_devices_would_refuse(
    tiny_releases: tuple[Path, Path], tiny_data: PreparedData, tmp_path: Path, fleet: Fleet,
    keys: dict[str, str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use(monkeypatch, tmp_path / "old")
    version = fleet.champion(release(tmp_path / "made", tiny_releases[0], tiny_data, 1, valid_days=30))
    monkeypatch.delenv(SIGNING_KEY_VARIABLE)
    with pytest.raises(InputError, match=f"{SIGNING_KEY_VARIABLE} naming the key"):
        fleet.roll_out(version)
    assert fleet.registry.rollback_order(version) is None


def test_a_device_whose_clock_is_wrong_is_told_of(
    tiny_releases: tuple[Path, Path], tiny_data: PreparedData, tmp_path: Path, fleet: Fleet
) -> None:
    wrapper = fleet.device.folder / "python"
    late = "import time as t; now=t.time; t.time=lambda: now()-86400*400"
    (fleet.device.folder / "late").mkdir()
    (fleet.device.folder / "late" / "sitecustomize.py").write_text(late)
    wrapper.write_text(
        f'#!/bin/sh\nPYTHONPATH={fleet.device.folder}/late exec {fleet.device.device.python} "$@"\n'
    )
    wrapper.chmod(0o755)
    fleet.device.device = fleet.device.device.model_copy(update={"python": str(wrapper)})
    version = fleet.champion(release(tmp_path / "made", tiny_releases[0], tiny_data, 1))
    outcome = fleet.roll_out(version)
    assert outcome.outcome == "updated" and "its clock is 400 days behind ours" in outcome.reason


def test_a_signing_key_that_is_far_too_large_is_refused_and_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "key").open("wb") as file:
        file.truncate(1 << 40)
    use(monkeypatch, tmp_path / "key")
    with pytest.raises(InputError, match=r"STRESS_VISION_SIGNING_KEY.*key: expected at most 65,536 bytes"):
        check_signing_key()
