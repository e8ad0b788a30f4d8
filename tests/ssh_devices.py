"""Fixtures: devices that are real OpenSSH servers on loopback, each with its own host key, key list and root.

They run as ordinary processes of whoever runs the tests, on free high ports, and log in as that user.
"""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.fleet import Device, Fleet
from tests.ports import free_port

_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
SetEnv HOME={folder}
"""
# HOME: the login shell would run the dot files of whoever runs the tests


@dataclass
class SshDevice:
    """One sshd and the inventory entry that reaches it."""

    device: Device
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        return Path(self.device.root)

    @property
    def current(self) -> str | None:
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else None

    def runs(self, release: Path) -> None:
        """As after an earlier rollout: the device has this release, and no other."""
        as_device_runs(self.root, release)

    def start(self) -> None:
        config = self.folder / "sshd_config"
        config.write_text(_CONFIG.format(port=self.device.port, folder=self.folder))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([_sshd(), "-D", "-e", "-f", str(config)], stderr=log)
        _wait_until_it_answers(self)

    def stop(self) -> None:
        """As when the device is switched off: nobody listens any more."""
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)


def as_device_runs(root: Path, release: Path) -> None:
    shutil.copytree(release, root / "releases" / release.name)
    (root / "current").symlink_to(f"releases/{release.name}")


def _sshd() -> str:
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(
            "no sshd: the SSH tests need Debian's package openssh-server (apt-get install openssh-server)"
        )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root insists on its privilege separation
    return found


def _wait_until_it_answers(device: SshDevice) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if device.process and device.process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", device.device.port), timeout=1) as sock:
                if sock.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"sshd did not start: {(device.folder / 'log').read_text()}")


def new_key(path: Path) -> str:
    """Make an ed25519 key pair; its public half as "ssh-ed25519 AAAA…"."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=60)
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


def make_device(folder: Path, client_key: Path, name: str) -> SshDevice:
    folder.mkdir()
    host_key = new_key(folder / "host_key")
    shutil.copy(client_key.with_name(f"{client_key.name}.pub"), folder / "authorized_keys")
    device = Device(
        name=name, host="127.0.0.1", port=free_port(), user=getpass.getuser(), key_file=client_key,
        host_key=host_key, root=str(folder / "root"), python=sys.executable,
    )  # fmt: skip
    return SshDevice(device, folder)


def write_inventory(path: Path, *devices: Device) -> str:
    """Write the TOML file that reaches these devices; its path."""
    tables = [device.model_dump(mode="json", exclude_defaults=True) for device in devices]
    entries = ["\n".join(f"{key} = {json.dumps(value)}" for key, value in facts.items()) for facts in tables]
    path.write_text("".join(f"[[devices]]\n{entry}\n" for entry in entries))
    return str(path)


StartDevices = Callable[[int], list[SshDevice]]


@pytest.fixture
def client_key(tmp_path: Path) -> Path:
    new_key(tmp_path / "client_key")
    return tmp_path / "client_key"


@pytest.fixture
def ssh_devices(tmp_path: Path, client_key: Path) -> Iterator[StartDevices]:
    """Call with a number: that many running devices, ended after the test."""
    _sshd()
    started: list[SshDevice] = []

    def start(number: int) -> list[SshDevice]:
        for index in range(number):
            device = make_device(tmp_path / f"pi-{index + 1}", client_key, f"pi-{index + 1}")
            started.append(device)
            device.start()
        return started

    yield start
    for device in started:
        device.stop()


@pytest.fixture
def ssh_device(ssh_devices: StartDevices) -> SshDevice:
    return ssh_devices(1)[0]


def fleet_of(devices: list[SshDevice]) -> Fleet:
    return Fleet(devices=tuple(device.device for device in devices))
