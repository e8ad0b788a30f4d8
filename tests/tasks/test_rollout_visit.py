"""One visit, step by step, with a device that answers what it is told to: what is asked, in which order, and
what follows from each answer. The same steps over real SSH are in test_rollout.py and tests/faults."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.fleet import Device
from deployments.program import Answer, ProgramEnded, Renewal
from storage.errors import DeviceError, InputError
from storage.registry import RollbackOrder
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, RolloutConfig, visit
from tasks.rollout.payload import Payload, read_payload
from tests.deployments.device_program import NEW, OLD, upload
from tests.tasks.small_run import latency

PIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
DEVICE = Device(name="pi-1", host="h", user="u", key_file=Path("k"), host_key=PIN)
MEASURED = BenchmarkConfig(runs=12, warmup=2, threads=3, min_cpu_share=0.8)
CONFIG = RolloutConfig(connect_timeout_s=3, command_timeout_s=7, confirm_within_s=11, benchmark=MEASURED)
HEALTHY = {"throttled": 0, "temperature_c": 50.0}
GOOD: Answer = {"ok": True, **latency(5).model_dump(mode="json")}
LOST = DeviceError("connection lost")
MODEL, GOLDEN = "model_int8.tflite", "golden.npz"
TENSOR = {"shape": [1, 2, 2, 1], "dtype": "uint8", "scale": 1.0, "zero_point": 0}
MANIFEST = {
    "created_at": "2026-01-02T03:15:00Z", "input": TENSOR, "output": TENSOR, "classes": [], "label_set": "",
    "golden": {"file": GOLDEN, "images": 1, "runtime": "r", "tolerance_lsb": 0}, "metrics": {},
    "max_latency_ms": 150.0, "data_fingerprint": "", "experiment_id": "", "min_runtime_version": "",
}  # fmt: skip


@dataclass
class Pi:
    """The device, its connection and the program on it.

    `answers` holds what differs from a good visit, for a command, `prove --current`, or `prove OLD`; a list
    is used up from the left, its last one stays.
    """

    running: str | None = OLD
    pending: str | None = None
    answers: dict[str, list[Answer | Exception]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    options: dict[str, dict[str, object]] = field(default_factory=dict)
    connected: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def connect(self, device: Device, timeout_s: float) -> Iterator["Pi"]:
        assert device.name == "pi-1"
        self.connected.append(timeout_s)
        self._say("connect", {}, {})
        yield self

    def renew(self, renewal: Renewal | None, *, timeout_s: float) -> str:
        return ""

    def start(self, *, timeout_s: float, renewal: Renewal | None) -> Answer:
        return self._say("start", self._seen(), {"timeout_s": timeout_s})

    def send(self, file: Path, version: str, *, timeout_s: float) -> Answer:
        return self._say(f"send {file.name}", {}, {"version": version, "timeout_s": timeout_s})

    def ask(self, command: str, **options: object) -> Answer:
        name = command
        if command == "prove" and options["current"]:
            name = "prove OLD" if options["version"] == OLD else "prove --current"
        elif command == "switch":
            return self._say(name, {"version": NEW, "token": "secret"}, options, running=NEW, pending=NEW)
        elif command == "confirm":
            return self._say(name, {}, options, running=NEW, pending=None)
        elif command == "revert":
            return self._say(name, {"current": OLD}, options, running=OLD, pending=None)
        good = {"inspect": self._seen(), "offer": {"missing": [MODEL, GOLDEN]}, "prove": GOOD}
        return self._say(name, good.get(command, {}), options)

    def _seen(self) -> Answer:
        pending = self.pending and {"version": self.pending, "previous": OLD}
        return {"current": self.running, "pending": pending, "health": HEALTHY}

    def _say(self, name: str, good: Answer, options: dict[str, object], **becomes: str | None) -> Answer:
        if name != "connect":
            self.asked.append(name)
        self.options[name] = options
        told = self.answers.get(name, [])
        answer = (told.pop(0) if len(told) > 1 else told[0]) if told else {"ok": True, **good}
        if isinstance(answer, Exception):
            raise answer
        if answer["ok"]:
            for name_, value in becomes.items():
                setattr(self, name_, value)
        return answer


@pytest.fixture
def pi(monkeypatch: pytest.MonkeyPatch) -> Pi:
    pi = Pi()
    monkeypatch.setattr(visit, "connect", pi.connect)
    monkeypatch.setattr(visit, "DeviceProgram", lambda connection: connection)
    monkeypatch.setattr(visit, "_PAUSE_S", 0)
    return pi


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    folder = upload(tmp_path, NEW, **MANIFEST)
    return read_payload(folder, CONFIG.model_copy(update={"max_latency_ms": 10}))


def refused(why: str, kind: str = "refused") -> Answer:
    return {"ok": False, "kind": kind, "error": why}


DELIVERED = ["start", "offer", f"send {MODEL}", f"send {GOLDEN}", "stage"]
SWITCHING = f"is being switched to {NEW}; unconfirmed it returns to {OLD} by itself within 11 s"
SWITCHED = [*DELIVERED, "prove", "switch", "prove --current"]


def test_a_device_proves_a_release_switches_proves_it_again_and_is_told_to_keep_it(
    pi: Pi, payload: Payload
) -> None:
    heard: list[DeviceOutcome] = []
    outcome = visit.visit(DEVICE, payload, CONFIG, heard.append)
    assert pi.asked == [*SWITCHED, "confirm", "inspect"] and pi.connected == [3]
    assert (outcome.outcome, outcome.reason) == ("updated", "proven at p95 6.00 ms, at most 10 ms")
    assert (outcome.previous_release, outcome.running_release) == (OLD, NEW)
    assert outcome.benchmark and outcome.benchmark.p95_ms == 6 and outcome.seen_at
    (before,) = heard
    assert (before.running_release, before.reason) == (OLD, SWITCHING)
    assert before.seen_at and before.seen_at < outcome.seen_at


def test_a_device_is_told_how_to_measure_and_how_long_each_step_may_take(pi: Pi, payload: Payload) -> None:
    visit.visit(DEVICE, payload, CONFIG)
    asked = pi.options["prove --current"]
    assert (asked["runs"], asked["warmup"], asked["threads"], asked["min_s"]) == (12, 2, 3, 0)
    assert asked["timeout_s"] == 7 and pi.options["confirm"]["token"] == "secret"
    assert pi.options["switch"]["confirm_within_s"] == 11
    assert pi.options["offer"]["manifest"] == payload.manifest


def test_a_signature_and_an_order_to_go_back_travel_with_the_manifest(pi: Pi, payload: Payload) -> None:
    order = RollbackOrder(content="order", signature="its signature")
    fields = {**vars(payload), "signature": "signature", "order": order}
    visit.visit(DEVICE, Payload(**fields), CONFIG)
    sent = pi.options["offer"]
    assert (sent["signature"], sent["order"], sent["order_signature"]) == (
        "signature", "order", "its signature",
    )  # fmt: skip


def test_a_device_that_runs_the_release_proves_it_as_the_application_opens_it(
    pi: Pi, payload: Payload
) -> None:
    pi.running = NEW
    pi.answers["start"] = [{"ok": True, "current": NEW, "current_manifest": payload.manifest_sha256}]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert pi.asked == ["start", "prove --current", "inspect"]
    assert (outcome.outcome, outcome.reason) == ("updated", "ran this release already")


@pytest.mark.parametrize(
    ("told", "measure", "asked"),
    [
        ({"proven_since": 1_767_322_800.0}, False, []),
        ({"proven_since": 1_767_322_800.0}, True, ["prove --current", "inspect"]),
        ({"proven_since": None}, False, ["prove --current", "inspect"]),
        ({"proven_since": 1.0, "current_manifest": "0"}, False,
         [*DELIVERED[1:], "prove --current", "inspect"]),
    ],
)  # fmt: skip
def test_what_a_device_has_proven_is_believed_where_nothing_is_measured(
    pi: Pi, payload: Payload, told: dict[str, object], measure: bool, asked: list[str]
) -> None:
    pi.running = NEW
    seen = {"ok": True, "current": NEW, "current_manifest": payload.manifest_sha256, **told}
    pi.answers["start"] = [seen]
    outcome = visit.visit(DEVICE, payload, CONFIG.model_copy(update={"measure": measure}))
    assert pi.asked == ["start", *asked]
    assert (outcome.outcome, outcome.running_release) == ("updated", NEW)
    since = "" if asked else "; proven since 2026-01-02"
    assert outcome.reason == f"ran this release already{since}"


def test_a_release_that_rotted_where_it_runs_is_sent_again_before_the_device_is_blamed(
    pi: Pi, payload: Payload
) -> None:
    pi.running = NEW
    pi.answers["start"] = [{"ok": True, "current": NEW, "current_manifest": payload.manifest_sha256}]
    pi.answers["prove --current"] = [refused("files differ", "faulty"), {**GOOD}]
    assert visit.visit(DEVICE, payload, CONFIG).outcome == "updated"
    assert pi.asked == ["start", "prove --current", *DELIVERED[1:], "prove --current", "inspect"]
    pi.answers["prove --current"] = [refused("outputs differ")]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.running_release) == ("faulty", NEW)
    assert outcome.reason == "ran this release already, and no longer proves it: outputs differ"


@pytest.mark.parametrize(
    ("change", "outcome", "reason"),
    [
        ({"pending": {"version": OLD, "previous": None}}, "inconclusive",
         f"another rollout waits to confirm {OLD}"),
        ({"health": {"temperature_c": 84.0}}, "inconclusive",
         "too hot: 84 °C, measured only up to 80 °C"),
        ({"health": {**HEALTHY, "throttled": 4}}, "inconclusive", "throttled: throttled"),
        ({"health": {"temperature_c": float("nan")}}, "faulty",
         "its answer can't be used: health.temperature_c: Input should be a finite number"),
        ({"current": "../../etc"}, "faulty",
         r"its answer can't be used: current: String should match pattern '^\d{8}-\d{6}-[0-9a-f]{8}$'"),
        ({"current": 7}, "faulty", "its answer can't be used: current: Input should be a valid string"),
    ],
)  # fmt: skip
def test_a_device_that_can_not_be_judged_is_left_alone(
    pi: Pi, payload: Payload, change: Answer, outcome: str, reason: str
) -> None:
    pi.answers["start"] = [{"ok": True, "current": OLD, "health": HEALTHY, **change}]
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert pi.asked == ["start"]
    assert (seen.outcome, seen.reason) == (outcome, reason)
    assert seen.running_release == (None if outcome == "faulty" else OLD)


def test_a_device_that_should_take_signed_releases_only_and_does_not_is_at_fault(
    pi: Pi, payload: Payload
) -> None:
    signed = DEVICE.model_copy(update={"signed": True})
    outcome = visit.visit(signed, payload, CONFIG)
    assert outcome.outcome == "faulty" and "allowed_signers back" in outcome.reason
    pi.answers["start"] = [{"ok": True, "current": OLD, "signed_only": True}]
    assert visit.visit(signed, payload, CONFIG).outcome == "updated"


@pytest.mark.parametrize("step", [*DELIVERED])
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("refused", "failed"), ("faulty", "faulty"), ("error", "faulty"), ("busy", "inconclusive")],
)
def test_what_a_device_declines_before_it_proves_ends_the_visit(
    pi: Pi, payload: Payload, step: str, kind: str, outcome: str
) -> None:
    pi.answers[step] = [refused("not \x1b[31mtoday", kind)]
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert pi.asked == DELIVERED[: DELIVERED.index(step) + 1]
    assert (seen.outcome, seen.reason) == (outcome, "not today")
    assert seen.running_release == (None if step == "start" else OLD)


def test_a_device_that_asks_for_what_is_no_file_of_the_release_gets_nothing(pi: Pi, payload: Payload) -> None:
    pi.answers["offer"] = [{"ok": True, "missing": ["../../client_key"]}]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert outcome.outcome == "faulty" and "no file of the release" in outcome.reason
    assert pi.asked == ["start", "offer"]


@pytest.mark.parametrize(
    ("figures", "outcome", "reason"),
    [
        ({"p95_ms": 10.0}, "updated", "proven at p95 10.00 ms, at most 10 ms"),
        ({"p95_ms": 10.1}, "failed", "p95 10.10 ms, expected at most 10 ms"),
        ({"p95_ms": 10.1, "cpu_share": 0.79}, "inconclusive",
         "too busy to measure: p95 10.10 ms, expected at most 10 ms, with 79% of a core"),
        ({"cpu_share": 0.1}, "updated", "proven at p95 6.00 ms, at most 10 ms"),
        ({"health_after": {"throttled": 1}}, "inconclusive", "throttled: under-voltage"),
        ({"p95_ms": float("nan")}, "faulty",
         "its answer can't be used: p95_ms: Input should be a finite number"),
        ({"fps": "fast"}, "faulty",
         "its answer can't be used: fps: Input should be a valid number, unable to parse string "
         "as a number"),
    ],
)  # fmt: skip
def test_the_slowest_of_twenty_frames_decides_on_a_device_that_is_fit(
    pi: Pi, payload: Payload, figures: Answer, outcome: str, reason: str
) -> None:
    pi.answers["prove"] = pi.answers["prove --current"] = [{**GOOD, **figures}]
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert (seen.outcome, seen.reason) == (outcome, reason)
    assert ("switch" in pi.asked) is (outcome == "updated")


@pytest.mark.parametrize("answer", [refused("outputs differ"), {**GOOD, "p95_ms": 99}])
def test_what_fails_once_is_tried_again_before_it_counts(pi: Pi, payload: Payload, answer: Answer) -> None:
    for step in ("prove", "prove --current"):
        pi.asked.clear()
        pi.running, pi.answers = OLD, {step: [answer, GOOD]}
        assert visit.visit(DEVICE, payload, CONFIG).outcome == "updated"
        assert pi.asked.count(step) == 2


def test_a_release_that_hangs_is_not_tried_again_and_the_release_before_is(pi: Pi, payload: Payload) -> None:
    pi.answers["prove"] = [refused("hangs", "hung")]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert pi.asked == [*DELIVERED, "prove", "prove OLD"]
    assert (outcome.outcome, outcome.reason) == ("failed", "hangs")


@pytest.mark.parametrize(
    ("before", "outcome", "said"),
    [
        (GOOD, "failed", "crashes"),
        (
            refused("crashes, too"),
            "faulty",
            f"crashes; so does {OLD}, which it has run until now: crashes, too",
        ),
        (refused("no runtime", "faulty"), "faulty", "no runtime"),
        (refused("measured by another", "busy"), "inconclusive", "measured by another"),
    ],
)
def test_a_device_on_which_the_release_before_fails_as_well_is_at_fault_itself(
    pi: Pi, payload: Payload, before: Answer, outcome: str, said: str
) -> None:
    pi.answers |= {"prove": [refused("crashes")], "prove OLD": [before]}
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert seen.outcome == outcome and said in seen.reason
    pi.answers = {"prove --current": [refused("crashes")], "prove OLD": [before]}
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert seen.outcome == outcome and seen.reason.endswith(f"returned to {OLD}")
    assert pi.asked[-4:] == ["prove --current", "revert", "inspect", "prove OLD"]


@pytest.mark.parametrize(
    ("step", "answer", "outcome", "reason"),
    [
        ("prove --current", {**GOOD, "health_after": {"temperature_c": 90}}, "inconclusive",
         "too hot: 90 °C, measured only up to 80 °C"),
        ("prove --current", {**GOOD, "p95_ms": 11}, "failed", "p95 11.00 ms, expected at most 10 ms"),
        ("prove --current", {"ok": True}, "faulty", "its answer can't be used: runs: Field required"),
        ("confirm", refused("too late", "busy"), "inconclusive", "too late"),
    ],
)  # fmt: skip
def test_what_a_device_does_not_prove_again_after_the_switch_takes_it_back(
    pi: Pi, payload: Payload, step: str, answer: Answer, outcome: str, reason: str
) -> None:
    pi.answers[step] = [answer]
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert pi.options["revert"] == {"version": NEW, "why": reason, "timeout_s": 7}
    assert (seen.outcome, seen.reason) == (outcome, f"{reason}; returned to {OLD}")
    assert seen.running_release == OLD


def test_a_device_that_can_not_go_back_is_told_of_as_it_is(pi: Pi, payload: Payload) -> None:
    for answer, outcome in ((refused("no"), "failed"), (refused("no", "faulty"), "faulty")):
        pi.running, pi.pending = OLD, None
        pi.answers |= {"prove --current": [answer], "revert": [refused("read-only", "faulty")]}
        seen = visit.visit(DEVICE, payload, CONFIG)
        assert (seen.outcome, seen.reason) == (outcome, "not returned: read-only; was to, because: no")
        assert seen.running_release == NEW


def test_a_device_that_can_not_be_reached_is_unreachable(pi: Pi, payload: Payload) -> None:
    pi.answers["connect"] = [LOST]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.reason) == ("unreachable", "connection lost")
    assert (outcome.running_release, outcome.seen_at, len(pi.connected)) == (None, None, 1)


@pytest.mark.parametrize(("error", "outcome"), [(LOST, "unreachable"), (ProgramEnded("killed"), "faulty")])
def test_a_connection_lost_before_the_switch_leaves_the_device_as_it_was(
    pi: Pi, payload: Payload, error: Exception, outcome: str
) -> None:
    pi.answers["prove"] = [error]
    seen = visit.visit(DEVICE, payload, CONFIG)
    assert (seen.outcome, seen.running_release, len(pi.connected)) == (outcome, OLD, 1)


@pytest.mark.parametrize("step", ["switch", "prove --current"])
def test_a_connection_lost_after_the_switch_is_made_again_to_go_back_and_says_nothing_of_the_release(
    pi: Pi, payload: Payload, step: str
) -> None:
    pi.answers[step] = [LOST]
    if step == "switch":  # it switched, and its answer was lost
        pi.answers["start"] = [{"ok": True, "current": OLD}, {"ok": True, "current": NEW}]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert pi.connected == [3, 3] and "revert" in pi.asked
    assert (outcome.outcome, outcome.running_release) == ("unreachable", OLD)
    assert outcome.reason == f"connection lost; returned to {OLD}"


def test_a_lost_answer_to_the_confirmation_is_asked_for_and_not_guessed(pi: Pi, payload: Payload) -> None:
    pi.answers |= {"confirm": [LOST], "start": [{"ok": True, "current": OLD}, {"ok": True, "current": NEW}]}
    pi.answers["inspect"] = [{"ok": True, "current": NEW}]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.running_release) == ("updated", NEW)
    assert "revert" not in pi.asked
    pi.answers = {"confirm": [LOST, {"ok": True}]}
    pi.running, pi.pending = OLD, None
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert outcome.reason == "proven; confirmed after the connection was lost" and pi.running == NEW


def test_what_is_lost_after_a_confirmation_takes_nothing_of_it_back(pi: Pi, payload: Payload) -> None:
    pi.answers["inspect"] = [LOST, {"ok": True, "current": NEW}]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.running_release) == ("updated", NEW)
    assert outcome.reason.endswith("; the connection was lost after its confirmation")
    pi.answers = {"inspect": [LOST], "connect": [{"ok": True}, LOST]}
    pi.running = OLD
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.running_release) == ("updated", NEW)
    assert outcome.reason.endswith("; then it was lost: connection lost") and "returns" not in outcome.reason


def test_a_device_that_was_lost_while_it_confirmed_may_have_heard_it(pi: Pi, payload: Payload) -> None:
    pi.answers |= {"confirm": [LOST], "connect": [{"ok": True}, LOST]}
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.running_release) == ("unreachable", None)
    assert "; unless it has heard that it may stay it returns to " in outcome.reason


def test_a_device_that_stays_away_after_the_switch_returns_by_itself_and_nobody_claims_more(
    pi: Pi, payload: Payload
) -> None:
    pi.answers |= {"prove --current": [LOST], "connect": [{"ok": True}, LOST]}
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.running_release, outcome.seen_at) == ("unreachable", None, None)
    assert len(pi.connected) == 4
    assert outcome.reason == (
        f"connection lost; without our confirmation it returns to {OLD} by itself within 11 s of the switch"
    )


def test_a_surprise_on_one_device_is_its_outcome_and_not_the_releases(pi: Pi, payload: Payload) -> None:
    pi.answers["offer"] = [KeyError("missing")]
    outcome = visit.visit(DEVICE, payload, CONFIG)
    assert (outcome.outcome, outcome.reason) == ("faulty", "unexpected KeyError: 'missing'")
    assert outcome.running_release == OLD


def test_a_visit_that_takes_too_long_ends_before_the_switch(
    pi: Pi, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(visit.time, "monotonic", lambda: float(next(clock)))
    outcome = visit.visit(DEVICE, payload, CONFIG.model_copy(update={"visit_timeout_s": 100.0}))
    assert (outcome.outcome, outcome.reason) == ("faulty", "takes longer than 100 s")
    assert "switch" not in pi.asked


# ---------------------------------------------------------------- measured for longer, and taken back


def updated() -> DeviceOutcome:
    return DeviceOutcome(
        device="pi-1", outcome="updated", reason="proven", previous_release=OLD, running_release=NEW
    )


def test_an_updated_device_is_measured_for_seconds_through_the_link(pi: Pi, payload: Payload) -> None:
    pi.running = NEW
    outcome = visit.measure_updated(DEVICE, payload, CONFIG, updated())
    assert pi.asked == ["start", "prove --current", "inspect"]
    asked = pi.options["prove --current"]
    assert (asked["min_s"], asked["warmup_s"]) == (2.0, 0.5)
    assert (outcome.outcome, outcome.reason, outcome.previous_release) == ("updated", "proven", OLD)
    assert outcome.benchmark and outcome.running_release == NEW


def test_an_updated_device_that_is_too_slow_for_long_goes_back(pi: Pi, payload: Payload) -> None:
    pi.running, pi.answers["prove --current"] = NEW, [{**GOOD, "p95_ms": 99}]
    outcome = visit.measure_updated(DEVICE, payload, CONFIG, updated())
    assert pi.asked == ["start", "prove --current", "prove --current", "revert", "inspect", "prove OLD"]
    assert (outcome.outcome, outcome.running_release) == ("failed", OLD)


@pytest.mark.parametrize(
    "answer", [LOST, refused("busy", "busy"), {**GOOD, "health_after": {"throttled": 1}}]
)
def test_an_updated_device_that_can_not_be_measured_stays_updated_and_says_so(
    pi: Pi, payload: Payload, answer: Answer | Exception
) -> None:
    pi.running, pi.answers["prove --current"] = NEW, [answer]
    outcome = visit.measure_updated(DEVICE, payload, CONFIG, updated())
    assert outcome.outcome == "updated" and outcome.reason.startswith("proven; not measured: ")
    assert outcome.running_release == NEW


def test_a_device_that_was_asked_to_return_tells_what_it_runs_then(pi: Pi) -> None:
    pi.running = NEW
    outcome = visit.return_device(DEVICE, NEW, CONFIG, "stopped in wave 2")
    assert (outcome.outcome, outcome.reason) == ("failed", "returned: stopped in wave 2")
    assert (outcome.running_release, pi.asked) == (OLD, ["start", "revert", "inspect"])
    pi.answers["connect"] = [LOST]
    away = visit.return_device(DEVICE, NEW, CONFIG, "stopped")
    assert (away.outcome, away.seen_at) == ("unreachable", None)


def test_a_lost_answer_to_a_take_back_is_asked_for(pi: Pi) -> None:
    pi.running = NEW
    pi.answers |= {
        "revert": [LOST, {"ok": True}],
        "start": [{"ok": True, "current": NEW}, {"ok": True, "current": OLD}],
    }
    outcome = visit.return_device(DEVICE, NEW, CONFIG, "stopped")
    assert (outcome.outcome, outcome.running_release) == ("failed", OLD)


# ---------------------------------------------------------------- what goes to a device


def test_a_release_carries_its_limit_unless_the_configuration_has_another(tmp_path: Path) -> None:
    folder = upload(tmp_path, NEW, **MANIFEST)
    payload = read_payload(folder, RolloutConfig())
    assert payload == Payload(NEW, folder, (folder / "manifest.json").read_text(), None, 150)
    assert read_payload(folder, RolloutConfig(max_latency_ms=30)).max_latency_ms == 30


def test_a_signature_goes_with_its_manifest(tmp_path: Path) -> None:
    folder = upload(tmp_path, NEW, **MANIFEST)
    (folder / "manifest.sig").write_text("signature")
    assert read_payload(folder, CONFIG).signature == "signature"


def test_a_release_that_differs_from_its_manifest_goes_nowhere(tmp_path: Path) -> None:
    folder = upload(tmp_path, NEW, **MANIFEST)
    (folder / "golden.npz").write_bytes(b"rot")
    (folder / "model_int8.tflite").unlink()
    with pytest.raises(InputError, match=r"model_int8\.tflite, golden\.npz differ"):
        read_payload(folder, CONFIG)
