"""The fleet in waves, with devices that only answer: who is visited, when it stops, who is taken back."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from scipy.stats import binom

from deployments.fleet import Device, Fleet
from tasks.bounds import share_at_most
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig, waves
from tasks.rollout.payload import Payload
from tasks.rollout.waves import in_threads, in_waves, wave_targets
from tests import rollouts

PIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
PAYLOAD = Payload("new", Path(), "", None, max_latency_ms=200)


@dataclass
class Answers:
    """A fleet that answers at once: `kinds` by device number, updated where nothing is said."""

    kinds: Mapping[int, str] = field(default_factory=dict)
    previous: str | None = "old"
    back: str | None = "old"
    """What a device runs that was taken back; "away" where it can't be spoken to, "stuck" where it can't."""
    visited: list[int] = field(default_factory=list)
    taken_back: list[int] = field(default_factory=list)

    def bring(self, device: Device) -> DeviceOutcome:
        number = int(device.name)
        self.visited.append(number)
        kind = self.kinds.get(number, "updated")
        running = "new" if kind == "updated" else self.previous
        return DeviceOutcome.model_validate(
            {"device": device.name, "outcome": kind, "reason": f"why {number}",
             "previous_release": self.previous, "running_release": running}
        )  # fmt: skip

    def take_back(self, device: Device, why: str) -> DeviceOutcome:
        self.taken_back.append(int(device.name))
        if self.back == "away":
            return DeviceOutcome(device=device.name, outcome="unreachable", reason="it is\x1b[2J off")
        if self.back == "stuck":
            return DeviceOutcome(device=device.name, outcome="faulty", reason="not returned: read-only")
        reason = f"lost; returned to {self.back}" if self.back == "late" else f"returned: {why}"
        return DeviceOutcome(device=device.name, outcome="failed", reason=reason,
                             running_release=self.back, seen_at=datetime.now(UTC))  # fmt: skip


def fleet(devices: int) -> Fleet:
    return Fleet(
        devices=tuple(
            Device(name=str(number), host="h", user="u", key_file=Path("k"), host_key=PIN)
            for number in range(1, devices + 1)
        )
    )


def run(devices: int, answers: Answers, **config: object) -> FleetOutcome:
    """One device after the other, so that the order of visits is that of the inventory."""
    settings = RolloutConfig.model_validate({"max_parallel": 1, **config})
    return in_waves(fleet(devices), PAYLOAD, settings, answers.bring, answers.take_back)


@pytest.mark.usefixtures("prefect_server")
def test_ctrl_c_lets_visits_under_way_end_and_begins_no_other(
    ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    all_given, ending, begun, done = threading.Event(), threading.Event(), [], []

    class Pool(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
            future = super().submit(fn, *given, **named)
            if given[-1].name == "8":
                all_given.set()
            return future

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ending.set()
            super().shutdown(wait)

    def work(device: Device) -> None:
        begun.append(device.name)
        if device.name == "2" and all_given.wait(60):
            ctrl_c()
        assert ending.wait(60)
        done.append(device.name)

    monkeypatch.setattr("tasks.side_by_side.ThreadPoolExecutor", Pool)

    @flow
    def served() -> None:
        in_threads("wave 1", fleet(8).devices, work, 2)

    with pytest.raises(KeyboardInterrupt):
        served()
    assert sorted(begun) == sorted(done) == ["1", "2"]
    assert caplog.text.count("told to end: the devices under way come to their end first") == 1


def test_waves_reach_the_canaries_then_growing_shares_then_all() -> None:
    config = RolloutConfig(canaries=2, waves=(0.1, 0.5, 1.0))
    assert wave_targets(40, config) == [2, 4, 20, 40]
    assert wave_targets(41, config) == [2, 5, 21, 41]
    assert wave_targets(1, config) == [1]
    assert wave_targets(8, RolloutConfig(canaries=5)) == [5, 8], "canaries come first, however many"


def test_every_device_is_visited_once_and_told_of_in_the_order_of_the_inventory() -> None:
    answers = Answers()
    result = run(10, answers)
    assert sorted(answers.visited) == list(range(1, 11)) and answers.taken_back == []
    assert [device.device for device in result.devices] == [str(number) for number in range(1, 11)]
    assert (result.release, result.stopped, result.max_latency_ms) == ("new", None, 200)
    assert result.word == "Deployed"


@pytest.mark.parametrize(
    ("canaries", "failing", "wave"), [(1, 1, 1), (3, 2, 1), (1, 2, 2), (1, 5, 2), (1, 6, 3)]
)
def test_a_failure_is_met_by_its_own_wave_and_by_no_later_one(canaries: int, failing: int, wave: int) -> None:
    answers = Answers({failing: "failed"})
    result = run(20, answers, canaries=canaries, waves=(0.25, 1.0))
    assert len(answers.visited) == failing, "no device is visited after it"
    assert result.stopped and result.stopped.startswith(f"wave {wave}:") and result.word == "RolloutFailed"


def test_a_wave_larger_than_max_parallel_is_served_in_turns() -> None:
    busy, most, lock = 0, 0, threading.Lock()
    three_at_once = threading.Barrier(3, timeout=30)
    answers = Answers()

    def bring(device: Device) -> DeviceOutcome:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        three_at_once.wait()  # goes on only where three are served together
        with lock:
            busy -= 1
        return answers.bring(device)

    config = RolloutConfig(canaries=9, waves=(1.0,), max_parallel=3)
    result = in_waves(fleet(9), PAYLOAD, config, bring, answers.take_back)
    assert most == 3
    assert sorted(answers.visited) == list(range(1, 10)) and result.complete


def test_devices_of_a_stopped_rollout_that_it_never_visited_say_so() -> None:
    answers = Answers({1: "failed"})
    result = run(3, answers)
    assert answers.visited == [1]
    assert [device.outcome for device in result.devices] == ["failed", "inconclusive", "inconclusive"]
    assert (
        result.devices[2].reason
        == "not visited: the rollout stopped in wave 1: 1 failed of 1 visited, 0 allowed"
    )
    assert result.devices[2].seen_at is None


def test_the_reason_of_a_stop_names_wave_counts_and_the_first_device() -> None:
    result = run(8, Answers({3: "failed", 5: "failed"}), waves=(0.5, 1.0), canaries=2)
    assert result.stopped == "wave 2: 1 failed of 1 visited, 0 allowed; 3: why 3"


@pytest.mark.parametrize(("allowed", "stops"), [(0, True), (1, True), (2, False), (3, False)])
def test_more_failures_than_allowed_in_a_wave_stop_the_rollout(allowed: int, stops: bool) -> None:
    answers = Answers({2: "failed", 3: "failed"})
    result = run(8, answers, canaries=4, waves=(1.0,), max_failures_per_wave=allowed)
    assert bool(result.stopped) is stops
    assert len(answers.visited) == (allowed + 2 if stops else 8)
    assert result.accepted is not stops and result.word == "RolloutFailed"


@pytest.mark.parametrize("kind", ["unreachable", "inconclusive"])
def test_devices_that_do_not_answer_neither_stop_a_rollout_nor_count_as_its_canaries(kind: str) -> None:
    answers = Answers({1: kind, 2: kind, 3: "failed"})
    result = run(10, answers, canaries=1)
    assert answers.visited == [1, 2, 3], "the first that answers is the canary"
    assert result.stopped and result.stopped.startswith("wave 1:")


def test_a_fleet_of_which_nobody_answers_is_visited_to_its_end() -> None:
    answers = Answers(dict.fromkeys(range(1, 6), "unreachable"))
    result = run(5, answers)
    assert len(answers.visited) == 5 and result.stopped is None
    assert result.word == "NotDeployed" and not result.accepted


def test_a_stopped_rollout_takes_back_what_it_updated_and_nothing_else() -> None:
    answers = Answers({2: "unreachable", 4: "inconclusive", 5: "failed"})
    result = run(10, answers, canaries=1, waves=(0.4, 1.0))
    assert answers.visited == [1, 2, 3, 4, 5], "no further device once the limit is passed"
    assert sorted(answers.taken_back) == [1, 3]
    first = result.devices[0]
    assert (first.outcome, first.running_release) == ("failed", "old")
    assert first.reason == "returned: the rollout stopped in wave 2: 1 failed of 4 visited, 0 allowed"
    assert result.devices[4].reason == "why 5"


def test_nothing_is_taken_back_from_a_rollout_that_was_not_stopped() -> None:
    answers = Answers({2: "failed"})
    assert run(5, answers, max_failures_per_wave=1).stopped is None
    assert answers.taken_back == []


def test_a_device_that_ran_the_release_before_keeps_it_when_the_rollout_stops() -> None:
    answers = Answers({2: "failed"}, previous="new")
    result = run(2, answers)
    assert result.stopped and answers.taken_back == []
    assert (result.devices[0].outcome, result.devices[0].running_release) == ("updated", "new")


def test_a_device_that_had_no_release_before_is_taken_back_to_none() -> None:
    answers = Answers({2: "failed"}, previous=None, back=None)
    result = run(2, answers)
    assert answers.taken_back == [1] and result.devices[0].running_release is None


def test_a_device_that_does_not_go_back_is_told_of_as_it_is() -> None:
    answers = Answers({2: "failed"}, back="away")
    first = run(2, answers).devices[0]
    assert (first.outcome, first.running_release) == ("failed", "new")
    assert (first.reason, first.end) == ("not returned: it is off", "failed")
    assert run(2, Answers({2: "failed"}, back="stuck")).devices[0].reason == "not returned: read-only"


def test_a_device_that_goes_back_after_a_lost_connection_is_not_told_of_as_if_it_had_not() -> None:
    first = run(2, Answers({2: "failed"}, back="late")).devices[0]
    assert (first.reason, first.end) == ("lost; returned to late", "returned")


def test_failures_count_for_the_whole_wave_and_not_for_its_turns() -> None:
    answers = Answers({1: "failed", 2: "inconclusive", 3: "inconclusive", 5: "failed"})
    result = run(20, answers, canaries=4, waves=(1.0,), max_failures_per_wave=1)
    assert result.stopped == "wave 1: 2 failed of 5 visited, 1 allowed; 1: why 1"


def test_a_wave_starts_no_further_device_once_its_limit_is_passed() -> None:
    answers = Answers({2: "failed"})
    result = run(100, answers, canaries=1, waves=(1.0,))
    assert answers.visited == [1, 2] and result.stopped


def test_a_share_of_a_large_wave_may_fail() -> None:
    answers = Answers(dict.fromkeys(range(11, 16), "failed"))
    config = {"canaries": 10, "waves": (1.0,), "max_failures_percent": 5}
    assert run(110, answers, **config).stopped is None
    answers = Answers(dict.fromkeys(range(11, 17), "failed"))
    stopped = run(110, answers, **config).stopped
    assert stopped and stopped.startswith("wave 2: 6 failed of 6 visited, 5 allowed")


def test_a_devices_own_fault_neither_stops_a_rollout_nor_is_an_answer() -> None:
    answers = Answers({1: "faulty", 3: "faulty"})
    result = run(3, answers)
    assert result.stopped is None and result.accepted and answers.taken_back == []
    assert (result.word, len(answers.visited)) == ("PartlyDeployed", 3)
    assert result.sentence == "new is seen to run on 1 of 3 devices. 1, 3: faulty, why 1"


def test_too_many_devices_at_fault_stop_a_rollout_but_not_before_enough_were_visited() -> None:
    everyone = dict.fromkeys(range(1, 101), "faulty")
    result = run(100, Answers(everyone), max_faults_per_wave=2)
    assert result.stopped == "wave 1: 5 faulty of 5 visited, 2 allowed; 1: why 1"
    assert run(4, Answers(everyone)).word == "NotDeployed"
    fifth = Answers(dict.fromkeys(range(11, 110, 5), "faulty"))
    assert run(110, fifth, canaries=10, waves=(1.0,), max_faults_percent=20).stopped is None


def test_a_device_that_was_left_on_the_release_is_taken_back_whatever_it_is_told_as() -> None:
    answers = Answers({2: "failed"})

    def bring(device: Device) -> DeviceOutcome:
        outcome = answers.bring(device)
        lost = {"outcome": "inconclusive", "running_release": "new"}
        return outcome.model_copy(update=lost if device.name == "1" else {})

    config = RolloutConfig(max_parallel=1)
    in_waves(fleet(2), PAYLOAD, config, bring, answers.take_back)
    assert answers.taken_back == [1]


def test_each_wave_says_what_it_proves_of_the_devices_that_were_not_asked() -> None:
    said: list[str] = []
    answers = Answers()
    config = RolloutConfig(max_parallel=1, canaries=5, waves=(1.0,))
    in_waves(fleet(59), PAYLOAD, config, answers.bring, answers.take_back, say=said.append)
    assert said == [
        "wave 1: 5 of 5 devices prove the release; with 95 % confidence it fails on 45% of all at most",
        "wave 2: 59 of 59 devices prove the release; with 95 % confidence it fails on 5% of all at most",
    ]


@pytest.mark.parametrize(
    ("found", "looked_at", "share"),
    [(0, 1, 0.95), (0, 5, 0.4507), (1, 20, 0.2161), (3, 300, 0.0257), (2, 2, 1), (400, 5000, 0.0866)],
)
def test_the_bound_is_that_of_clopper_and_pearson(found: int, looked_at: int, share: float) -> None:
    """The share at which so few would be found in one of twenty samples, by their binomial probabilities."""
    bound = share_at_most(found, looked_at)
    assert bound == pytest.approx(share, abs=5e-4)
    if found < looked_at:
        assert binom.cdf(found, looked_at, bound) == pytest.approx(0.05)


def test_where_nothing_was_looked_at_nothing_is_bounded() -> None:
    assert share_at_most(0, 0) is None


def test_a_rollout_visits_with_its_release_and_tells_each_outcome_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = Answers({2: "failed"})
    heard: list[DeviceOutcome] = []
    returned: list[tuple[str, str, str]] = []
    config = RolloutConfig(max_parallel=1)
    quick = config.model_copy(update={"measure": False})

    def visit(device: Device, payload: Payload, given: RolloutConfig, hear: object) -> DeviceOutcome:
        assert payload is PAYLOAD and given in (config, quick)
        return answers.bring(device)

    def measure(
        device: Device, payload: Payload, given: RolloutConfig, outcome: DeviceOutcome
    ) -> DeviceOutcome:
        return outcome.model_copy(update={"reason": f"{outcome.reason}, measured"})

    def return_device(device: Device, version: str, given: RolloutConfig, why: str) -> DeviceOutcome:
        returned.append((device.name, version, why))
        return answers.take_back(device, why)

    monkeypatch.setattr(rollouts, "read_payload", lambda folder, given, renewal: {tmp_path: PAYLOAD}[folder])
    monkeypatch.setattr(waves, "visit", visit)
    monkeypatch.setattr(waves, "measure_updated", measure)
    monkeypatch.setattr(rollouts, "return_device", return_device)
    result = rollouts.roll_out(tmp_path, fleet(2), config, heard.append)
    assert [outcome.reason for outcome in heard[:2]] == ["why 1, measured", "why 2"]
    assert returned == [("1", "new", "the rollout stopped in wave 2: 1 failed of 1 visited, 0 allowed")]
    assert heard[2] == result.devices[0] and heard[2].running_release == "old"
    assert result.release == "new" and result.devices[0].reason.startswith("returned")
    assert rollouts.roll_out(tmp_path, fleet(1), config).complete, "nobody needs to listen"
    assert rollouts.roll_out(tmp_path, fleet(1), quick).devices[0].reason == "why 1"
