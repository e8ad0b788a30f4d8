#!/usr/bin/env python3
"""The program on a device: stages, proves and switches releases, and goes back by itself.

In: a command (`device.py --root ROOT COMMAND …`). Out: one line of JSON on stdout, `{"ok": true, …}`,
or `{"ok": false, "kind": "refused" | "busy" | "error", "error": "…"}` with exit status 1.

    ROOT/releases/<version>/   manifest.json, model, golden set; only ever whole, checked releases
    ROOT/current               link to the release in use; this is what the application opens
    ROOT/incoming/<version>/   uploads; may be half there, nothing reads them but `stage`
    ROOT/state.json            the release before this one, and a switch that nobody has confirmed yet
    ROOT/allowed_signers       optional, put there by a person: then unsigned releases are refused

`switch` leaves a note with a deadline, starts a watchdog, and only then moves the link. Unless
`confirm` takes the note away in time, the watchdog moves the link back. Where the watchdog died with
the power, the next command of any kind does it, `settle` at boot among them: a reboot counts as "not
confirmed". So whatever dies at whatever step, `current` is a whole release, and in the end a proven one.

Needs Python 3.9 or newer on Linux, numpy, and ai-edge-litert (preferred) or tflite-runtime.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Facts = dict[str, Any]
"""A JSON object: an answer, a manifest, the state."""
VERSION = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DISK_RESERVE_BYTES = 16 * 1024 * 1024
"""Left free whatever is uploaded: logs and the application go on while a release arrives."""
SIGNATURE_NAMESPACE = "stress-vision-release"
SIGNER = "stress-vision"
RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
OTHER_KERNELS_SHARE = 0.25
"""Golden images that may differ by more than the manifest's tolerance under another runtime. In 1,800 golden
sets of nine models, tflite-runtime 2.14 against ai-edge-litert, at most 2 of 16 images did, and no class that
led by more than twice the tolerance gave way; each of 14,400 comparisons with another model was refused."""
THROTTLED_NOW = 0b1111
"""vcgencmd get_throttled, bits 0 to 3: under-voltage, frequency capped, throttled, soft temperature
limit, all as of now (bits 16 to 19 say "since boot"). Source: Raspberry Pi documentation, vcgencmd."""


class Refused(Exception):
    """The device declines, and says why. Nothing has changed."""

    kind = "refused"


class Busy(Refused):
    """Another command has this device, or a switch waits for its confirmation."""

    kind = "busy"


# ---------------------------------------------------------------- files, links and the one lock


def write_atomically(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)


def link_atomically(link: Path, target: str) -> None:
    part = link.with_name(f".{link.name}.{os.getpid()}.part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    part.symlink_to(target)
    part.replace(link)
    sync_directory(link.parent)


def sync_directory(directory: Path) -> None:
    """A rename survives a power cut only once its directory is on disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(root: Path, wait_s: float) -> Generator[None, None, None]:
    """Hold the device's one lock, so that two rollouts can't interleave."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"another command has had this device for {wait_s:g} s") from None
                time.sleep(0.05)
        yield


# ---------------------------------------------------------------- current, previous and the pending switch


def current_version(root: Path) -> str | None:
    link = root / "current"
    return link.readlink().name if link.is_symlink() else None


def point_current(root: Path, version: str | None) -> None:
    if version is None:
        with contextlib.suppress(FileNotFoundError):
            (root / "current").unlink()
        sync_directory(root)
    else:
        link_atomically(root / "current", f"releases/{version}")


def read_state(root: Path) -> Facts:
    try:
        return json.loads((root / "state.json").read_text())
    except FileNotFoundError:
        return {"previous": None, "pending": None, "last_return": None}


def write_state(root: Path, **changes: Any) -> None:
    write_atomically(root / "state.json", json.dumps({**read_state(root), **changes}, indent=1))


def boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def expired(pending: Facts) -> bool:
    """A Pi has no clock of its own before the network sets it, so deadlines count from boot."""
    return pending["boot_id"] != boot_id() or time.monotonic() >= pending["deadline"]


def settle(root: Path) -> None:
    """Return from a switch that nobody confirmed in time. Call with the lock held."""
    pending = read_state(root)["pending"]
    if pending and expired(pending):
        rebooted = pending["boot_id"] != boot_id()
        why = "rebooted before it was confirmed" if rebooted else "not confirmed in time"
        go_back(root, pending["version"], pending["previous"], why)


def go_back(root: Path, version: str, previous: str | None, why: str) -> None:
    """The link first, the note last: killed in between, the next command does it again."""
    point_current(root, previous)
    write_state(root, pending=None, previous=None, last_return={"from": version, "to": previous, "why": why})


def refuse_if_pending(root: Path) -> None:
    pending = read_state(root)["pending"]
    if pending:
        left = max(0, pending["deadline"] - time.monotonic())
        raise Busy(f"the switch to {pending['version']} waits for its confirmation for another {left:.0f} s")


def prune(root: Path) -> None:
    """Keep current and previous only; uploads of other releases and older programs go too."""
    keep = {current_version(root), read_state(root)["previous"]}
    for old in [*(root / "releases").glob("*"), *(root / "incoming").glob("*")]:
        if old.name not in keep:
            shutil.rmtree(old)
    for part in root.glob(".*.part"):
        part.unlink()
    mine = Path(__file__).resolve()
    for program in mine.parent.glob("device-*.py"):
        if program != mine:
            program.unlink()


# ---------------------------------------------------------------- releases


def read_manifest(directory: Path) -> tuple[Facts, list[str]]:
    """The manifest of an upload or of a release, with the names of the files a device needs of it."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
    except FileNotFoundError:
        raise Refused(f"there is no manifest in {directory}: send it first") from None
    if not VERSION.fullmatch(manifest["version"]) or manifest["version"] != directory.name:
        raise Refused(f"the manifest of {directory.name} is of version {manifest['version']!r}")
    needed = [manifest["model"], manifest["golden"]["file"]]
    for name in needed:
        if not FILE_NAME.fullmatch(name) or name not in manifest["files"]:
            raise Refused(f"manifest of {directory.name}: {name!r} is not one of its files")
    return manifest, needed


