"""Each visit and each benchmark as a Prefect task, so that a fleet is seen device by device.

Runs are named `visit DEVICE`, `benchmark DEVICE` and `return DEVICE`, and end in a state named by the
outcome. From `LARGE` devices on a task is a lane instead: it serves one device after the other, as many at a
time as devices are served at once, so that the UI stays usable.
"""

from collections.abc import Iterator, Sequence
from threading import Lock

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed

from deployments.fleet import Device, Fleet
from tasks.config.rollout import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, OutcomeKind
from tasks.rollout.payload import Payload
from tasks.rollout.visit import Hear, measure_updated, return_device, visit
from tasks.rollout.waves import Bring, Serve, TakeBack, Work, bring_device, in_threads
from tasks.side_by_side import say_if_told_to_end

LARGE = 200
"""Devices from which on a task is a lane of them."""
_STATE_NAMES: dict[OutcomeKind, str] = {
    "updated": "Updated",
    "failed": "Failed",
    "faulty": "Faulty",
    "unreachable": "Unreachable",
    "inconclusive": "Inconclusive",
}


@task(name="visit", task_run_name="visit {device.name}", cache_policy=NO_CACHE, persist_result=False)
def visit_device(device: Device, payload: Payload, config: RolloutConfig, hear: Hear) -> State:
    """Bring one device to the release (see `visit`)."""
    return _state(visit(device, payload, config, hear))


@task(name="benchmark", task_run_name="benchmark {device.name}", cache_policy=NO_CACHE, persist_result=False)
def benchmark_device(
    device: Device, payload: Payload, config: RolloutConfig, outcome: DeviceOutcome
) -> State:
    """Measure what one updated device runs now (see `measure_updated`)."""
    return _state(measure_updated(device, payload, config, outcome))


@task(name="return", task_run_name="return {device.name}", cache_policy=NO_CACHE, persist_result=False)
def take_device_back(device: Device, version: str, config: RolloutConfig, why: str) -> State:
    """Have one device leave a release (see `return_device`)."""
    outcome = return_device(device, version, config, why)
    if outcome.outcome == "failed":  # what its visit ends as; the way back has come to a good end
        return Completed(name="Returned", message=outcome.reason, data=outcome)
    return _state(outcome)


@task(
    name="lane",
    task_run_name="{label}: lane {number} of {lanes}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def serve_lane(label: str, number: int, lanes: int, queue: "Queue", work: Work) -> int:
    """Serve devices from the queue until it is empty; returns how many."""
    served = 0
    for place, device in queue:
        queue.found[place] = work(device)
        served += 1
    return served


class Queue:
    """Devices that several lanes take from, and what became of each."""

    def __init__(self, devices: Sequence[Device]):
        self.found: list[DeviceOutcome | None] = [None] * len(devices)
        self._waiting, self._lock = iter(enumerate(devices)), Lock()

    def __iter__(self) -> Iterator[tuple[int, Device]]:
        return self

    def __next__(self) -> tuple[int, Device]:
        with self._lock:
            return next(self._waiting)

    def close(self) -> None:
        """No device is taken from now on."""
        with self._lock:
            self._waiting = iter(())


def bring_with(fleet: Fleet, payload: Payload, config: RolloutConfig, hear: Hear) -> Bring:
    """How a device of this fleet is brought to the release: by tasks of its own, or as a part of a lane."""

    def plainly(device: Device) -> DeviceOutcome:
        return bring_device(device, payload, config, hear)

    def by_tasks(device: Device) -> DeviceOutcome:
        outcome = _outcome(visit_device(device, payload, config, hear, return_state=True))
        if config.measure and outcome.outcome == "updated":
            outcome = _outcome(benchmark_device(device, payload, config, outcome, return_state=True))
        return outcome

    return plainly if len(fleet) >= LARGE else by_tasks


def take_back_with(payload: Payload, config: RolloutConfig) -> TakeBack:
    def take_back(device: Device, why: str) -> DeviceOutcome:
        return _outcome(take_device_back(device, payload.version, config, why, return_state=True))

    return take_back


def serve_with(fleet: Fleet) -> Serve:
    """How a wave of this fleet is served."""
    return _in_lanes if len(fleet) >= LARGE else in_threads


def _in_lanes(
    label: str, devices: Sequence[Device], work: Work, max_parallel: int
) -> list[DeviceOutcome | None]:
    queue, lanes = Queue(devices), min(max_parallel, len(devices))
    running: list[PrefectFuture[int]] = []
    try:
        for number in range(1, lanes + 1):
            running.append(serve_lane.submit(label, number, lanes, queue, work))  # pyright: ignore[reportUnknownMemberType]
        for lane in running:
            lane.result()
    except BaseException as error:
        queue.close()
        say_if_told_to_end(error)
        for lane in running:
            lane.wait()
        raise
    return queue.found


def _state(outcome: DeviceOutcome) -> State:
    """A device's outcome as its task run ends with it."""
    end = Completed if outcome.outcome in ("updated", "inconclusive") else Failed
    return end(name=_STATE_NAMES[outcome.outcome], message=outcome.reason, data=outcome)


def _outcome(state: State) -> DeviceOutcome:
    found = state.result(raise_on_failure=False)
    if not isinstance(found, DeviceOutcome):
        raise TypeError(f"a visit ended as {state.name} without an outcome: {state.message}")
    return found
