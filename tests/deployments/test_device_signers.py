"""The program on a device: whom it believes, how it follows to other keys, and how a release expires."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.pi import device
from tests.deployments.device_program import NEW, OLD, Clock, ask, current, fault, run_release, upload
from tests.ssh_devices import new_key

MADE = datetime(2026, 1, 2, 3, 15, tzinfo=UTC)
"""When NEW was, by its version."""
Sign = Callable[[str, str, str], str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """The public halves of three keys."""
    return {name: new_key(tmp_path / name) for name in ("first", "second", "thief")}


@pytest.fixture
def sign(tmp_path: Path) -> Sign:
    def signed(text: str, name: str, purpose: str) -> str:
        command = ["ssh-keygen", "-Y", "sign", "-f", str(tmp_path / name), "-n", purpose]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    return signed


@pytest.fixture
def offer(root: Path, keys: dict[str, str], sign: Sign) -> Callable[..., str]:
    """Ask a device to take a list of signers; its count then, or why it doesn't."""

    def offered(count: int, names: list[str], by: str, purpose: str = device.LIST) -> str:
        listed = json.dumps({"count": count, "signers": [keys[name] for name in names]})
        asked = device.parse(["--root", str(root), "inspect"])
        asked.listed, asked.signature = listed, sign(listed, by, purpose)
        answer = device.explained("signers", lambda: device.take_signers(root, asked))
        return answer["error"] if "error" in answer else f"list {answer['signers']}"

    return offered


def trust(root: Path, *keys: str) -> None:
    (root / "allowed_signers").write_text("".join(f"{device.SIGNER} {key}\n" for key in keys))


def trusted(root: Path) -> list[str]:
    lines = (root / "allowed_signers").read_text().splitlines()
    return [line.removeprefix(f"{device.SIGNER} ") for line in lines if not line.startswith("#")]


def test_a_device_follows_from_one_key_to_the_next_and_forgets_the_first(
    root: Path, keys: dict[str, str], offer: Callable[..., str], sign: Sign
) -> None:
    trust(root, keys["first"])
    assert offer(1, ["first", "second"], by="first") == "list 1"
    assert trusted(root) == [keys["first"], keys["second"]]
    assert offer(2, ["second"], by="second") == "list 2"
    assert ask(root, "inspect")["signers"] == 2 and trusted(root) == [keys["second"]]

    folder = upload(root, NEW)
    manifest = (folder / "manifest.json").read_text()
    for name, holds in (("first", False), ("second", True)):
        (folder / "manifest.sig").write_text(sign(manifest, name, device.RELEASE))
        assert ask(root, "need", "--version", NEW)["ok"] is holds
    assert not (root / "incoming" / "signers").exists()


def test_a_list_is_followed_only_by_a_key_that_is_on_both(
    root: Path, keys: dict[str, str], offer: Callable[..., str]
) -> None:
    trust(root, keys["first"])
    assert "not signed with a key on the list held here" in offer(1, ["thief"], by="thief")
    assert "not signed with a key on the list itself" in offer(1, ["second"], by="first"), (
        "nobody may have it"
    )
    assert "held here" in offer(1, ["first"], by="first", purpose=device.RELEASE)
    assert trusted(root) == [keys["first"]] and ask(root, "inspect")["signers"] == 0


def test_an_older_list_does_not_bring_a_key_back(
    root: Path, keys: dict[str, str], offer: Callable[..., str]
) -> None:
    trust(root, keys["first"])
    assert offer(1, ["first", "second"], by="first") == "list 1"
    assert offer(2, ["first"], by="first") == "list 2"
    assert offer(1, ["first", "second"], by="first") == (
        "list 1 of signers is not newer than list 2, held here"
    )
    (root / "state.json").write_text("lost")
    assert "not newer" in offer(2, ["first", "second"], by="first"), "the number lies with the keys"


def test_no_list_makes_a_device_that_takes_everything_ask_for_signatures(
    root: Path, offer: Callable[..., str]
) -> None:
    assert "takes unsigned releases" in offer(1, ["first"], by="first")
    assert not (root / "allowed_signers").exists()