def check_signature(root: Path, directory: Path) -> None:
    """A device that was given `allowed_signers` takes signed releases only."""
    signers = root / "allowed_signers"
    if not signers.exists():
        return
    signature = directory / "manifest.sig"
    if not signature.exists():
        raise Refused(f"release {directory.name} has no signature, and this device takes signed ones only")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", SIGNER]
    command += ["-n", SIGNATURE_NAMESPACE, "-s", str(signature)]
    with (directory / "manifest.json").open("rb") as manifest:
        done = subprocess.run(
            command, stdin=manifest, capture_output=True, text=True, timeout=30, check=False
        )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise Refused(f"the signature of {directory.name} doesn't hold: {said}")


def damaged(directory: Path, manifest: Facts, names: Sequence[str]) -> list[str]:
    """The files among `names` that are absent or are not what the manifest says."""
    return [
        name
        for name in names
        if not (directory / name).is_file()
        or (directory / name).stat().st_size != manifest["files"][name]["bytes"]
        or sha256(directory / name) != manifest["files"][name]["sha256"]
    ]


def need(root: Path, args: Namespace) -> Facts:
    """Which files of the uploaded manifest still have to be sent; refuses where the disk has no room."""
    incoming = root / "incoming" / args.version
    manifest, names = read_manifest(incoming)
    check_signature(root, incoming)
    present = set(names) - set(damaged(root / "releases" / args.version, manifest, names))
    missing = [name for name in damaged(incoming, manifest, names) if name not in present]
    wanted = sum(manifest["files"][name]["bytes"] for name in missing) + DISK_RESERVE_BYTES
    free = shutil.disk_usage(root).free
    if missing and free < wanted:
        raise Refused(
            f"no room for {args.version}: {free / 1e6:.0f} MB free under {root}, {wanted / 1e6:.0f} MB needed"
        )
    return {"missing": missing}


