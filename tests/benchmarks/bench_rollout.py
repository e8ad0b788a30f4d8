"""A rollout beside scripts that only copy, hash and link, over the same sshd devices in one run.

    python -m tests.benchmarks.bench_rollout RELEASES [--devices 20] [--mb 2] [--python PYTHON] [--peers VENV]

RELEASES holds at least three releases, as `python -m tests.faults --releases RELEASES` leaves them; their
models are padded to `--mb`. The scripts are paramiko, in as many threads as we serve devices at once and one
after the other, and Fabric and Ansible where VENV has them; they prove nothing and can't go back. Then one
device behind a relay that counts bytes, and behind one that is 50 ms away each way. `--simulated N` sends a
rollout through a Prefect flow to N devices that answer at once: the flow's own cost.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko

from deployments import program
from deployments.fleet import Device, Fleet
from deployments.program import DeviceProgram
from deployments.ssh import connect
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import RolloutConfig
from tests.benchmarks.relay import Relay
from tests.rollouts import roll_out
from tests.ssh_devices import SshDevice, fleet_of, make_device, new_key

_PARALLEL = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("releases", type=Path)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--mb", type=float, default=2.0, help="of each release's model")
    parser.add_argument("--peers", type=Path, help="virtual environment with fabric and ansible-core")
    parser.add_argument("--python", default=sys.executable, help="the devices'; one with the runtime only")
    parser.add_argument("--simulated", type=int, default=0)
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what outlives a device's session is counted, too
    with tempfile.TemporaryDirectory() as scratch:
        found = sorted(path for path in given.releases.glob("2*") if path.is_dir())
        releases = [padded(path, int(given.mb * 1e6), Path(scratch)) for path in [*found[:3], found[2]]]
        compare(releases, given.devices, Path(scratch), given.python, given.peers)
    if given.simulated:
        simulate(given.simulated)


def padded(release: Path, size: int, folder: Path) -> Path:
    """The release with a model of that many bytes: the runtime passes over what follows its end."""
    manifest = json.loads((release / "manifest.json").read_text())
    model = (release / manifest["model"]).read_bytes()
    model += os.urandom(max(0, size - len(model)))
    digest = hashlib.sha256(model).hexdigest()
    directory = folder / f"{release.name[:-8]}{digest[:8]}"
    shutil.copytree(release, directory)
    (directory / manifest["model"]).write_bytes(model)
    manifest["files"][manifest["model"]] = {"sha256": digest, "bytes": len(model)}
    (directory / "manifest.json").write_text(json.dumps({**manifest, "version": directory.name}))
    return directory


def compare(releases: list[Path], count: int, scratch: Path, python: str, peers: Path | None) -> None:
    new_key(scratch / "key")
    devices = [
        make_device(scratch / f"pi-{number}", scratch / "key", f"pi-{number}") for number in range(count)
    ]
    for device in devices:
        device.device = device.device.model_copy(update={"python": python})
        device.start()
    try:
        say("script in 8 threads", devices, lambda: by_script(devices, releases[0]))
        say("ours, first release, program sent", devices, lambda: ours(devices, releases[0]))
        say("ours, next release", devices, lambda: ours(devices, releases[1]))
        say("ours, release is there already", devices, lambda: ours(devices, releases[1]))
        with proofs_off_the_clock(devices[0], scratch):
            ours(devices, releases[1])  # the program is sent
            time.sleep(1)
            say("ours, next release, but for the proofs", devices, lambda: ours(devices, releases[2]))
        say("ours, in waves, measured for 2.5 s", devices, lambda: ours(devices, releases[0], waves=True))
        say("script, one device after the other", devices, lambda: by_script(devices, releases[0], threads=1))
        if peers:
            say(
                "Fabric, one device after the other",
                devices,
                lambda: by_fabric(devices, releases[0], peers, scratch),
            )
            say(
                "Ansible, 20 forks, pipelining",
                devices,
                lambda: by_ansible(devices, releases[0], peers, scratch),
            )
        one_device(devices[0], releases)
    finally:
        for device in devices:
            device.stop()


@contextlib.contextmanager
def proofs_off_the_clock(device: SshDevice, scratch: Path) -> Generator[None]:
    """Have devices answer at once what this one proves now: neither the runtime nor a model is opened."""
    with connect(device.device) as connection:
        asked = DeviceProgram(connection)
        asked.start()
        proven = asked.ask("prove", version=device.current, current=True)
    source, main = program.SOURCE.read_text(), 'if __name__ == "__main__":'
    answers = f"def run_apart(root, args, caller):\n    return json.loads({json.dumps(proven)!r})\n\n\n{main}"
    (scratch / "device.py").write_text(source.replace(main, answers))
    program.SOURCE, ours_ = scratch / "device.py", program.SOURCE
    DeviceProgram.digest.cache_clear()
    try:
        yield
    finally:
        program.SOURCE = ours_
        DeviceProgram.digest.cache_clear()


def one_device(device: SshDevice, releases: list[Path]) -> None:
    """Bytes of one visit, and its seconds 50 ms away each way."""
    with Relay(device.device.port, 0.0) as relay:
        near = [
            SshDevice(device.device.model_copy(update={"port": relay.port}), device.folder, device.process)
        ]
        say("ours, one device, release is there already", near, lambda: ours(near, releases[0]), relay)
    with Relay(device.device.port, 0.05) as relay:
        far = [
            SshDevice(device.device.model_copy(update={"port": relay.port}), device.folder, device.process)
        ]
        say("50 ms away: script", far, lambda: by_script(far, releases[0]), relay)
        say("50 ms away: ours, next release", far, lambda: ours(far, releases[3]), relay)
        say("50 ms away: ours, release is there already", far, lambda: ours(far, releases[3]), relay)


def say(what: str, devices: list[SshDevice], work: Callable[[], object], relay: Relay | None = None) -> None:
    """Seconds, and processor time: here with that of programs that we wait for, and on the devices."""
    orphans_cpu_s()
    cpu, there, started = cpu_s(), devices_cpu_s(devices), time.monotonic()
    carried = relay.carried if relay else 0
    work()
    seconds, cpu = time.monotonic() - started, cpu_s() - cpu
    time.sleep(1)  # for sessions to end, which are counted then
    there = devices_cpu_s(devices) + orphans_cpu_s() - there
    told = f"{what}: {seconds:.1f} s, {cpu:.2f} CPU s here, {there:.2f} there"
    print(told + (f", {(relay.carried - carried) / 1000:.1f} kB" if relay else ""), flush=True)


def devices_cpu_s(devices: list[SshDevice]) -> float:
    """Seconds of each sshd and of what it has started and waited for."""
    ticks = 0
    for device in devices:
        assert device.process
        stat = Path(f"/proc/{device.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(field) for field in stat[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def orphans_cpu_s() -> float:
    """Seconds of what has ended since the last call and had outlived its sshd session, as programs do."""
    before = cpu_s()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return cpu_s() - before


def cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


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


def by_script(devices: list[SshDevice], release: Path, threads: int = _PARALLEL) -> None:
    with ThreadPoolExecutor(threads) as pool:
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


_FABRIC = """
import hashlib, json, sys
from pathlib import Path
from fabric import Connection
release = Path(sys.argv[2])
for device in json.loads(sys.argv[1]):
    options = {"key_filename": device["key_file"], "look_for_keys": False, "allow_agent": False}
    target = device["root"] + "-fabric"
    with Connection(device["host"], device["user"], device["port"], connect_kwargs=options) as connection:
        connection.run("mkdir -p " + target, hide=True)
        sums = ""
        for file in sorted(release.iterdir()):
            connection.put(str(file), target + "/" + file.name)
            sums += hashlib.sha256(file.read_bytes()).hexdigest() + "  " + target + "/" + file.name + "\\n"
        link = "ln -sfn " + target + " " + target + "-current"
        connection.run("printf '" + sums + "' | sha256sum -c --quiet && " + link)
