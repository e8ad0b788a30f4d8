"""One device and one release: prove it beside the running one, switch, prove it again, confirm.

Nothing is switched before the release has shown its golden outputs and its latency on this very device,
and nothing stays switched that doesn't show them again through `current`. Whatever happens to us in
between, the program on the device goes back by itself (`deployments/pi/device.py`).

What fails is tried again before it counts, and then the release before is tried in the same way: a device on
which that fails, too, is at fault itself, and says nothing about the release.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, FiniteFloat, ValidationError

from deployments.fleet import Device
from deployments.program import Answer, DeviceProgram, ProgramEnded
from deployments.ssh import connect
from storage.errors import DeviceError
from storage.manifest import Manifest, Version
from tasks.benchmark import Health, LatencyFigures, Plain, measure, plain
from tasks.config.rollout import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, OutcomeKind
from tasks.rollout.payload import Payload

_RECONNECTS, _PAUSE_S = 3, 1.0
_DAY_S = 86_400.0
_Model = TypeVar("_Model", bound=BaseModel)


class Pending(BaseModel, frozen=True):
    """A switch that waits for its confirmation."""

    version: Version
    previous: Version | None


class LastReturn(BaseModel, frozen=True):
    """What a device last went back from, and why."""

    why: Plain


class Seen(BaseModel, frozen=True):
    """What a device tells of itself, checked: the answer of `inspect`."""

    current: Version | None
    current_manifest: Plain | None = None
    pending: Pending | None = None
    last_return: LastReturn | None = None
    repaired: Plain | None = None
    signed_only: bool = False
    signers: int = 0
    clock: FiniteFloat | None = None
    sequence: int = 0
    proven_since: FiniteFloat | None = None
    health: Health = Health()


class _Switched(BaseModel, frozen=True):
    """The answer of `switch`."""

    version: Version
    token: str


class _Needed(BaseModel, frozen=True):
    """The answer of `offer`."""

    missing: tuple[str, ...]


class _Stop(Exception):
    """Ends a visit early; never leaves this module."""

    def __init__(self, outcome: OutcomeKind, reason: str, *, final: bool = False):
        super().__init__(reason)
        self.outcome: OutcomeKind = outcome
        self.reason = reason
        self.final = final
        """Trying again would cost much and change nothing."""


Hear = Callable[[DeviceOutcome], None]


def visit(
    device: Device, payload: Payload, config: RolloutConfig, on_switching: Hear = lambda outcome: None
) -> DeviceOutcome:
    """Bring one device to the release, or leave it as it was; every end is an outcome, none an exception.

    `on_switching` hears that the device is about to be switched: what it runs is unsure from then on.
    """
    return _Visit(device, payload, config, on_switching).bring()


def measure_updated(
    device: Device, payload: Payload, config: RolloutConfig, outcome: DeviceOutcome
) -> DeviceOutcome:
    """Measure for seconds what an updated device runs now; one that is too slow goes back."""
    return _Visit(device, payload, config).measure(outcome)


def return_device(device: Device, version: str, config: RolloutConfig, why: str) -> DeviceOutcome:
    """Have a device leave `version` for the release before it, and tell what it runs then.

    Its outcome is failed where it has returned, else that of why it hasn't.
    """
    payload = Payload(version, Path(), "", None, 0.0)
    return _Visit(device, payload, config).take_back(why)


class _Visit:
    """How far a visit has come, for its outcome whatever ends it."""

    def __init__(
        self,
        device: Device,
        payload: Payload,
        config: RolloutConfig,
        on_switching: Hear = lambda outcome: None,
    ):
        self._device, self._payload, self._config = device, payload, config
        self._on_switching = on_switching
        self._started = time.monotonic()
        self._before: str | None = None
        self._seen: Seen | None = None
        self._seen_at: datetime | None = None
        self._figures: LatencyFigures | None = None
        self._switching = self._proven = self._untouched = False
        self._token = self._confirmed = ""

    # ------------------------------------------------------------ the three things that a visit may be for

    def bring(self) -> DeviceOutcome:
        kind, reason = self._ended(self._update_both)
        if kind == "updated" and self._known.current != self._payload.version:
            kind, reason = "faulty", f"{reason}; then no longer runs it: {self._why_returned()}"
        return self._outcome(kind, reason)

    def measure(self, outcome: DeviceOutcome) -> DeviceOutcome:
        def step(program: DeviceProgram) -> str:
            if self._known.current != self._payload.version:
                raise _Stop("failed", f"no longer runs it: {self._why_returned()}")
            self._judge_running(program)
            return outcome.reason

        self._before = outcome.previous_release
        kind, reason = self._ended(step)
        known = {"previous_release": outcome.previous_release, "seconds": outcome.seconds + self._seconds}
        if kind != "failed":  # it has proven the release: that it couldn't be measured now changes nothing
            kind, reason = (
                "updated",
                reason if kind == "updated" else f"{outcome.reason}; not measured: {reason}",
            )
        found = self._outcome(kind, reason).model_copy(update=known)
        unseen = {"running_release": outcome.running_release, "seen_at": outcome.seen_at}
        update = {} if self._seen else unseen
        return found.model_copy(update={**update, "benchmark": found.benchmark or outcome.benchmark})

    def take_back(self, why: str) -> DeviceOutcome:
        def step(program: DeviceProgram) -> str:
            self._revert(program, why)
            raise _Stop("failed", f"returned: {why}")

        self._switching = True
        return self._outcome(*self._ended(step, why))

    # ------------------------------------------------------------ one connection, and what ends it

    def _ended(self, step: Callable[[DeviceProgram], str], why: str = "") -> tuple[OutcomeKind, str]:
        try:
            return "updated", self._connected(step)
        except _Stop as stop:
            return stop.outcome, stop.reason
        except DeviceError as error:
            return self._after_losing(error, why)
        except Exception as error:  # one device's surprise must not cost us what we know of the others
            return "faulty", f"unexpected {type(error).__name__}: {error}"

    def _connected(self, step: Callable[[DeviceProgram], str]) -> str:
        with connect(self._device, self._config.connect_timeout_s) as connection:
            program = DeviceProgram(connection)
            timeout_s, renewal = self._config.command_timeout_s, self._payload.renewal
            self._look(program.start(timeout_s=timeout_s, renewal=renewal))
            said = step(program)
            if not self._untouched:
                self._look(self._ask(program, "inspect"))
            return said

    def _after_losing(self, error: DeviceError, why: str) -> tuple[OutcomeKind, str]:
        """Before the switch nothing has changed; after it we ask what holds now, and mend it."""
        kind: OutcomeKind = "faulty" if isinstance(error, ProgramEnded) else "unreachable"
        if not self._switching or not self._seen:
            return kind, str(error)
        for _ in range(_RECONNECTS):
            time.sleep(_PAUSE_S)
            try:
                return "updated", self._connected(partial(self._mend, error=error, why=why))
            except _Stop as stop:
                return stop.outcome, stop.reason
            except DeviceError as again:
                error = again
        if self._confirmed:
            return "updated", f"{self._confirmed}; then it was lost: {error}"
        self._seen_at = self._seen = None  # what it runs is unsure by now
        heard = "unless it has heard that it may stay" if self._proven else "without our confirmation"
        return "unreachable", (
            f"{error}; {heard} it returns to {self._before or 'no release'} by itself "
            f"within {self._config.confirm_within_s:g} s of the switch"
        )

    def _mend(self, program: DeviceProgram, error: DeviceError, why: str) -> str:
        seen, ours = self._known, self._payload.version
        if self._proven and seen.pending and seen.pending.version == ours:
            self._expect(self._ask(program, "confirm", token=self._token))
            return "proven; confirmed after the connection was lost"
        if self._proven and seen.current == ours and not seen.pending:
            if self._confirmed:
                return f"{self._confirmed}; the connection was lost after its confirmation"
            return "proven; the answer to its confirmation was lost"
        if seen.current == ours:
            self._revert(program, why or "connection lost before it was confirmed")
        kind: OutcomeKind = "failed" if why else "unreachable"
        raise _Stop(kind, f"{error}; returned to {self._known.current or 'no release'}")

    # ------------------------------------------------------------ step by step

    def _update_both(self, program: DeviceProgram) -> str:
        """The release, then the agent: one thing at a time, and what counts first."""
        said = self._update(program)
        renewed = program.renew(self._payload.renewal, timeout_s=self._config.command_timeout_s)
        return f"{said}; {plain(renewed)}" if renewed else said

    def _update(self, program: DeviceProgram) -> str:
        """Bring the device to the release; says how well it runs there."""
        seen = self._known
        self._before = seen.current
        self._refuse_unfit(seen)
        self._bring_signers(program)
        if seen.current == self._payload.version:
            return self._keep(program)
        self._deliver(program)
        self._judge_staged(program)
        return self._switch(program)

    def _refuse_unfit(self, seen: Seen) -> None:
        if seen.pending:
            raise _Stop("inconclusive", f"another rollout waits to confirm {seen.pending.version}")
        if self._device.signed and not seen.signed_only:
            raise _Stop("faulty", "takes unsigned releases, and the inventory says signed = true: put "
                        f"{self._device.root}/allowed_signers back")  # fmt: skip
        if obstacle := seen.health.unfit(self._config.benchmark):
            raise _Stop("inconclusive", obstacle)

    def _bring_signers(self, program: DeviceProgram) -> None:
        """Have a device that takes signed releases follow to the last list of those who sign them."""
        held, said = self._known.signers, ""
        newer = [listed for listed in self._payload.signers if listed.count > held]
        if not self._known.signed_only or not newer:
            return
        for listed in newer:  # one that a device can't follow may be followed by one that it can
            answer = self._ask(program, "signers", listed=listed.text, signature=listed.signature)
            held, said = (listed.count, "") if answer["ok"] else (held, plain(str(answer["error"])))
        if held < newer[-1].count:
            raise _Stop("faulty", f"doesn't follow to list {newer[-1].count} of signers: {said}; put the "
                        f"keys of today into {self._device.root}/allowed_signers by hand")  # fmt: skip

    def _keep(self, program: DeviceProgram) -> str:
        """Prove what runs already, mended first where its files or its manifest have changed.

        Where nothing is to be measured a device's word will do: it has hashed the files, and the release was
        proven there with the Python and the runtime of today.
        """
        ran, since = "ran this release already", self._known.proven_since
        ours = self._known.current_manifest == self._payload.manifest_sha256
        if ours and since is not None and not self._config.measure:
            self._untouched = True
            return f"{ran}; proven since {datetime.fromtimestamp(since, UTC):%Y-%m-%d}"
        if not ours:
            self._deliver(program)
        try:
            self._prove(program, current=True)
        except _Stop as stop:
            if stop.outcome not in ("failed", "faulty"):
                raise
            self._deliver(program)
            self._prove_again(program)
        return ran

    def _prove_again(self, program: DeviceProgram) -> None:
        try:
            self._prove_once(program, current=True)
        except _Stop as stop:  # it was proven here once: what has changed is the device
            kind = "faulty" if stop.outcome == "failed" else stop.outcome
            raise _Stop(kind, f"ran this release already, and no longer proves it: {stop.reason}") from stop

    def _deliver(self, program: DeviceProgram) -> None:
        """Send what the device lacks, and have it prove and stage the whole."""
        payload, order = self._payload, self._payload.order
        answer = self._ask(
            program, "offer", version=payload.version, manifest=payload.manifest, signature=payload.signature,
            order=order.content if order else None, order_signature=order.signature if order else None,
        )  # fmt: skip
        manifest = Manifest.parse(payload.manifest.encode(), str(payload.directory), payload.version)
        for name in self._checked(_Needed, answer).missing:
            if name not in manifest.files:
                raise _Stop("faulty", f"asks for {plain(name)!r}, which is no file of the release")
            self._expect(program.send(payload.directory / name, payload.version, timeout_s=self._time_left()))
        self._expect(self._ask(program, "stage", version=payload.version))

    def _judge_staged(self, program: DeviceProgram) -> None:
        try:
            self._prove(program, current=False)
        except _Stop as stop:
            raise self._beside_the_release_before(program, stop) from stop

    def _beside_the_release_before(self, program: DeviceProgram, stop: _Stop) -> _Stop:
        """Whether it is the device: then the release that it has run until now fails there as well."""
        before = self._known.current
        if stop.outcome != "failed" or before in (None, self._payload.version):
            return stop
        try:
            self._prove_once(program, current=True, version=before)
        except _Stop as control:
            kind: OutcomeKind = "inconclusive" if control.outcome == "inconclusive" else "faulty"
            return _Stop(
                kind, f"{stop.reason}; so does {before}, which it has run until now: {control.reason}"
            )
        return stop

    def _prove(self, program: DeviceProgram, *, current: bool) -> LatencyFigures:
        """Twice, if need be: a flipped bit or a busy second must not decide for a whole fleet."""
        try:
            return self._prove_once(program, current=current)
        except _Stop as stop:
            if stop.final or stop.outcome == "faulty":
                raise
        return self._prove_once(program, current=current)

    def _prove_once(
        self, program: DeviceProgram, *, current: bool, version: str = "", quick: bool = True
    ) -> LatencyFigures:
        """Golden outputs, then latency; of the staged release, or through the link like the application."""
        version = version or self._payload.version
        answer = measure(program, version, self._config.benchmark, current=current, quick=quick,
                         timeout_s=self._time_left())  # fmt: skip
        figures = self._checked(LatencyFigures, answer)
        if version == self._payload.version:
            self._figures = figures
        self._judge(figures)
        return figures

    def _judge(self, figures: LatencyFigures) -> None:
        if obstacle := figures.unfit(self._config.benchmark):
            raise _Stop("inconclusive", obstacle)
        limit = self._payload.max_latency_ms
        if figures.p95_ms > limit:
            slow = f"p95 {figures.p95_ms:.2f} ms, expected at most {limit:g} ms"
            if figures.too_busy(self._config.benchmark):
                raise _Stop(
                    "inconclusive", f"too busy to measure: {slow}, with {figures.cpu_share:.0%} of a core"
                )
            raise _Stop("failed", slow)

    def _switch(self, program: DeviceProgram) -> str:
        """Switch on probation, prove again, confirm; or go back and say why."""
        version, limit = self._payload.version, self._payload.max_latency_ms
        self._on_switching(self._outcome("inconclusive", self._switching_words))
        self._switching = True
        answer = self._ask(program, "switch", version=version, confirm_within_s=self._config.confirm_within_s)
        self._token = self._checked(_Switched, answer).token
        self._note(version)
        try:
            figures = self._prove(program, current=True)
            self._proven = True
            self._expect(self._ask(program, "confirm", token=self._token))
        except _Stop as stop:
            self._proven = False
            raise self._returned(program, stop) from stop
        self._confirmed = f"proven at p95 {figures.p95_ms:.2f} ms, at most {limit:g} ms"
        return self._confirmed

    @property
    def _switching_words(self) -> str:
        """True for whoever reads it after we have died, too."""
        return (
            f"is being switched to {self._payload.version}; unconfirmed it returns to "
            f"{self._before or 'no release'} by itself within {self._config.confirm_within_s:g} s"
        )

    def _judge_running(self, program: DeviceProgram) -> None:
        """Measure for longer; a failure is repeated, and then the device goes back."""
        try:
            self._prove_once(program, current=True, quick=False)
        except _Stop as first:
            if first.outcome != "failed":
                raise
            try:
                self._prove_once(program, current=True, quick=False)
            except _Stop as stop:
                if stop.outcome != "failed":
                    raise
                raise self._returned(program, stop) from stop

    def _returned(self, program: DeviceProgram, stop: _Stop) -> _Stop:
        """Take the device back, and ask the release before whether it was the device."""
        try:
            self._revert(program, stop.reason)
        except _Stop as stays:  # what the release did there counts whether or not the device can go back
            return _Stop("failed" if stop.outcome == "failed" else stays.outcome, stays.reason)
        judged = self._beside_the_release_before(program, stop)
        return _Stop(judged.outcome, f"{judged.reason}; returned to {self._known.current or 'no release'}")

    def _revert(self, program: DeviceProgram, why: str) -> None:
        timeout_s = self._config.command_timeout_s  # whatever the visit has taken: this must be done
        answer = program.ask("revert", version=self._payload.version, why=plain(why), timeout_s=timeout_s)
        self._look(program.ask("inspect", timeout_s=timeout_s))
        if not answer["ok"]:  # its watchdog or its timer goes on trying
            raise _Stop("faulty", f"not returned: {plain(str(answer['error']))}; was to, because: {why}")

    # ------------------------------------------------------------ what a device says

    @property
    def _known(self) -> Seen:
        if self._seen is None:
            raise _Stop("faulty", "has not told what it runs")
        return self._seen

    def _look(self, answer: Answer) -> None:
        self._seen, self._seen_at = self._checked(Seen, answer), datetime.now(UTC)

    def _note(self, current: str) -> None:
        """What a device has just done is as good as what it tells."""
        self._seen, self._seen_at = self._known.model_copy(update={"current": current}), datetime.now(UTC)

    def _ask(self, program: DeviceProgram, command: str, **options: str | float | None) -> Answer:
        return program.ask(command, timeout_s=self._time_left(), content=b"", **options)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _time_left(self) -> float:
        """For the next command; a switched device is seen to the end, which its watchdog bounds."""
        left = self._config.visit_timeout_s - self._seconds
        if left <= 0 and not self._switching:
            raise _Stop("faulty", f"takes longer than {self._config.visit_timeout_s:g} s")
        return (
            self._config.command_timeout_s if self._switching else min(left, self._config.command_timeout_s)
        )

    def _why_returned(self) -> str:
        last = self._known.last_return
        return f"{self._known.current or 'no release'} ({last.why if last else 'somebody switched it'})"

    def _checked(self, model: type[_Model], answer: Answer) -> _Model:
        """What a device says, as what it should be: NaN or another kind of value is its fault."""
        try:
            return model.model_validate(self._expect(answer))
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            what = plain(".".join(map(str, problem["loc"])))
            raise _Stop("faulty", f"its answer can't be used: {what}: {problem['msg']}") from None

    @staticmethod
    def _expect(answer: Answer) -> Answer:
        """The answer itself, unless the device declined."""
        if answer["ok"]:
            return answer
        kinds: dict[str, OutcomeKind] = {"refused": "failed", "hung": "failed", "busy": "inconclusive"}
        kind, said = str(answer["kind"]), plain(str(answer["error"]))
        raise _Stop(kinds.get(kind, "faulty"), said, final=kind == "hung")

    @property
    def _clock_words(self) -> str:
        """A device whose clock is wrong takes what has expired, or refuses what hasn't."""
        if self._seen is None or self._seen.clock is None or self._seen_at is None:
            return ""
        off_days = (self._seen.clock - self._seen_at.timestamp()) / _DAY_S
        where = "ahead of ours" if off_days > 0 else "behind ours"
        return f"; its clock is {abs(off_days):.0f} days {where}" if abs(off_days) > 1 else ""

    def _outcome(self, kind: OutcomeKind, reason: str) -> DeviceOutcome:
        seen = self._seen
        repaired = f"; {seen.repaired}" if seen and seen.repaired else ""
        repaired += self._clock_words
        return DeviceOutcome(
            device=self._device.name, outcome=kind, reason=reason + repaired, previous_release=self._before,
            running_release=seen.current if seen else None, seen_at=self._seen_at, benchmark=self._figures,
            seconds=self._seconds,
        )  # fmt: skip