def stage(root: Path, args: Namespace) -> Facts:
    """Prove an upload and make it a release, in one rename; mend a release that has rotted."""
    incoming, release = root / "incoming" / args.version, root / "releases" / args.version
    manifest, names = read_manifest(incoming)
    check_signature(root, incoming)
    rotten = damaged(release, manifest, names) if release.exists() else names
    broken = damaged(incoming, manifest, rotten)
    if broken:
        raise Refused(f"upload of {args.version} is not what its manifest says: {', '.join(broken)}")
    release.parent.mkdir(exist_ok=True)
    if release.exists():
        for path in incoming.iterdir():
            path.replace(release / path.name)
        incoming.rmdir()
    else:
        incoming.rename(release)
    sync_directory(release)
    sync_directory(release.parent)
    return {"version": args.version, "mended": rotten if rotten != names else []}


def release_to_run(root: Path, args: Namespace) -> tuple[Path, Facts]:
    """The directory to open: the named release, or whatever `current` leads to, as the application does."""
    directory = root / "current" if args.current else root / "releases" / args.version
    if not directory.is_dir():
        raise Refused(f"there is no release {'current' if args.current else args.version} on this device")
    manifest, _ = read_manifest(directory.resolve())
    if args.current and manifest["version"] != args.version:
        raise Refused(f"current leads to {manifest['version']}, not to {args.version}")
    return directory, manifest


def switch(root: Path, args: Namespace) -> Facts:
    """Point `current` at a staged release, on probation for `confirm_within_s` seconds."""
    refuse_if_pending(root)
    release = root / "releases" / args.version
    if not release.is_dir():
        raise Refused(f"release {args.version} has not been staged on this device")
    manifest, names = read_manifest(release)
    if damaged(release, manifest, names):
        raise Refused(f"release {args.version} has rotted on this device: stage it again")
    pending = {
        "version": args.version,
        "previous": current_version(root),
        "token": os.urandom(16).hex(),
        "boot_id": boot_id(),
        "deadline": time.monotonic() + args.confirm_within_s,
    }
    link_atomically(root / "device.py", os.path.relpath(Path(__file__).resolve(), root.resolve()))
    write_state(root, pending=pending)
    start_watchdog(root)
    point_current(root, args.version)
    return {"version": args.version, "previous": pending["previous"], "token": pending["token"]}


def start_watchdog(root: Path) -> None:
    """In a session of its own: it outlives the SSH connection that asked for the switch."""
    subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--root", str(root.resolve()), "watch"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/",
    )  # fmt: skip


def watch(root: Path, lock_wait_s: float) -> Facts:
    """Wait until the pending switch is confirmed or its time is up, then settle."""
    while True:
        pending = read_state(root)["pending"]
        if pending is None:
            return {}
        if expired(pending):
            with contextlib.suppress(Busy), locked(root, lock_wait_s):
                settle(root)
        time.sleep(min(1.0, max(0.05, pending["deadline"] - time.monotonic())))


def confirm(root: Path, args: Namespace) -> Facts:
    """Take the note away: the release stays. Late or foreign confirmations are refused."""
    pending = read_state(root)["pending"]
    if not pending or pending["token"] != args.token or current_version(root) != pending["version"]:
        last = read_state(root)["last_return"]
        why = last["why"] if last else "never switched"
        raise Refused(f"nothing to confirm: current is {current_version(root)} ({why})")
    write_state(root, pending=None, previous=pending["previous"], last_return=None)
    prune(root)
    return {"version": pending["version"], "previous": pending["previous"]}