"""
_PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - copy: {src: "%s/", dest: "{{ root }}-ansible/"}
    - file: {src: "{{ root }}-ansible", dest: "{{ root }}-ansible-current", state: link}
"""


def by_fabric(devices: list[SshDevice], release: Path, peers: Path, scratch: Path) -> None:
    told = json.dumps([device.device.model_dump(mode="json") for device in devices])
    words = [peers / "bin" / "python", "-c", _FABRIC, told, release]
    subprocess.run(words, check=True, timeout=600, cwd=scratch)


def by_ansible(devices: list[SshDevice], release: Path, peers: Path, scratch: Path) -> None:
    """`copy` compares hashes by itself."""
    lines = [
        f"{one.device.name} ansible_host={one.device.host} ansible_port={one.device.port} "
        f"ansible_user={one.device.user} ansible_ssh_private_key_file={one.device.key_file} "
        f"ansible_python_interpreter={one.device.python} root={one.device.root}"
        for one in devices
    ]
    (scratch / "hosts").write_text("\n".join(lines))
    (scratch / "play.yml").write_text(_PLAYBOOK % release)
    settings = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_HOST_KEY_CHECKING": "0", "ANSIBLE_HOME": str(scratch)}
    words = [peers / "bin" / "ansible-playbook", "-f", "20", "-i", scratch / "hosts", scratch / "play.yml"]
    subprocess.run(
        words, check=True, timeout=600, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, cwd=scratch
    )


def simulate(count: int) -> None:
    """The flow with devices that answer at once: its own seconds, memory and longest message."""
    from prefect import flow
    from prefect.testing.utilities import prefect_test_harness

    from tasks.rollout import per_device
    from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
    from tasks.rollout.payload import Payload
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
