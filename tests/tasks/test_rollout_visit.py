"""One visit, step by step, with a device that answers what it is told to: what is asked, in which order, and
what follows from each answer. The same steps over real SSH are in test_rollout.py."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.fleet import Device
from deployments.program import Answer
from storage.errors import DeviceError, InputError
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, RolloutConfig, visit
from tasks.rollout.visit import Payload, read_payload, return_device
from tests.deployments.device_program import NEW, OLD, upload
from tests.tasks.small_run import latency

PIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
DEVICE = Device(name="pi-1", host="h", user="u", key_file=Path("k"), host_key=PIN)
MEASURED = BenchmarkConfig(runs=12, warmup=2, threads=3, min_cpu_share=0.8)
CONFIG = RolloutConfig(connect_timeout_s=3, command_timeout_s=7, confirm_within_s=11, benchmark=MEASURED)
PAYLOAD = Payload(NEW, (Path("manifest.json"), Path("manifest.sig")), Path("folder"), max_latency_ms=10)
HEALTHY = {"throttled": 0, "temperature_c": 50.0}
GOOD: Answer = {"ok": True, **latency(5).model_dump(mode="json")}
LOST = DeviceError("connection lost")


@dataclass
class Pi:
    """The device, its connection and the program on it. `answers` holds what differs from a good visit:
    for a command, or for a command through `current`."""

    answers: dict[str, Answer | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    options: dict[str, dict[str, object]] = field(default_factory=dict)
    connected: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def connect(self, device: Device, timeout_s: float) -> Iterator["Pi"]:
        assert device is DEVICE
        self.connected.append(timeout_s)
        self._say("connect", {"ok": True}, {})
        yield self

    def install(self, *, timeout_s: float) -> Answer:
        return self._say("install", {"ok": True}, {"timeout_s": timeout_s})

    def send(self, file: Path, version: str, *, timeout_s: float) -> Answer:
        return self._say(f"send {file}", {"ok": True}, {"version": version, "timeout_s": timeout_s})

    def ask(self, command: str, **options: object) -> Answer:
        good = {
            "inspect": {"current": OLD, "pending": None, "health": HEALTHY},
            "need": {"missing": ["model", "golden"]},
            "switch": {"version": NEW, "previous": OLD, "token": "secret"},
            "revert": {"current": OLD},
            "benchmark": GOOD,
        }
        name = f"{command} --current" if options.get("current") else command
        return self._say(name, {"ok": True, **good.get(command, {})}, options)

    def _say(self, name: str, good: Answer, options: dict[str, object]) -> Answer:
        if name != "connect":
            self.asked.append(name)
        self.options[name] = options
        answer = self.answers.get(name, good)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def pi(monkeypatch: pytest.MonkeyPatch) -> Pi:
    pi = Pi()
    monkeypatch.setattr(visit, "connect", pi.connect)
    monkeypatch.setattr(visit, "DeviceProgram", lambda connection: connection)
    return pi


def visited(config: RolloutConfig = CONFIG) -> DeviceOutcome:
    return visit.visit(DEVICE, PAYLOAD, config)


def refused(why: str, kind: str = "refused") -> Answer:
    return {"ok": False, "kind": kind, "error": why}


BEFORE = ["install", "inspect"]
SENT = ["send manifest.json", "send manifest.sig", "need", "send folder/model", "send folder/golden"]
STAGED = [*BEFORE, *SENT, "stage", "check", "benchmark"]
SWITCHED = [*STAGED, "switch", "check --current", "benchmark --current"]


def test_a_device_proves_a_release_switches_proves_it_again_and_is_told_to_keep_it(pi: Pi) -> None:
    outcome = visited()
    assert pi.asked == [*SWITCHED, "confirm"] and pi.connected == [3]
    assert (outcome.device, outcome.outcome, outcome.reason) == (
        "pi-1",
        "updated",
        "p95 6.00 ms, at most 10 ms",
    )
    assert (outcome.previous_release, outcome.running_release) == (OLD, NEW)
    assert outcome.benchmark and outcome.benchmark.p95_ms == 6 and outcome.seen_at
    assert 0 <= outcome.seconds < 60


def test_a_device_is_told_how_to_measure_and_how_long_each_step_may_take(pi: Pi) -> None:
    visited()
    assert {options["timeout_s"] for name, options in pi.options.items() if name != "connect"} == {7}
    for name, current in (("benchmark", False), ("benchmark --current", True)):
        assert pi.options[name] == {
            "version": NEW, "current": current, "runs": 12, "warmup": 2, "threads": 3, "timeout_s": 7,
        }  # fmt: skip
        check = pi.options[name.replace("benchmark", "check")]
        assert check == {"version": NEW, "current": current, "threads": 3, "timeout_s": 7}
    assert pi.options["switch"] == {"version": NEW, "confirm_within_s": 11, "timeout_s": 7}
    assert pi.options["confirm"] == {"token": "secret", "timeout_s": 7}
    assert pi.options["send folder/model"]["version"] == pi.options["send manifest.sig"]["version"] == NEW


def test_a_device_that_runs_the_release_is_measured_and_not_switched(pi: Pi) -> None:
    pi.answers["inspect"] = {"ok": True, "current": NEW, "pending": None, "health": HEALTHY}
    outcome = visited()
    assert pi.asked == STAGED
    assert (outcome.outcome, outcome.reason) == ("updated", "ran this release already")
    assert (outcome.previous_release, outcome.running_release) == (NEW, NEW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pending": {"version": "other"}}, "another rollout waits to confirm other"),
        ({"health": {**HEALTHY, "temperature_c": 85}}, "too hot: 85 °C, measured only up to 80 °C"),
        ({"health": {**HEALTHY, "throttled": 4}}, "throttled: throttled"),
    ],
)
def test_a_device_that_can_not_be_judged_is_left_alone(pi: Pi, change: Answer, reason: str) -> None:
    pi.answers["inspect"] = {"ok": True, "current": OLD, "pending": None, "health": HEALTHY, **change}
    outcome = visited()
    assert pi.asked == BEFORE
    assert (outcome.outcome, outcome.reason, outcome.running_release) == ("inconclusive", reason, OLD)


@pytest.mark.parametrize(
    "step", [*STAGED[:2], "send manifest.sig", "need", "send folder/golden", *STAGED[-3:]]
)
@pytest.mark.parametrize(
    ("kind", "outcome"), [("refused", "failed"), ("error", "failed"), ("busy", "inconclusive")]
)
def test_what_a_device_declines_before_the_switch_ends_the_visit(
    pi: Pi, step: str, kind: str, outcome: str
) -> None:
    pi.answers[step] = refused("not today", kind)
    seen = visited()
    assert pi.asked == STAGED[: STAGED.index(step) + 1]
    assert (seen.outcome, seen.reason) == (outcome, "not today")
    assert seen.running_release == (None if step in BEFORE else OLD)
    assert (seen.seen_at is None) is (step in BEFORE)


@pytest.mark.parametrize(
    ("figures", "limit", "outcome", "reason"),
    [
        ({}, 6.0, "updated", "p95 6.00 ms, at most 6 ms"),
        ({}, 5.99, "failed", "p95 6.00 ms, expected at most 5.99 ms"),
        ({"cpu_share": 0.79}, 5.99, "inconclusive",
         "too busy to measure: p95 6.00 ms, expected at most 5.99 ms, with 79% of a core"),
        ({"cpu_share": 0.8}, 5.99, "failed", "p95 6.00 ms, expected at most 5.99 ms"),
        ({"cpu_share": 0.1}, 6.0, "updated", "p95 6.00 ms, at most 6 ms"),
        ({"health_after": {"throttled": 1}}, 6.0, "inconclusive", "throttled: under-voltage"),
        ({"p95_ms": float("nan")}, 6.0, "failed",
         "its benchmark can't be used: p95_ms: Input should be a finite number"),
        ({"fps": "fast"}, 6.0, "failed",
         "its benchmark can't be used: fps: Input should be a valid number, unable to parse string "
         "as a number"),
    ],
)  # fmt: skip
def test_the_slowest_of_twenty_frames_decides_on_a_device_that_is_fit(
    pi: Pi, figures: Answer, limit: float, outcome: str, reason: str
) -> None:
    pi.answers["benchmark"] = pi.answers["benchmark --current"] = {**GOOD, **figures}
    seen = visit.visit(DEVICE, Payload(NEW, (), Path("folder"), limit), CONFIG)
    assert (seen.outcome, seen.reason) == (outcome, reason)
    assert ("switch" in pi.asked) is (outcome == "updated")


@pytest.mark.parametrize(
    ("step", "answer", "outcome", "reason"),
    [
        ("check --current", refused("outputs differ"), "failed", "outputs differ"),
        ("benchmark --current", {**GOOD, "health_after": {"temperature_c": 90}}, "inconclusive",
         "too hot: 90 °C, measured only up to 80 °C"),
        ("benchmark --current", {**GOOD, "p95_ms": 11}, "failed", "p95 11.00 ms, expected at most 10 ms"),
        ("benchmark --current", {"ok": True}, "failed",
         "its benchmark can't be used: runs: Field required"),
        ("confirm", refused("too late", "busy"), "inconclusive", "too late"),
    ],
)  # fmt: skip
def test_what_a_device_does_not_prove_again_after_the_switch_takes_it_back(
    pi: Pi, step: str, answer: Answer, outcome: str, reason: str
) -> None:
    pi.answers[step] = answer
    seen = visited()
    assert pi.asked[-2:] == [step, "revert"]
    assert pi.options["revert"] == {"version": NEW, "why": reason, "timeout_s": 7}
    assert (seen.outcome, seen.reason) == (outcome, f"{reason}; returned to {OLD}")
    assert seen.running_release == OLD


def test_a_device_that_had_none_returns_to_no_release(pi: Pi) -> None:
    pi.answers |= {"check --current": refused("no"), "revert": {"ok": True, "current": None}}
    outcome = visited()
    assert (outcome.reason, outcome.running_release) == ("no; returned to no release", None)


def test_a_refused_switch_changes_nothing(pi: Pi) -> None:
    pi.answers["switch"] = refused("it has rotted")
    outcome = visited()
    assert pi.asked == [*STAGED, "switch"]
    assert (outcome.outcome, outcome.reason, outcome.running_release) == ("failed", "it has rotted", OLD)


def test_a_device_that_can_not_be_reached_is_unreachable(pi: Pi) -> None:
    pi.answers["connect"] = LOST
    outcome = visited()
    assert (outcome.outcome, outcome.reason) == ("unreachable", "connection lost")
    assert (outcome.running_release, outcome.seen_at, len(pi.connected)) == (None, None, 1)


def test_a_connection_lost_before_the_switch_leaves_the_device_as_it_was(pi: Pi) -> None:
    pi.answers["benchmark"] = LOST
    outcome = visited()
    assert (outcome.outcome, outcome.running_release, len(pi.connected)) == ("unreachable", OLD, 1)


@pytest.mark.parametrize("step", ["switch", "check --current", "confirm"])
def test_a_connection_lost_after_the_switch_is_made_again_to_go_back(pi: Pi, step: str) -> None:
    pi.answers[step] = LOST
    outcome = visited()
    assert pi.connected == [3, 3] and pi.asked[-1] == "revert"
    assert pi.options["revert"] == {
        "version": NEW, "why": "connection lost before it was confirmed", "timeout_s": 7,
    }  # fmt: skip
    assert (outcome.outcome, outcome.running_release) == ("failed", OLD)
    assert outcome.reason == f"connection lost; returned to {OLD}"


@pytest.mark.parametrize("answer", [LOST, refused("a stray file")])
def test_a_device_that_stays_away_after_the_switch_returns_by_itself_and_nobody_claims_more(
    pi: Pi, answer: Answer | Exception
) -> None:
    pi.answers |= {"check --current": LOST, "revert": answer}
    outcome = visited()
    assert (outcome.outcome, outcome.running_release) == ("unreachable", None)
    assert outcome.reason == (
        f"connection lost; without our confirmation it returns to {OLD} by itself within 11 s of the switch"
    )


def test_a_surprise_on_one_device_is_its_outcome(pi: Pi) -> None:
    pi.answers["need"] = {"ok": True}
    outcome = visited()
    assert (outcome.outcome, outcome.reason) == ("failed", "unexpected KeyError: 'missing'")
    assert outcome.running_release == OLD


def test_a_device_is_asked_to_return_with_the_reason(pi: Pi) -> None:
    assert return_device(DEVICE, NEW, CONFIG, "stopped") == {"ok": True, "current": OLD}
    assert pi.connected == [3] and pi.options["revert"] == {"version": NEW, "why": "stopped", "timeout_s": 7}
    pi.answers["connect"] = LOST
    assert return_device(DEVICE, NEW, CONFIG, "stopped") == refused("connection lost", "unreachable")


# ---------------------------------------------------------------- what goes to a device


TENSOR = {"shape": [1, 2, 2, 1], "dtype": "uint8", "scale": 1.0, "zero_point": 0}
MANIFEST = {
    "created_at": "2026-01-02T03:15:00Z", "input": TENSOR, "output": TENSOR, "classes": [], "label_set": "",
    "golden": {"file": "golden.npz", "images": 1, "runtime": "r", "tolerance_lsb": 0}, "metrics": {},
    "max_latency_ms": 150.0, "data_fingerprint": "", "experiment_id": "", "min_runtime_version": "",
}  # fmt: skip


def test_a_release_carries_its_limit_unless_the_configuration_has_another(tmp_path: Path) -> None:
    folder = upload(tmp_path, NEW, **MANIFEST)
    payload = read_payload(folder, RolloutConfig())
    assert payload == Payload(NEW, (folder / "manifest.json",), folder, 150)
    assert read_payload(folder, RolloutConfig(max_latency_ms=30)).max_latency_ms == 30


def test_a_signature_goes_with_its_manifest(tmp_path: Path) -> None:
    folder = upload(tmp_path, NEW, **MANIFEST)
    (folder / "manifest.sig").touch()
    sent = [path.name for path in read_payload(folder, CONFIG).manifest_files]
    assert sent == ["manifest.json", "manifest.sig"]


def test_a_release_that_differs_from_its_manifest_goes_nowhere(tmp_path: Path) -> None:
    folder = upload(tmp_path, NEW, **MANIFEST)
    (folder / "golden.npz").write_bytes(b"rot")
    (folder / "model_int8.tflite").unlink()
    with pytest.raises(InputError, match=r"model_int8\.tflite, golden\.npz differ"):
        read_payload(folder, CONFIG)