def revert(root: Path, args: Namespace) -> Facts:
    """Leave `version` for the release before it; changes nothing where `version` isn't in use."""
    state, here = read_state(root), current_version(root)
    pending = state["pending"]
    if pending and pending["version"] == args.version:
        go_back(root, args.version, pending["previous"], args.why)
    elif here == args.version and state["previous"] is None:
        raise Refused(f"there is no release before {args.version} to return to")
    elif here == args.version:
        go_back(root, args.version, state["previous"], args.why)
    return {"current": current_version(root)}


# ---------------------------------------------------------------- this machine, and how it runs a model


def first_line(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace").split("\n")[0].strip("\0 \t")
    return None


def machine_model() -> str:
    """A Pi's own name, else the processor's."""
    model = first_line("/proc/device-tree/model") or first_line("/sys/firmware/devicetree/base/model")
    if model:
        return model
    with contextlib.suppress(OSError):
        named = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if named:
            return named.group(1)
    return platform.processor() or platform.machine()


def temperature_c() -> float | None:
    millidegrees = first_line("/sys/class/thermal/thermal_zone0/temp")
    return int(millidegrees) / 1000 if millidegrees and millidegrees.lstrip("-").isdigit() else None


def throttled() -> int | None:
    """The firmware's word of now: an int of flags, or None where there is no vcgencmd."""
    program = shutil.which("vcgencmd", path=os.environ.get("PATH", "") + ":/usr/bin:/opt/vc/bin")
    if program is None:
        return None
    done = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    found = re.search(r"throttled=(0x[0-9a-fA-F]+)", done.stdout)
    return int(found.group(1), 16) & THROTTLED_NOW if found else None


def health() -> Facts:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return {"temperature_c": temperature_c(), "throttled": throttled(), "load_per_core": round(load, 2)}


def installed_runtime() -> tuple[str, str] | tuple[None, None]:
    """(package, version) of the runtime without the cost of importing it, or (None, None)."""
    from importlib import metadata  # costs more than the rest of a command

    for _, package in RUNTIMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return package, metadata.version(package)
    return None, None


def machine() -> Facts:
    package, version = installed_runtime()
    return {
        "model": machine_model(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "runtime": package,
        "runtime_version": version,
    }


def inspect(root: Path, args: Namespace) -> Facts:
    state = read_state(root)
    return {
        "current": current_version(root),
        "previous": state["previous"],
        "pending": state["pending"],
        "last_return": state["last_return"],
        "disk_free_bytes": shutil.disk_usage(root).free,
        "signed_only": (root / "allowed_signers").exists(),
        "health": health(),
        "machine": machine(),
    }


def load_model(directory: Path, manifest: Facts, args: Namespace) -> tuple[Any, str]:
    """A release's model in the runtime, as `open_model` gives it."""
    minimum = manifest.get("min_runtime_version") or ""
    return open_model(directory / manifest["model"], minimum, args.threads, args.delegate)


def open_model(path: Path, minimum: str, threads: int, delegate: str) -> tuple[Any, str]:
    """(interpreter, runtime) as the application will run it: with the runtime's default delegate, or that
    of the library `delegate`, which the runtime's name then tells, too."""
    from importlib import metadata

    for module, package in RUNTIMES:
        try:
            runtime = importlib.import_module(f"{module}.interpreter")
        except ImportError:
            continue
        version = metadata.version(package)
        refuse_if_too_old(package, version, minimum)
        chosen = {"experimental_delegates": [load_library(runtime, delegate)]} if delegate else {}
        interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads, **chosen)
        interpreter.allocate_tensors()
        return interpreter, f"{package} {version}" + (f" with {Path(delegate).name}" if delegate else "")
    raise Refused(f"{sys.executable} has no runtime: pip install ai-edge-litert (or tflite-runtime) into it")


def load_library(runtime: Any, delegate: str) -> Any:
    """The delegate of a library such as libedgetpu.so.1; refuses where it is missing or finds no device."""
    try:
        return runtime.load_delegate(delegate)
    except (OSError, ValueError) as error:
        why = str(error) or "it found no accelerator"
        raise Refused(
            f"delegate {delegate} can't be loaded: {why}; is its library installed, and the accelerator "
            "plugged in? `delegate` in the inventory names it"
        ) from error


def refuse_if_too_old(package: str, version: str, minimum: str) -> None:
    """The model's own minimum counts TensorFlow versions; only tflite-runtime is numbered like that."""
    if package == "tflite-runtime" and numbers(version) < numbers(minimum):
        raise Refused(
            f"the model needs TensorFlow Lite {minimum} or newer, this device has {package} {version}"
        )


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def golden_inputs(directory: Path, manifest: Facts) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """inputs uint8 (K, P, P, C) and the outputs uint8 (K, classes) that they must give."""
    import numpy as np

    with np.load(directory / manifest["golden"]["file"]) as golden:
        return golden["inputs"], golden["outputs"]


def run_frame(interpreter: Any, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One frame as the application sees it: copy in, run, copy out."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def check(root: Path, args: Namespace) -> Facts:
    """Run the golden set: bit for bit where runtime and delegate are those that made it, else `kin` to it."""
    directory, manifest = release_to_run(root, args)
    _, names = read_manifest(directory.resolve())
    rotten = damaged(directory, manifest, names)
    if rotten:
        raise Refused(f"files of {manifest['version']} differ from its manifest: {', '.join(rotten)}")
    interpreter, runtime = load_model(directory, manifest, args)
    inputs, expected = golden_inputs(directory, manifest)
    import numpy as np

    rows = [run_frame(interpreter, inputs[number : number + 1])[0] for number in range(len(inputs))]
    outputs, made = np.stack(rows).astype(int), manifest["golden"]
    off = abs(outputs - expected).max(1)
    exact = runtime == made["runtime"] and made.get("delegate") in (None, delegate(interpreter))
    allowed = 0 if exact else made["tolerance_lsb"]
    if off.any() if exact else not kin(outputs, expected.astype(int), allowed):
        raise Refused(
            f"golden set of {manifest['version']}: outputs differ by up to {off.max()} steps of 1/256, in "
            f"{(off > allowed).sum()} of {len(off)} images by more than {allowed}, under {runtime} (made by "
            f"{made['runtime']})"
        )
    return {"images": len(inputs), "worst_lsb": int(off.max()), "allowed_lsb": allowed, "runtime": runtime}


def kin(outputs: NDArray[Any], expected: NDArray[Any], allowed: int) -> bool:
    """Whether outputs (K, classes) are the same model's under other kernels: the same class on top wherever
    one leads by more than two differences of `allowed`, and few images that differ by more than one."""
    import numpy as np

    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * allowed
    over = (abs(outputs - expected).max(1) > allowed).mean()
    turned = clear & (outputs.argmax(1) != expected.argmax(1))
    return bool(over <= OTHER_KERNELS_SHARE and not turned.any())


def benchmark(root: Path, args: Namespace) -> Facts:
    """Latency of one frame in milliseconds over `runs` frames, after `warmup` unmeasured ones."""
    directory, manifest = release_to_run(root, args)
    interpreter, runtime = load_model(directory, manifest, args)
    inputs, _ = golden_inputs(directory, manifest)
    frames = [inputs[number : number + 1] for number in range(len(inputs))]
    return {**timed(interpreter, frames, args), "runtime": runtime}


def time_file(root: Path, args: Namespace) -> Facts:
    """Latency of an uploaded .tflite that is no release, on noise; the upload goes, nothing else changes."""
    if not FILE_NAME.fullmatch(args.upload) or VERSION.fullmatch(args.upload):
        raise Refused(f"{args.upload!r} is no name for an upload to time")
    folder = root / "incoming" / args.upload
    try:
        (path,) = folder.iterdir()
        interpreter, runtime = open_model(path, "", args.threads, args.delegate)
        frames = noise(interpreter.get_input_details()[0], 8)
        return {**timed(interpreter, frames, args), "runtime": runtime}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def noise(tensor: Facts, count: int) -> list[Any]:
    """Frames for an input tensor: its dtype's bytes, or 0 to 255 where it takes real values."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(0, 256, (count, *tensor["shape"]), np.uint8)
    return [*(drawn.view(np.int8) if tensor["dtype"] == np.int8 else drawn.astype(tensor["dtype"]))]


def timed(interpreter: Any, frames: Sequence[Any], args: Namespace) -> Facts:
    """Figures of `args.runs` frames, after `args.warmup` unmeasured ones."""
    before = health()
    for number in range(args.warmup):
        run_frame(interpreter, frames[number % len(frames)])
    times: list[float] = []
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(args.runs):
        started = time.perf_counter_ns()
        run_frame(interpreter, frames[number % len(frames)])
        times.append((time.perf_counter_ns() - started) / 1e6)
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return {
        **summary(times),
        "runs": args.runs, "warmup": args.warmup, "threads": args.threads,
        "delegate": delegate(interpreter), "cpu_share": round(min(cpu_share, 1.0), 3),
        "health_before": before, "health_after": health(), "machine": machine(),
    }  # fmt: skip


def summary(times: Sequence[float]) -> dict[str, float]:
    import numpy as np

    mean = float(np.mean(times))
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    std = float(np.std(times, ddof=1)) if len(times) > 1 else 0.0
    return {"mean_ms": mean, "std_ms": std, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "fps": 1000 / mean}


def delegate(interpreter: Any) -> str | None:
    """Whether XNNPACK took part of the graph; None where the runtime doesn't tell (a private call)."""
    with contextlib.suppress(Exception):
        return (
            "xnnpack" if any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()) else "none"
        )
    return None


# ---------------------------------------------------------------- the command line

COMMANDS: dict[str, Callable[[Path, Namespace], Facts]] = {
    "inspect": inspect, "settle": inspect, "need": need, "stage": stage, "check": check,
    "benchmark": benchmark, "time": time_file, "switch": switch, "confirm": confirm, "revert": revert,
}  # fmt: skip
"""Every command settles an expired switch first, so `settle` (for boot) is `inspect` by another name."""


def parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--lock-wait-s", type=float, default=30.0)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in [*COMMANDS, "watch"]:
        command = commands.add_parser(name)
        if name in ("need", "stage", "check", "benchmark", "switch", "revert"):
            command.add_argument("--version", required=True)
        if name in ("check", "benchmark"):
            command.add_argument("--current", action="store_true", help="through the link `current`")
        if name in ("check", "benchmark", "time"):
            command.add_argument("--threads", type=int, default=1)
            command.add_argument("--delegate", default="", help="library of a delegate, as of a Coral")
        if name in ("benchmark", "time"):
            command.add_argument("--runs", type=int, default=100)
            command.add_argument("--warmup", type=int, default=10)
    commands.choices["time"].add_argument("--upload", required=True, help="folder below incoming")
    commands.choices["switch"].add_argument("--confirm-within-s", type=float, default=120.0)
    commands.choices["confirm"].add_argument("--token", required=True)
    commands.choices["revert"].add_argument("--why", default="asked to")
    return parser.parse_args(arguments)


def answer(args: Namespace) -> Facts:
    root = args.root.resolve()
    if args.command == "watch":
        return watch(root, args.lock_wait_s)
    with locked(root, args.lock_wait_s):
        settle(root)
        if args.command in ("need", "stage"):
            refuse_if_pending(root)
        return COMMANDS[args.command](root, args)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if not VERSION.fullmatch(getattr(args, "version", "00000000-000000-00000000")):
        result = {"ok": False, "kind": "refused", "error": f"{args.version!r} is not a release's version"}
    else:
        try:
            result = {"ok": True, **answer(args)}
        except Refused as refusal:
            result = {"ok": False, "kind": refusal.kind, "error": str(refusal)}
        except Exception as error:
            result = {
                "ok": False,
                "kind": "error",
                "error": f"{args.command}: {type(error).__name__}: {error}",
            }
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
