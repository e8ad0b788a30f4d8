"""The cycle of `tests.benchmarks.cycle` on emulated Raspberry Pi 5: arm64 Python and runtime, on Debian.

    python -m tests.benchmarks.emulated [bookworm|trixie] [--devices 2] [--keep FOLDER]

Debian only. What it needs of Debian's packages it installs as root, or says that it can't. qemu-user runs the
device's program as a Cortex-A76 would; sshd and file system are this machine's, and times mean nothing.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deployments.fleet import Fleet
from tests.benchmarks.cycle import cycle
from tests.faults.__main__ import small_releases
from tests.ssh_devices import make_device, new_key

_PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
_PACKAGES = {
    "qemu-aarch64": "qemu-user",
    "mmdebstrap": "mmdebstrap",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
}
_RUNTIME = Path(__file__).parents[2] / "deployments/pi/requirements-ai-edge-litert.txt"
_CORE = """BogoMIPS : 108.00
Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer : 0x41
CPU architecture: 8
CPU variant : 0x4
CPU part : 0xd0b
CPU revision : 1

"""
"""A Cortex-A76 as Linux describes it: what the runtime reads to choose its kernels."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("suite", nargs="?", choices=_PYTHON, default="bookworm")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep Debian's files and the releases here")
    given = parser.parse_args()
    if lacking := install_packages():
        print(f"can't emulate: {lacking}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        kept = given.keep or Path(scratch)
        python = emulated_python(kept / given.suite, _PYTHON[given.suite])
        return run_cycle(python, small_releases(kept / "releases"), given.devices, Path(scratch))


def install_packages() -> str:
    """Nothing, or why a command that this needs is neither here nor can be installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = [package for command, package in _PACKAGES.items() if not shutil.which(command, path=path)]
    if not missing:
        return ""
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=400", "install", "-y", "--no-install-recommends"]
    install += missing
    if os.geteuid() or not shutil.which("apt-get"):
        return f"it needs Debian's packages {', '.join(missing)}; as root: {shlex.join(install)}"
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            return f"`{shlex.join(command)}` failed: {done.stderr.strip()[-500:]}"
    return ""


def emulated_python(tree: Path, version: str) -> Path:
    """A command that starts the suite's Python with the runtime, made where it isn't there yet."""
    command = tree.with_name(f"{tree.name}-python")
    if not command.exists():
        shutil.rmtree(tree, ignore_errors=True)
        tree.parent.mkdir(parents=True, exist_ok=True)
        unpack_debian(tree, version)
        describe_hardware(tree)
        install_runtime(tree, version)
        emulator = f"qemu-aarch64 -cpu cortex-a76 -L {tree} -E PYTHONHOME=/usr -E PYTHONPATH=/opt/packages"
        command.write_text(f'#!/bin/sh\nexec {emulator} {tree}/usr/bin/python{version} "$@"\n')
        command.chmod(0o755)
    return command


def unpack_debian(tree: Path, version: str) -> None:
    packages = f"python{version}-minimal,libpython{version}-stdlib,libstdc++6"
    command = ["mmdebstrap", "--quiet", "--architectures=arm64", "--variant=extract", "--skip=check/qemu"]
    subprocess.run([*command, f"--include={packages}", tree.name, str(tree)], check=True, timeout=1200)
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")  # only extracted: the package that makes the link did not run


def describe_hardware(tree: Path) -> None:
    (tree / "proc").mkdir(exist_ok=True)
    (tree / "proc/cpuinfo").write_text("".join(f"processor : {core}\n{_CORE}" for core in range(4)))


def install_runtime(tree: Path, version: str) -> None:
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (34, 28, 27, 17)]
    foreign = ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *platforms]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *foreign]
    command += ["--target", str(tree / "opt/packages"), "--requirement", str(_RUNTIME)]
    subprocess.run(command, check=True, timeout=900)


def run_cycle(python: Path, releases: dict[str, Path], count: int, scratch: Path) -> int:
    new_key(scratch / "key")
    names = [f"pi-{number}" for number in range(1, count + 1)]
    devices = [make_device(scratch / name, scratch / "key", name) for name in names]
    try:
        for device in devices:
            device.device = device.device.model_copy(update={"python": str(python)})
            device.start()
        return cycle(Fleet(devices=tuple(device.device for device in devices)), sorted(releases.values()))
    finally:
        for device in devices:
            device.stop()


if __name__ == "__main__":
    sys.exit(main())