@pytest.mark.parametrize(
    "listed", ["", "[]", '{"count": 1}', '{"count": 1, "signers": []}', '{"count": 1, "signers": ["*\\nx"]}']
)
def test_a_list_that_is_none_is_refused(root: Path, keys: dict[str, str], listed: str, sign: Sign) -> None:
    trust(root, keys["first"])
    asked = device.parse(["--root", str(root), "inspect"])
    asked.listed, asked.signature = listed, sign(listed, "first", device.LIST)
    assert device.explained("signers", lambda: device.take_signers(root, asked))["kind"] == "refused"
    assert trusted(root) == [keys["first"]]


# ---------------------------------------------------------------- expiry


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(device, "time", clock)
    monkeypatch.setattr(device, "start_watchdog", lambda root: None)
    return clock


def at(clock: Clock, days: float) -> None:
    """The device's clock so many days after NEW was made."""
    clock.wall = (MADE + timedelta(days)).timestamp()


def expiring(root: Path, days: float = 30) -> Path:
    return upload(root, NEW, expires_at=f"{MADE + timedelta(days):%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.parametrize(("days", "taken"), [(29.9, True), (30.1, False), (-1000, True)])
def test_a_release_is_taken_until_it_expires_and_by_a_clock_that_wakes_in_the_past(
    root: Path, clock: Clock, days: float, taken: bool
) -> None:
    run_release(root, OLD)
    expiring(root)
    at(clock, days)
    if taken:
        assert ask(root, "stage", "--version", NEW)["ok"]
        return
    said = fault(root, "stage", "--version", NEW)
    assert said.startswith(
        f"{NEW} expired on 2026-02-01, by the clock of this device, where it is 2026-02-01"
    )
    assert fault(root, "need", "--version", NEW) == said


def test_no_clock_takes_away_what_runs(root: Path, clock: Clock) -> None:
    at(clock, 1)
    expiring(root)
    assert ask(root, "stage", "--version", NEW)["ok"]
    token = ask(root, "switch", "--version", NEW)["token"]
    at(clock, 10_000)
    assert ask(root, "confirm", "--token", token)["ok"] and current(root) == NEW
    expiring(root)
    assert ask(root, "need", "--version", NEW)["ok"], "it is mended, too"


def test_what_expires_between_staging_and_switch_is_not_switched_to(root: Path, clock: Clock) -> None:
    at(clock, 1)
    expiring(root)
    assert ask(root, "stage", "--version", NEW)["ok"]
    at(clock, 31)
    assert "expired" in fault(root, "switch", "--version", NEW) and current(root) is None


@pytest.mark.parametrize(("release", "days", "taken"), [(NEW, 60, True), (NEW, 40, False), (OLD, 60, False)])
def test_an_order_for_it_gives_a_release_more_time(
    root: Path, clock: Clock, release: str, days: float, taken: bool
) -> None:
    folder = expiring(root)
    ends = f"{MADE + timedelta(days):%Y-%m-%dT%H:%M:%S.%fZ}"
    (folder / device.ORDER).write_text(json.dumps({"release": release, "up_to": 0, "expires_at": ends}))
    at(clock, 50)
    assert ask(root, "stage", "--version", NEW)["ok"] is taken


def test_more_time_is_signed_where_releases_are(
    root: Path, clock: Clock, keys: dict[str, str], sign: Sign
) -> None:
    trust(root, keys["first"])
    folder = expiring(root)
    (folder / "manifest.sig").write_text(
        sign((folder / "manifest.json").read_text(), "first", device.RELEASE)
    )
    order = json.dumps(
        {"release": NEW, "up_to": 0, "expires_at": f"{MADE + timedelta(60):%Y-%m-%dT%H:%M:%SZ}"}
    )
    (folder / device.ORDER).write_text(order)
    at(clock, 50)
    assert "rollback of" in ask(root, "need", "--version", NEW)["error"]
    (folder / "rollback.sig").write_text(sign(order, "thief", device.ROLLBACK))
    assert "doesn't hold" in ask(root, "need", "--version", NEW)["error"]
    (folder / "rollback.sig").write_text(sign(order, "first", device.ROLLBACK))
    assert ask(root, "need", "--version", NEW)["ok"]
