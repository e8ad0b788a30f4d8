"""What a rollout is told and what it says, without any device."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from pydantic import ValidationError

from storage.errors import DeviceError, FleetError, InputError, StoreError
from storage.registry import Registry
from tasks.register import Release
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig
from tasks.rollout.ledger import Ledger, read_ledger
from tasks.rollout.release import check_fleet, roll_out_release
from tests.releases import new_store
from tests.rollouts import record
from tests.ssh_devices import new_key
from tests.tasks.small_run import latency


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
        (["updated", "faulty"], None, "PartlyDeployed"),
        (["faulty", "faulty"], None, "NotDeployed"),
        (["updated", "unreachable"], None, "PartlyDeployed"),
        (["updated", "inconclusive"], None, "PartlyDeployed"),
        (["updated", "failed"], None, "RolloutFailed"),
        (["failed", "inconclusive"], "wave 1", "RolloutFailed"),
        (["updated", "inconclusive"], "wave 1", "RolloutFailed"),
        (["unreachable", "inconclusive"], None, "NotDeployed"),
    ],
)
def test_one_word_says_how_a_rollout_ended(outcomes: list[str], stopped: str | None, word: str) -> None:
    assert fleet_outcome(*outcomes, stopped=stopped).word == word


def test_one_sentence_says_how_many_devices_run_the_release_and_why_others_do_not() -> None:
    assert fleet_outcome("updated", "updated").sentence == "R is seen to run on 2 of 2 devices."
    assert fleet_outcome("unreachable", "updated", "failed").sentence == (
        "R is seen to run on 1 of 3 devices. pi-3: failed, why 3; pi-1: unreachable, why 1"
    )


def test_the_sentence_of_a_stopped_rollout_tells_its_cause_once_and_who_is_no_cause_of_it() -> None:
    facts = (
        ("failed", "returned: the rollout stopped in wave 2", True),
        ("failed", "crashes", True),
        ("inconclusive", "not visited: the rollout stopped in wave 2", False),
    )
    devices = tuple(
        DeviceOutcome.model_validate(
            {
                "device": f"pi-{number}",
                "outcome": kind,
                "reason": reason,
                "visited": visited,
                "returned": reason.startswith("returned"),
            }
        )
        for number, (kind, reason, visited) in enumerate(facts, start=1)
    )
    stopped = "wave 2: 1 failed, 0 allowed; pi-2: crashes"
    fleet = FleetOutcome(release="R", devices=devices, stopped=stopped, max_latency_ms=200)
    assert fleet.sentence == (
        f"R is seen to run on 0 of 3 devices, stopped in {stopped}. "
        "pi-2: failed; pi-1: returned; pi-3: not visited"
    )
    assert [row["outcome"] for row in fleet.table()] == ["returned", "failed", "not visited"]


def test_nothing_can_be_said_of_no_device() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        fleet_outcome()


@pytest.mark.parametrize("waves", [(), (0.5,), (1.0, 0.5), (0.5, 0.5, 1.0), (0.0, 1.0)])
def test_waves_that_do_not_grow_to_all_are_refused(waves: tuple[float, ...]) -> None:
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


def test_the_fleet_that_a_configuration_means_is_known_before_any_device_is_spoken_to(tmp_path: Path) -> None:
    path = inventory(tmp_path)
    everyone, press = (check_fleet(RolloutConfig(inventory=path, group=group)) for group in ("", "press"))
    assert everyone and [device.name for device in everyone.devices] == ["a", "b"]
    assert press and [device.name for device in press.devices] == ["a"]
    assert check_fleet(RolloutConfig()) is None


def test_an_inventory_of_the_environment_is_taken_where_the_configuration_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRESS_VISION_INVENTORY", inventory(tmp_path))
    everyone = check_fleet(RolloutConfig())
    assert everyone and [device.name for device in everyone.devices] == ["a", "b"]
    with pytest.raises(InputError, match="there is no inventory"):
        check_fleet(RolloutConfig(inventory=str(tmp_path / "none.toml")))


def test_an_unknown_group_ends_before_any_device_is_spoken_to(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"'pres'.*canteen, press"):
        check_fleet(RolloutConfig(inventory=inventory(tmp_path), group="pres"))


def test_a_key_file_that_is_none_ends_before_any_device_is_spoken_to(tmp_path: Path) -> None:
    path = inventory(tmp_path, key="fleet.toml")
    with pytest.raises(DeviceError, match=r"device a .*key_file .*fleet\.toml can't be used"):
        check_fleet(RolloutConfig(inventory=path))


def test_a_missing_inventory_ends_before_any_device_is_spoken_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no inventory"):
        check_fleet(RolloutConfig(inventory=str(tmp_path / "none.toml")))


def test_a_rollout_without_an_inventory_is_an_error_that_says_where_to_name_one(tmp_path: Path) -> None:
    release = Release(version=VERSION, uri="", manifest_sha256="", directory=tmp_path)
    with disable_run_logger(), pytest.raises(FleetError, match=r"rollout\.inventory"):
        roll_out_release(str(tmp_path), release, RolloutConfig())


VERSION, OLDER = "20260131-031500-0a1b2c3d", "20260130-031500-0a1b2c3d"


def seen(device: str, **fields: object) -> DeviceOutcome:
    facts = {"outcome": "updated", "reason": "proven", "running_release": VERSION, "benchmark": latency(2)}
    return DeviceOutcome.model_validate({"device": device, "seen_at": datetime.now(UTC), **facts, **fields})


def whole(*devices: DeviceOutcome) -> FleetOutcome:
    return FleetOutcome(release=VERSION, devices=devices, max_latency_ms=200)


def test_the_ledger_holds_what_each_device_runs_and_how_fast(tmp_path: Path) -> None:
    registry, devices = Registry(new_store(tmp_path)), [seen("a"), seen("b", benchmark=None)]
    record(registry, whole(*devices))
    assert [DeviceOutcome.model_validate(facts) for facts in registry.devices().values()] == devices
    assert registry.devices()["a"]["release"] == VERSION
    assert [len(registry.benchmarks(name)) for name in ("a", "b")] == [1, 0]


def test_a_device_that_is_away_keeps_in_the_ledger_what_it_ran_and_when_it_was_seen(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    record(registry, whole(seen("a")))
    before = registry.devices()["a"]
    away = {"outcome": "unreachable", "reason": "off", "seen_at": None, "running_release": None}
    record(registry, whole(seen("a", **away), seen("new", **away)))
    after = registry.devices()["a"]
    assert (after["outcome"], after["reason"]) == ("unreachable", "off")
    assert (after["seen_at"], after["running_release"]) == (before["seen_at"], VERSION)
    new = registry.devices()["new"]
    assert new["seen_at"] is None and new["tried_since"] and after["tried_since"] is None
    record(registry, whole(seen("new", **away)))
    assert registry.devices()["new"]["tried_since"] == new["tried_since"]
    record(registry, whole(seen("new")))
    assert registry.devices()["new"]["tried_since"] is None


def test_a_store_that_fails_for_one_device_costs_no_other_and_is_told_with_what_became_of_it(
    tmp_path: Path,
) -> None:
    registry = Registry(new_store(tmp_path))
    (tmp_path / "fleet/b.json").mkdir(parents=True)  # in the way: it can't be written
    with pytest.raises(StoreError) as caught:
        record(registry, whole(seen("a"), seen("b", outcome="failed", reason="too slow"), seen("c")))
    said = str(caught.value)
    assert (
        "is seen to run on 2 of 3 devices" in said and "lacks 1 of 3 outcomes: b: failed, too slow (" in said
    )
    assert f"{VERSION} out again" in said
    assert [path.name for path in sorted((tmp_path / "fleet").glob("*.json")) if path.is_file()] == [
        "a.json",
        "c.json",
    ]


def test_what_is_seen_is_in_the_ledger_at_once_and_a_later_word_replaces_it(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    ledger = Ledger(registry, VERSION, "run-1")
    ledger.observe(seen("a", outcome="inconclusive", reason=f"is being switched to {VERSION}",
                        running_release=OLDER, benchmark=None))  # fmt: skip
    first = registry.devices()["a"]
    assert (first["running_release"], first["run"]) == (OLDER, "run-1") and "being switched" in str(first)
    ledger.observe(seen("a"))
    assert registry.devices()["a"]["running_release"] == VERSION


def test_an_older_observation_of_another_run_replaces_no_newer_one(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    Ledger(registry, VERSION, "run-2").observe(seen("a"))
    before = datetime.now(UTC) - timedelta(minutes=1)
    Ledger(registry, OLDER, "run-1").observe(seen("a", seen_at=before, running_release=OLDER))
    facts = registry.devices()["a"]
    assert (facts["running_release"], facts["run"]) == (VERSION, "run-2")


def test_a_line_that_can_not_be_read_is_written_anew(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/a.json").write_text("{")
    Ledger(registry, VERSION).observe(seen("a"))
    assert registry.devices()["a"]["running_release"] == VERSION


@pytest.mark.parametrize(
    "content", ["{", "[]", "[[1]]", '"x"', '{"outcome": "well"}', '{"device": 3}', "", "\xff"]
)
def test_a_line_that_can_not_be_read_hides_no_other(tmp_path: Path, content: str) -> None:
    registry = Registry(new_store(tmp_path))
    record(registry, whole(seen("a"), seen("b")))
    (tmp_path / "fleet/a.json").write_text(content, "latin-1")
    ledger = read_ledger(registry)
    assert list(ledger) == ["a", "b"] and ledger["b"].running_release == VERSION
    assert ledger["a"].seen_at is None and "can't be read; the next rollout" in ledger["a"].reason


def test_an_observation_from_a_clock_that_was_ahead_is_replaced(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    ahead = datetime.now(UTC) + timedelta(400)
    Ledger(registry, OLDER).observe(seen("a", seen_at=ahead, running_release=OLDER))
    Ledger(registry, VERSION).observe(seen("a"))
    assert registry.devices()["a"]["running_release"] == VERSION


def test_devices_that_were_not_visited_keep_their_line(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    record(registry, whole(seen("a")))
    before = registry.devices()
    waiting = DeviceOutcome(device="a", outcome="inconclusive", reason="not visited", visited=False)
    record(registry, whole(waiting, seen("b")))
    assert registry.devices()["a"] == before["a"]


def test_a_device_has_a_history_of_what_was_measured(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    for minute in (1, 2):
        at = datetime(2026, 1, 31, 3, minute, tzinfo=UTC)
        Ledger(registry, VERSION).observe(seen("a", seen_at=at, benchmark=latency(minute)))
    assert [figures["p50_ms"] for figures in registry.benchmarks("a")] == [1, 2]


def test_the_ledger_has_the_figures_of_what_a_device_runs_and_not_of_a_release_that_it_refused(
    tmp_path: Path,
) -> None:
    registry = Registry(new_store(tmp_path))

    def p50_ms() -> float | None:
        known = DeviceOutcome.model_validate(registry.device("a")).benchmark
        return known.p50_ms if known else None

    Ledger(registry, OLDER).observe(seen("a", running_release=OLDER, benchmark=latency(1)))
    for figures in (None, latency(7)):
        refused = seen("a", outcome="failed", running_release=OLDER, benchmark=figures)
        Ledger(registry, VERSION).observe(refused)
        assert p50_ms() == 1, "it runs the same as before"
    Ledger(registry, VERSION).observe(seen("a", benchmark=latency(7)))
    assert p50_ms() == 7
    Ledger(registry, VERSION).observe(
        seen("a", outcome="failed", running_release=OLDER, benchmark=latency(7))
    )
    assert p50_ms() is None, "it was taken back"


def test_a_sentence_and_a_table_stay_short_for_a_large_fleet() -> None:
    devices = [
        DeviceOutcome.model_validate(
            {"device": f"pi-{number}", "outcome": kind, "reason": f"a long reason for {number} " * 20}
        )
        for number in range(5000)
        for kind in [("updated", "failed", "faulty", "unreachable", "inconclusive")[number % 5]]
    ]
    fleet = FleetOutcome(release="R", devices=tuple(devices), max_latency_ms=200)
    assert len(fleet.sentence) < 1500
    assert fleet.sentence.startswith(
        "R is seen to run on 1000 of 5000 devices. pi-1, pi-6, pi-11 and 997 more: failed, a"
    )
    rows = fleet.table()
    assert len(rows) == 200 and {row["outcome"] for row in rows}.isdisjoint({"updated"})


def test_a_row_of_a_table_tells_release_time_and_figures() -> None:
    at = datetime(2026, 1, 31, 3, 15, tzinfo=UTC)
    row = seen("a", seen_at=at).row()
    assert (row["running"], row["seen (UTC)"], row["p50 ms"]) == (VERSION, "2026-01-31 03:15", 2.0)
    assert set(row) == set(seen("b", benchmark=None, seen_at=None).row())
    assert fleet_outcome("updated", "failed").table()[1]["seen (UTC)"] == ""


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"outcome": "updated", "running_release": "B", "previous_release": "A", "reason": "p95 4 ms"},
         "pi-1 runs B now, and A before: p95 4 ms (2.0 s)."),
        ({"outcome": "updated", "running_release": "B", "reason": "p95 4 ms"},
         "pi-1 runs B now, and nothing before: p95 4 ms (2.0 s)."),
        ({"outcome": "updated", "running_release": "B", "previous_release": "B", "reason": "p95 4 ms"},
         "pi-1 runs B, as before: p95 4 ms (2.0 s)."),
        ({"outcome": "failed", "running_release": "A", "reason": "B hangs; returned to A"},
         "B fails on pi-1, which runs A: B hangs; returned to A (2.0 s)."),
        ({"outcome": "failed", "running_release": "A", "returned": True, "reason": "returned: it stopped"},
         "pi-1 is back on A: it stopped."),
        ({"outcome": "faulty", "running_release": "A", "seen_at": datetime(2026, 1, 1, tzinfo=UTC),
          "reason": "disk full"}, "pi-1 has a fault of its own, and runs A: disk full (2.0 s)."),
        ({"outcome": "unreachable", "reason": "no route"},
         "pi-1 is out of reach, and didn't tell what it runs: no route (2.0 s)."),
        ({"outcome": "inconclusive", "seen_at": datetime(2026, 1, 1, tzinfo=UTC), "reason": "too hot"},
         "pi-1 says nothing about B, and runs no release: too hot (2.0 s)."),
    ],
)  # fmt: skip
def test_the_log_says_of_each_device_what_it_runs_and_why(facts: dict[str, object], said: str) -> None:
    told = {"device": "pi-1", "seconds": 2.0, **facts}
    assert DeviceOutcome.model_validate(told).sentence("B") == said
