"""A rollout beside a script that only copies, hashes and links, over the same sshd devices in one run.

    python -m tests.benchmarks.bench_rollout RELEASES [--devices 20] [--simulated 0]

RELEASES holds at least two releases, as `python -m tests.faults --releases RELEASES` leaves them. The script
is paramiko in as many threads as we serve devices at once; it proves nothing and can't go back.
`--simulated N` sends a rollout through a Prefect flow to N devices that answer at once: the flow's own cost.
"""

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko

from deployments.fleet import Device, Fleet
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import RolloutConfig
from tests.rollouts import roll_out
from tests.ssh_devices import SshDevice, fleet_of, make_device, new_key

_PARALLEL = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("releases", type=Path)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--simulated", type=int, default=0)
    given = parser.parse_args()
    releases = sorted(path for path in given.releases.glob("2*") if path.is_dir())
    with tempfile.TemporaryDirectory() as scratch:
        compare(releases, given.devices, Path(scratch))
    if given.simulated:
        simulate(given.simulated)


def compare(releases: list[Path], count: int, scratch: Path) -> None:
    new_key(scratch / "key")
    devices = [
        make_device(scratch / f"pi-{number}", scratch / "key", f"pi-{number}") for number in range(count)
    ]
    for device in devices:
        device.start()
    try:
        say("script: copy, hash, link", lambda: by_script(devices, releases[0]))
        say("ours, first release, program sent", lambda: ours(devices, releases[0]))
        say("ours, next release", lambda: ours(devices, releases[1]))
        say("ours, release is there already", lambda: ours(devices, releases[1]))
        say(
            "ours, next release, in waves, measured for 2.5 s", lambda: ours(devices, releases[0], waves=True)
        )
    finally:
        for device in devices:
            device.stop()


def say(what: str, work: Callable[[], object]) -> None:
    before, started = time.process_time(), time.monotonic()
    work()
    print(
        f"{what}: {time.monotonic() - started:.1f} s, {time.process_time() - before:.2f} CPU s here",
        flush=True,
    )


def ours(devices: list[SshDevice], release: Path, waves: bool = False) -> None:
    seconds, warmup_s = (2.0, 0.5) if waves else (0.0, 0.0)
    benchmark = BenchmarkConfig(min_cpu_share=0, min_s=seconds, warmup_s=warmup_s)
    waved = RolloutConfig(max_parallel=_PARALLEL, benchmark=benchmark)
    flat = {"canaries": len(devices), "waves": (1.0,), "measure": False}
    config = waved if waves else waved.model_copy(update=flat)
    if waves:  # back to an older one: as if the device had never proven the newer
        for device in devices:
            (device.root / "state.json").unlink()
    fleet = roll_out(release, fleet_of(devices), config)
    if not fleet.complete:
        raise RuntimeError(fleet.sentence)


def by_script(devices: list[SshDevice], release: Path) -> None:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda device: copy_and_link(device.device, release), devices))


def copy_and_link(device: Device, release: Path) -> None:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(device.host, device.port, device.user, key_filename=str(device.key_file),
                   look_for_keys=False, allow_agent=False)  # fmt: skip
    target = f"{device.root}-script"
    with client, client.open_sftp() as sftp:
        client.exec_command(f"mkdir -p {target}")[1].channel.recv_exit_status()
        sums: list[str] = []
        for file in sorted(release.iterdir()):
            sftp.put(str(file), f"{target}/{file.name}")
            sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {target}/{file.name}")
        stdin, stdout, _ = client.exec_command(f"sha256sum -c --quiet && ln -sfn {target} {target}-current")
        stdin.write("\n".join(sums) + "\n")
        stdin.channel.shutdown_write()
        if stdout.channel.recv_exit_status():
            raise RuntimeError(f"{device.name}: hashes differ")


def simulate(count: int) -> None:
    """The flow with devices that answer at once: its own seconds, memory and longest message."""
    from prefect import flow
    from prefect.testing.utilities import prefect_test_harness

    from tasks.rollout import per_device
    from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
    from tasks.rollout.visit import Payload
    from tasks.rollout.waves import in_waves

    payload, config = (
        Payload("new", Path(), "", None, 200.0),
        RolloutConfig(max_parallel=_PARALLEL, measure=False),
    )
    fleet = Fleet.model_construct(devices=tuple(
        Device.model_construct(name=f"pi-{number}", host="h") for number in range(count)
    ))  # fmt: skip

    def bring(device: Device) -> DeviceOutcome:
        return DeviceOutcome(device=device.name, outcome="updated", reason="simulated", running_release="new")

    @flow(name="simulated-rollout")
    def simulated() -> FleetOutcome:
        take_back = per_device.take_back_with(payload, config)
        return in_waves(fleet, payload, config, bring, take_back, serve=per_device.serve_with(fleet))

    with prefect_test_harness(server_startup_timeout=180):
        started = time.monotonic()
        outcome = simulated()
        seconds = time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    said = f"{seconds:.1f} s, {peak_mb:.0f} MB, message of {len(outcome.sentence)} characters"
    print(f"{count} simulated devices: {said}")


if __name__ == "__main__":
    main()
