#!/usr/bin/env python3
"""The program on a device: stages, proves and switches releases, and goes back by itself.

In: a command (`device.py --root ROOT COMMAND …`). Out: one line of JSON on stdout, `{"ok": true, …}`, or
`{"ok": false, "kind": …, "error": "…"}` with exit status 1. Kinds: `refused` and `hung`, the release is at
fault; `faulty` and `error`, this device is; `busy`, somebody else has it.

`serve` answers one command after the other, each a line of JSON on stdin, while its SSH session lasts.

    ROOT/releases/<version>/   manifest.json, model, golden set; only ever whole, checked releases
    ROOT/current               link to the release in use; this is what the application opens
    ROOT/incoming/<version>/   uploads; may be half there, nothing reads them but `stage`
    ROOT/incoming/program/     an agent's next program, signed; its owner's `install` takes it from there
    ROOT/state.json            the release before this one, and a switch that nobody has confirmed yet
    ROOT/allowed_signers       optional, put there by a person: then unsigned releases are refused;
                               replaced by lists that a key on it has signed

`switch` leaves a note with a deadline, starts a watchdog, and only then moves the link. Unless
`confirm` takes the note away in time, the watchdog moves the link back, and ends whoever holds the lock for
longer. Where the watchdog died with the power, the next command of any kind does it, `settle` by a timer
among them: a reboot counts as "not confirmed". So whatever dies at whatever step, `current` is a whole
release, and in the end a proven one.

Every command has a time box after which the kernel ends it. A model runs in a process of its own, without the
lock: it may hang or crash, and neither outlives its time box nor the session that asked. They and the
watchdog are forks of `serve`, which starts Python and imports the runtime once for all of them.

Needs Python 3.9 or newer on Linux, numpy, and ai-edge-litert (preferred) or tflite-runtime. It is one file,
because it is sent whole, named by its hash, and has to run where nothing else of ours is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Facts = dict[str, Any]
"""A JSON object: an answer, a manifest, the state."""
PROTOCOL = 2
"""Of `serve`; another number where an older caller would misunderstand."""
IDLE_S = 180.0
"""A session that asks nothing for this long is over: sshd may take hours to notice a pulled cable."""
LINE_BYTES, FILE_BYTES = 1 << 20, 1 << 28
"""More than this in one request is nobody's release."""
STUCK_S = 1800.0
"""No command has a time box as long as this: whoever has had a lock for longer hangs."""
YOUNG_S = 3600.0
"""Uploads and unproven releases younger than this may be those of a rollout that is under way."""
NO_STATE: Facts = {"previous": None, "pending": None, "last_return": None, "sequence": 0}
VERSION = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DISK_RESERVE_BYTES = 16 * 1024 * 1024
"""Left free whatever is uploaded: logs and the application go on while a release arrives."""
RELEASE, ROLLBACK = "stress-vision-release", "stress-vision-rollback"
LIST, PROGRAM = "stress-vision-signers", "stress-vision-program"
"""Namespaces of signatures: one made for the other purpose doesn't hold."""
ORDER = "rollback.json"
PROVEN = ".proven"
"""In a release's folder once it was confirmed: what a device may go back to if its state is lost. It names
what the release was proven with."""
SIGNER = "stress-vision"
PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+=*")
RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
OTHER_KERNELS_SHARE = 0.25
"""Golden images that may differ by more than the manifest's tolerance under another runtime. In 1,800 golden
sets of nine models, tflite-runtime 2.14 against ai-edge-litert, at most 2 of 16 images did, and no class that
led by more than twice the tolerance gave way; each of 14,400 comparisons with another model was refused."""
THROTTLED_NOW = 0b1111
"""vcgencmd get_throttled, bits 0 to 3: under-voltage, frequency capped, throttled, soft temperature
limit, all as of now (bits 16 to 19 say "since boot"). Source: Raspberry Pi documentation, vcgencmd."""


class Refused(Exception):
    """The device declines the release, and says why. Nothing has changed."""

    kind = "refused"


class Faulty(Refused):
    """This device can't, whatever the release is."""

    kind = "faulty"


class Hung(Refused):
    """The release doesn't come to an end."""

    kind = "hung"


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
    if link.is_dir() and not link.is_symlink():  # somebody's copy in the link's place
        link.rename(link.with_name(f"{link.name}.found.{os.getpid()}"))
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
def locked(root: Path, wait_s: float, name: str = "lock") -> Generator[None, None, None]:
    """Hold one of the device's two locks: `lock` to change something, `measuring` to have its processor."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / name).open("a") as file:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"another command has had this device for {wait_s:g} s") from None
                if is_old(root / name, STUCK_S):
                    end_holder(root / name)
                time.sleep(0.05)
        os.utime(file.fileno())
        yield


def end_holder(lock: Path) -> None:
    """End the process that has a lock: it hangs, and the way back must not wait for it."""
    there = lock.stat()
    place = f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}:{there.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()  # one that only waits has "->" in front of its kind
        if fields[1] == "FLOCK" and fields[5] == place and int(fields[4]) not in (0, os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(int(fields[4]), signal.SIGKILL)


# ---------------------------------------------------------------- current, previous and the pending switch


def current_version(root: Path) -> str | None:
    """The release that `current` really opens; None where it opens none of ours."""
    opened = (root / "current").resolve()
    ours = opened.parent == root.resolve() / "releases" and opened.is_dir()
    return opened.name if ours and VERSION.fullmatch(opened.name) else None


def point_current(root: Path, version: str | None) -> None:
    if version is None:
        with contextlib.suppress(FileNotFoundError):
            (root / "current").unlink()
        sync_directory(root)
    else:
        link_atomically(root / "current", f"releases/{version}")


def read_state(root: Path) -> Facts:
    """What is noted; where that can't be read, what `current` and the proven releases tell."""
    try:
        state = {**NO_STATE, **json.loads((root / "state.json").read_text())}
        refuse_senseless(state)
    except FileNotFoundError:
        return dict(NO_STATE)
    except (OSError, ValueError, TypeError, KeyError) as error:
        return rebuilt_state(root, f"state.json could not be read ({type(error).__name__})")
    return state


def refuse_senseless(state: Facts) -> None:
    """ValueError, TypeError or KeyError where a state is none."""
    pending = state["pending"]
    for version in (state["previous"], *((pending["version"], pending["previous"]) if pending else ())):
        if version is not None and not VERSION.fullmatch(version):
            raise ValueError(version)
    if pending and not (isinstance(pending["token"], str) and isinstance(pending["boot_id"], str)):
        raise TypeError("pending")
    if not float(pending["deadline"] if pending else 0) < float("inf") or int(state["sequence"]) < 0:
        raise ValueError("deadline or sequence")


def rebuilt_state(root: Path, why: str) -> Facts:
    here = current_version(root)
    sequence = 0
    with contextlib.suppress(Refused, OSError):
        sequence = sequence_of(read_manifest(root / "releases" / str(here))[0])
    others = proven_releases(root, without=here)
    return {**NO_STATE, "previous": others[0] if others else None, "sequence": sequence, "repaired": why}


def proven_releases(root: Path, without: str | None) -> list[str]:
    """Whole releases that were confirmed here once, the last one first."""
    marks = {mark: mark.stat().st_mtime for mark in (root / "releases").glob(f"*/{PROVEN}")}
    names = [mark.parent.name for mark in sorted(marks, key=lambda mark: -marks[mark])]
    return [name for name in names if name != without and is_whole(root, name)]


def mark_proven(release: Path) -> None:
    with contextlib.suppress(OSError):
        (release / PROVEN).write_text(runs_with())


def proven_since(root: Path) -> float | None:
    """Since when what `current` opens, its files as they are, is proven with the Python and runtime of today;
    None where only a proof can tell."""
    version = current_version(root)
    if version is None or not is_whole(root, version):
        return None
    mark = root / "releases" / version / PROVEN
    with contextlib.suppress(OSError):
        return mark.stat().st_mtime if mark.read_text() == runs_with() else None
    return None


def write_state(root: Path, **changes: Any) -> None:
    known = {name: value for name, value in read_state(root).items() if name != "repaired"}
    write_atomically(root / "state.json", json.dumps({**known, **changes}, indent=1))


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
        return_from(root, pending)


def return_from(root: Path, pending: Facts) -> None:
    rebooted = pending["boot_id"] != boot_id()
    why = "rebooted before it was confirmed" if rebooted else "not confirmed in time"
    go_back(root, pending["version"], pending["previous"], why)


def go_back(root: Path, version: str, previous: str | None, why: str) -> None:
    """The link first, the note last: killed in between, the next command does it again.

    A release that has rotted is nothing to go back to: then another that was proven here, else it stays.
    """
    target = previous
    if previous is not None and not is_whole(root, previous):
        target = next(iter(proven_releases(root, without=version)), version)
        why += f"; {previous} is no longer whole on this device"
    point_current(root, target)
    write_state(root, pending=None, previous=None, last_return={"from": version, "to": target, "why": why})


def refuse_if_pending(root: Path) -> None:
    pending = read_state(root)["pending"]
    if pending:
        left = max(0, pending["deadline"] - time.monotonic())
        raise Busy(f"the switch to {pending['version']} waits for its confirmation for another {left:.0f} s")


def prune(root: Path, keep: str, young_s: float = YOUNG_S) -> None:
    """Keep current, previous and `keep`; uploads and older programs go too. Never fails: it can wait."""
    state = read_state(root)
    pending: Facts = state["pending"] or {}
    kept = {keep, current_version(root), state["previous"], pending.get("previous")}
    for old in [*(root / "releases").glob("*"), *(root / "incoming").glob("*")]:
        with contextlib.suppress(OSError):
            if old.name not in kept and ((old / PROVEN).exists() or is_old(old, young_s)):
                remove(old)
    for part in root.glob(".*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def prune_programs(root: Path) -> None:
    mine = Path(__file__).resolve()
    if mine.parent != root.resolve() / "program":
        return
    for program in [*mine.parent.glob("device-*.py"), *mine.parent.glob("__pycache__/device-*.pyc")]:
        if not program.name.startswith(f"{mine.stem}."):
            with contextlib.suppress(OSError):
                program.unlink()


def is_old(path: Path, young_s: float) -> bool:
    return time.time() - path.lstat().st_mtime > young_s


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# ---------------------------------------------------------------- releases


def read_manifest(directory: Path) -> tuple[Facts, list[str]]:
    """The manifest of an upload or of a release, with the names of the files a device needs of it."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        version, model = manifest["version"], manifest["model"]
        needed, files = [model, manifest["golden"]["file"]], manifest["files"]
        digest = files[model]["sha256"] if model in files else ""
    except (FileNotFoundError, NotADirectoryError):
        raise Faulty(f"there is no manifest in {directory}: send it first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"the manifest of {directory.name} can't be read: {error!r}") from None
    if not VERSION.fullmatch(version) or version != directory.name:
        raise Refused(f"the manifest of {directory.name} is of version {version!r}")
    for name in needed:
        if not FILE_NAME.fullmatch(name) or name not in files:
            raise Refused(f"manifest of {directory.name}: {name!r} is not one of its files")
    refuse_wrong_name(version, digest)
    return manifest, needed


def refuse_wrong_name(version: str, digest: str) -> None:
    """A version is a time and the first digits of its model's hash: nobody picks one that sorts last."""
    try:
        datetime.strptime(version[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        raise Refused(f"{version} is not a release's version: no such time") from None
    if not digest.startswith(version[-8:]):
        raise Refused(f"{version} is not the version of its model, whose SHA-256 is {digest[:8]}…")


def sequence_of(manifest: Facts) -> int:
    """How many releases its store had before it; releases from before there was a count have 0."""
    sequence = manifest.get("sequence", 0)
    if not isinstance(sequence, int) or sequence < 0:
        raise Refused(f"the manifest of {manifest['version']} has no count: {sequence!r}")
    return sequence


def is_whole(root: Path, version: str) -> bool:
    directory = root / "releases" / version
    try:
        manifest, names = read_manifest(directory)
        return not damaged(directory, manifest, names)
    except (Refused, OSError, KeyError, TypeError):
        return False


def takes_signed_only(root: Path) -> bool:
    """A link to a list that is gone is no permission."""
    return (root / "allowed_signers").exists() or (root / "allowed_signers").is_symlink()


def check_signature(root: Path, directory: Path, name: str = "manifest", purpose: str = RELEASE) -> None:
    """A device that was given `allowed_signers` takes signed releases and signed orders only."""
    signers, signature = root / "allowed_signers", directory / f"{name}.sig"
    if not takes_signed_only(root):
        return
    if not signers.is_file():
        raise Faulty(f"{signers} can't be read: it leads nowhere")
    if not signature.exists():
        raise Refused(f"{name} of {directory.name} has no signature, and this device takes signed ones only")
    said = why_unsigned(signers, directory / f"{name}.json", signature, purpose)
    if said:
        raise Refused(f"the signature of {directory.name} ({name}) doesn't hold: {said}")


def why_unsigned(signers: Path, content: Path, signature: Path, purpose: str) -> str:
    """Why no key on the list has signed a file for this purpose; empty where one has."""
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", SIGNER]
    command += ["-n", purpose, "-s", str(signature)]
    with content.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip() or "it can't be checked" if done.returncode else ""


def signers_count(root: Path) -> int:
    """The number of the signed list that this device holds; 0 where a person put it there."""
    with contextlib.suppress(OSError, ValueError):
        found = re.match(r"# list (\d+)\n", (root / "allowed_signers").read_text())
        return int(found[1]) if found else 0
    return 0


def take_signers(root: Path, args: Namespace) -> Facts:
    """Replace the list of signers by a newer one, signed with a key that is on both.

    On the one before, because only those may say who comes after them; on the new one, because a list of keys
    that nobody has would lock everybody out.
    """
    if not takes_signed_only(root):
        raise Refused("this device takes unsigned releases: it has no signers that could be replaced")
    count, text = parsed_signers(args.listed)
    if count <= signers_count(root):
        raise Refused(f"list {count} of signers is not newer than list {signers_count(root)}, held here")
    arriving = root / "incoming" / "signers"
    arriving.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in (("list.json", args.listed), ("list.sig", args.signature), ("new", text)):
            (arriving / name).write_text(content or "")
        for signers, which in ((root / "allowed_signers", "held here"), (arriving / "new", "itself")):
            said = why_unsigned(signers, arriving / "list.json", arriving / "list.sig", LIST)
            if said:
                raise Refused(f"list {count} is not signed with a key on the list {which}: {said}")
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    write_atomically(root / "allowed_signers", text)
    return {"signers": count}


def parsed_signers(listed: str) -> tuple[int, str]:
    """(number, text of allowed_signers) of a list of public keys."""
    try:
        facts = json.loads(listed)
        count, keys = int(facts["count"]), [str(key) for key in facts["signers"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"the list of signers can't be read: {error!r}") from None
    if not keys or not all(PUBLIC_KEY.fullmatch(key) for key in keys):
        raise Refused(f"list {count} of signers has a line that is no ed25519 key")
    return count, f"# list {count}\n" + "".join(f"{SIGNER} {key}\n" for key in keys)


def take_program(root: Path, args: Namespace, content: bytes) -> Facts:
    """Lay down a program for `install`: an agent may not write itself."""
    if not args.agent:
        raise Refused("this program is no agent: another one is sent beside it")
    folder = root / "incoming" / "program"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("device.py", content.decode()), ("program.sig", args.signature),
                       ("program.json", args.statement)):  # fmt: skip
        write_atomically(folder / name, text)
    return {"waiting": waiting_program(root)}


def waiting_program(root: Path) -> str | None:
    """The hash of the program that waits to be installed."""
    with contextlib.suppress(OSError):
        return sha256(root / "incoming" / "program" / "device.py")
    return None


def install(root: Path, args: Namespace) -> Facts:
    """Replace this program by the one that waits, for a timer of whoever owns this one.

    It has to be signed by one of `signers`, a list that the user of the releases can't write, later than this
    one was, and to answer. The one before stays beside it as `device.py.before`. What lies there is somebody
    else's: it is read once, no link is followed, and nothing of it is run before its signature has held.
    """
    folder, mine = root / "incoming" / "program", Path(__file__).resolve()
    if not (folder / "program.json").exists():
        return {"installed": False}
    found = {name: read_plainly(folder / name) for name in ("device.py", "program.json", "program.sig")}
    content = found["device.py"]
    if content == mine.read_bytes():
        return {"installed": False}
    if read_state(root)["pending"]:
        raise Busy("a switch waits for its confirmation: the program is replaced after it")
    with tempfile.TemporaryDirectory() as scratch:
        for name, kept in found.items():
            (Path(scratch) / name).write_bytes(kept)
        number = proven_program(Path(scratch), args.signers, mine)
    keep_number(mine, number)  # first: killed in between, it is done again, and nothing older is taken
    replace_program(mine.with_name(f"{mine.name}.before"), mine.read_bytes())
    replace_program(mine, content)
    return {"installed": True, "program": hashlib.sha256(content).hexdigest()}


def read_plainly(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        return file.read(LINE_BYTES)


def proven_program(folder: Path, signers: Path, mine: Path) -> int:
    """The number under which a program was signed; Refused where it wasn't, is older, or doesn't answer."""
    said = why_unsigned(signers, folder / "program.json", folder / "program.sig", PROGRAM)
    if said:
        raise Refused(f"the program that waits is not signed by one of {signers}: {said}")
    statement = json.loads((folder / "program.json").read_text())
    if statement["program"] != sha256(folder / "device.py"):
        raise Refused("the program that waits is not the one that was signed")
    number, kept = int(statement["number"]), first_line(str(number_of(mine)))
    if kept and number < int(kept):
        raise Refused(f"the program that waits is older: signed as {number}, the one here as {kept}")
    words = [sys.executable, str(folder / "device.py"), "--root", str(folder / "root"), "inspect"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(f"the program that waits doesn't answer: {(done.stdout + done.stderr).strip()[-200:]}")
    return number


def number_of(program: Path) -> Path:
    return program.with_name(f"{program.name}.number")


def keep_number(program: Path, number: int) -> None:
    write_atomically(number_of(program), str(number))


def replace_program(path: Path, content: bytes) -> None:
    """Readable for the user that runs it, whatever the timer's umask."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        os.fchmod(file.fileno(), 0o755)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)


def refuse_older(root: Path, directory: Path, manifest: Facts) -> None:
    """A release from before the newest that was proven here needs an order that names it.

    The order says up to which count it may replace newer ones, so it is void once the fleet moved on.
    """
    version, proven = manifest["version"], int(read_state(root)["sequence"])
    if sequence_of(manifest) >= proven or current_version(root) == version:
        return
    if not ordered(root, directory, version)["up_to"] >= proven:
        raise Refused(
            f"{version} is number {sequence_of(manifest)}, and this device has proven number {proven}: "
            f"going back needs an order (`stress-vision promote --release {version}`)"
        )


def ordered(root: Path, directory: Path, version: str) -> Facts:
    """What an order says of a release: up to which count it replaces others, and until when it is taken."""
    try:
        order = json.loads((directory / ORDER).read_text())
        told = {"up_to": int(order["up_to"]), "expires": moment(order.get("expires_at"))}
        if order["release"] != version:
            raise ValueError(order["release"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"up_to": -1, "expires": None}
    check_signature(root, directory, "rollback", ROLLBACK)
    return told


def moment(text: str | None) -> float | None:
    """Seconds since 1970 of an ISO 8601 time; Python 3.9 and 3.10 don't read its Z."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None


def refuse_expired(root: Path, directory: Path, manifest: Facts) -> None:
    """Don't take what its signer said to take no more, unless an order gives it more time.

    Only what is new here is asked for its time, never what runs: this clock may be wrong. A Pi has none that
    runs without power, and wakes in the past: from before the release was made it says nothing, and the
    release is taken. The caller has looked at its own clock before, so here it's a matter of this device.
    """
    version = manifest["version"]
    made = datetime.strptime(version[:15], "%Y%m%d-%H%M%S").replace(tzinfo=timezone.utc).timestamp()
    end, now = moment(manifest.get("expires_at")), time.time()
    if end is None or not made <= now > end or current_version(root) == version:
        return
    if now > (ordered(root, directory, version)["expires"] or end):
        raise Faulty(
            f"{version} expired on {day(end)}, by the clock of this device, where it is {day(now)}: set the "
            f"clock, or give the release more time (`stress-vision promote --release {version}`)"
        )


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def damaged(directory: Path, manifest: Facts, names: Sequence[str]) -> list[str]:
    """The files among `names` that are absent or are not what the manifest says."""
    return [
        name
        for name in names
        if not (directory / name).is_file()
        or (directory / name).stat().st_size != manifest["files"][name]["bytes"]
        or sha256(directory / name) != manifest["files"][name]["sha256"]
    ]


def take_manifest(root: Path, args: Namespace) -> Facts:
    """Write down what a caller offers, and say what of it is missing here."""
    incoming = root / "incoming" / args.version
    if incoming.exists() and not incoming.is_dir():
        remove(incoming)
    incoming.mkdir(parents=True, exist_ok=True)
    texts = {"manifest.json": args.manifest, "manifest.sig": args.signature,
             ORDER: args.order, "rollback.sig": args.order_signature}  # fmt: skip
    for name, text in texts.items():
        if text is not None:
            write_atomically(incoming / name, text)
        elif (incoming / name).exists():
            remove(incoming / name)
    return need(root, args)


def need(root: Path, args: Namespace) -> Facts:
    """Which files of the uploaded manifest still have to be sent; refuses where the disk has no room."""
    incoming = root / "incoming" / args.version
    manifest, names = read_manifest(incoming)
    check_signature(root, incoming)
    refuse_older(root, incoming, manifest)
    refuse_expired(root, incoming, manifest)
    present = set(names) - set(damaged(root / "releases" / args.version, manifest, names))
    missing = [name for name in damaged(incoming, manifest, names) if name not in present]
    wanted = sum(manifest["files"][name]["bytes"] for name in missing) + DISK_RESERVE_BYTES
    if missing and shutil.disk_usage(root).free < wanted:
        prune(root, keep=args.version, young_s=0)
    free = shutil.disk_usage(root).free
    if missing and free < wanted:
        raise Faulty(
            f"no room for {args.version}: {free / 1e6:.0f} MB free under {root}, {wanted / 1e6:.0f} MB needed"
        )
    return {"missing": missing}


def put(root: Path, args: Namespace, content: bytes) -> Facts:
    """Write one file of an offered release; it gets its name only when whole."""
    incoming = root / "incoming" / args.version
    manifest, names = read_manifest(incoming)
    if args.name not in names:
        raise Refused(f"{args.name!r} is not a file that a device needs of {args.version}")
    part = incoming / f".{args.name}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(incoming / args.name)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    if damaged(incoming, manifest, [args.name]):
        raise Faulty(f"{args.name} of {args.version} arrived as something else")
    return {"name": args.name}


def stage(root: Path, args: Namespace) -> Facts:
    """Prove an upload and make it a release, in one rename; mend a release that has rotted."""
    incoming, release = root / "incoming" / args.version, root / "releases" / args.version
    manifest, names = read_manifest(incoming)
    check_signature(root, incoming)
    refuse_older(root, incoming, manifest)
    refuse_expired(root, incoming, manifest)
    if release.exists() and not release.is_dir():
        remove(release)
    rotten = damaged(release, manifest, names) if release.exists() else names
    broken = damaged(incoming, manifest, rotten)
    if broken:
        raise Faulty(f"upload of {args.version} is not what its manifest says: {', '.join(broken)}")
    release.parent.mkdir(exist_ok=True)
    if release.exists():
        for path in incoming.iterdir():
            path.replace(release / path.name)
        incoming.rmdir()
    else:
        incoming.rename(release)
    sync_directory(release)
    sync_directory(release.parent)
    prune(root, keep=args.version)
    return {"version": args.version, "mended": rotten if rotten != names else []}


def open_release(root: Path, args: Namespace) -> tuple[Path, Facts]:
    """The directory and the manifest of what is to be run, its files checked by hash.

    It is the named release, or whatever `current` leads to, as for the application.
    """
    directory = root / "current" if args.current else root / "releases" / args.version
    if not directory.is_dir():
        raise Faulty(f"there is no release {'current' if args.current else args.version} on this device")
    manifest, names = read_manifest(directory.resolve())
    if args.current and manifest["version"] != args.version:
        raise Faulty(f"current leads to {manifest['version']}, not to {args.version}")
    rotten = damaged(directory, manifest, names)
    if rotten:
        raise Faulty(f"files of {manifest['version']} differ from its manifest: {', '.join(rotten)}")
    return directory, manifest


def switch(root: Path, args: Namespace) -> Facts:
    """Point `current` at a staged release, on probation for `confirm_within_s` seconds."""
    refuse_if_pending(root)
    release = root / "releases" / args.version
    if not release.is_dir():
        raise Faulty(f"release {args.version} has not been staged on this device")
    manifest, names = read_manifest(release)
    refuse_older(root, release, manifest)
    refuse_expired(root, release, manifest)
    if damaged(release, manifest, names):
        raise Faulty(f"release {args.version} has rotted on this device: stage it again")
    here = current_version(root)
    pending = {
        "version": args.version,
        "previous": read_state(root)["previous"] if here == args.version else here,
        "token": os.urandom(16).hex(),
        "boot_id": boot_id(),
        "deadline": time.monotonic() + args.confirm_within_s,
    }
    link_program(root)
    write_state(root, pending=pending)
    start_watchdog(root)
    point_current(root, args.version)
    return {"version": args.version, "previous": pending["previous"], "token": pending["token"]}


def link_program(root: Path) -> None:
    """What a timer starts is the program that was sent last."""
    mine, link = Path(__file__).resolve(), root / "device.py"
    if mine.parent == root.resolve() / "program" and link.resolve() != mine:
        link_atomically(link, os.path.relpath(mine, root.resolve()))


def start_watchdog(root: Path) -> int:
    """A fork of this process, which outlives the SSH connection that asked for the switch; its process id."""
    with Path(os.devnull).open("w") as silence:
        return forked(lambda: watch(root.resolve(), 2.0), silence.fileno())


def forked(run: Callable[[], object], output: int) -> int:
    """Run something in a fork of this process, and return the fork's process id.

    It has a session of its own, says what it says to `output`, and has nothing else of ours: neither the
    caller's connection nor a lock. There are no threads here that it could miss.
    """
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.chdir("/")
        for ours, theirs in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(ours, theirs)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        run()
        sys.stdout.flush()
    finally:
        os._exit(0)


def watch(root: Path, lock_wait_s: float) -> Facts:
    """Wait until the switch is confirmed or its time is up, then settle; a sick disk is waited out."""
    noted: Facts | None = None
    while True:
        wait_s = 1.0
        with contextlib.suppress(OSError):
            state = read_state(root)
            noted = noted if "repaired" in state else state["pending"]
            if noted is None:
                return {}
            if expired(noted):
                settle_whoever_has_it(root, noted, lock_wait_s)
            wait_s = min(wait_s, max(0.05, noted["deadline"] - time.monotonic()))
        time.sleep(wait_s)


def settle_whoever_has_it(root: Path, noted: Facts, lock_wait_s: float) -> None:
    """Go back; a command that keeps the lock beyond the deadline is ended first."""
    try:
        settle_noted(root, noted, lock_wait_s)
    except Busy:
        end_holder(root / "lock")
        with contextlib.suppress(Busy):
            settle_noted(root, noted, lock_wait_s)


def settle_noted(root: Path, noted: Facts, lock_wait_s: float) -> None:
    """Settle; by the note that was read before, where it can't be read any more."""
    with locked(root, lock_wait_s):
        if "repaired" in read_state(root):
            return_from(root, noted)
        settle(root)


def confirm(root: Path, args: Namespace) -> Facts:
    """Take the note away: the release stays. Late or foreign confirmations are refused."""
    state = read_state(root)
    pending = state["pending"]
    if not pending or pending["token"] != args.token or current_version(root) != pending["version"]:
        last = state["last_return"]
        why = last["why"] if last else "never switched"
        raise Refused(f"nothing to confirm: current is {current_version(root)} ({why})")
    release = root / "releases" / pending["version"]
    sequence = max(int(state["sequence"]), sequence_of(read_manifest(release)[0]))
    write_state(root, pending=None, previous=pending["previous"], last_return=None, sequence=sequence)
    mark_proven(release)
    prune(root, keep=pending["version"])
    prune_programs(root)
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
    left = current_version(root) != args.version
    if not left:
        raise Faulty(f"still on {args.version}: {read_state(root)['last_return']['why']}")
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
    return os.uname().machine


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


def clock_mhz() -> int | None:
    kilohertz = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return int(kilohertz) // 1000 if kilohertz and kilohertz.isdigit() else None


def health() -> Facts:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return {
        "temperature_c": temperature_c(), "throttled": throttled(), "load_per_core": round(load, 2),
        "clock_mhz": clock_mhz(),
        "governor": first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }  # fmt: skip


def installed_runtime() -> tuple[str, str] | tuple[None, None]:
    """(package, version) of the runtime without the cost of importing it, or (None, None)."""
    for module, package in RUNTIMES:
        if version := installed_version(module):
            return package, version
    return None, None


def installed_version(module: str) -> str | None:
    """Of the package that a module comes with: `importlib.metadata` takes longer than all else here."""
    for folder in sys.path:
        for path in Path(folder).glob(f"{module}-*.*-info"):
            return path.name[len(module) + 1 :].rpartition(".")[0].partition("-")[0]
    return None


def runs_with() -> str:
    """What a model runs with here: another Python or runtime has to prove it anew."""
    return f"Python {python_version()}, {' '.join(map(str, installed_runtime()))}"


def python_version() -> str:
    return sys.version.split()[0]


def machine() -> Facts:
    package, version = installed_runtime()
    return {
        "model": machine_model(),
        "architecture": os.uname().machine,
        "system": f"{os.uname().sysname} {os.uname().release}",
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": python_version(),
        "runtime": package,
        "runtime_version": version,
    }


def settled(root: Path, args: Namespace) -> Facts:
    """What holds now. Takes the lock, from whoever hangs, only to return from a switch whose time is up."""
    pending = read_state(root)["pending"]
    if pending and expired(pending):
        with contextlib.suppress(OSError):
            settle_whoever_has_it(root, pending, min(2.0, args.lock_wait_s))
    state, here = read_state(root), current_version(root)
    return {
        "current": here,
        "current_manifest": manifest_digest(root, here),
        "pending": state["pending"] and {name: state["pending"][name] for name in ("version", "previous")},
        "last_return": state["last_return"],
        "repaired": state.get("repaired"),
        "sequence": state["sequence"],
        "signed_only": takes_signed_only(root),
        "signers": signers_count(root),
        "clock": time.time(),
        "health": health(),
    }


def inspect(root: Path, args: Namespace) -> Facts:
    """What holds now, with what nobody reads each night."""
    return {
        **settled(root, args),
        "previous": read_state(root)["previous"],
        "disk_free_bytes": shutil.disk_usage(root if root.exists() else "/").free,
        "machine": machine(),
    }


def manifest_digest(root: Path, version: str | None) -> str | None:
    with contextlib.suppress(OSError):
        return sha256(root / "releases" / version / "manifest.json") if version else None
    return None


def load_model(directory: Path, manifest: Facts, args: Namespace) -> tuple[Any, str]:
    """A release's model in the runtime, as `open_model` gives it."""
    minimum = manifest.get("min_runtime_version") or ""
    with the_models_fault(manifest["version"]):
        return open_model(directory / manifest["model"], minimum, args.threads, args.delegate)


def open_model(path: Path, minimum: str, threads: int, delegate: str) -> tuple[Any, str]:
    """(interpreter, runtime) as the application will run it: with the runtime's default delegate, or that
    of the library `delegate`, which the runtime's name then tells, too."""
    for module, package in RUNTIMES:
        try:
            runtime = importlib.import_module(f"{module}.interpreter")
        except ImportError:
            continue
        version = installed_version(module) or "of unknown version"
        refuse_if_too_old(package, version, minimum)
        chosen = {"experimental_delegates": [load_library(runtime, delegate)]} if delegate else {}
        interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads, **chosen)
        interpreter.allocate_tensors()
        return interpreter, f"{package} {version}" + (f" with {Path(delegate).name}" if delegate else "")
    raise Faulty(f"{sys.executable} has no runtime: pip install ai-edge-litert (or tflite-runtime) into it")


@contextlib.contextmanager
def the_models_fault(name: str) -> Generator[None, None, None]:
    """What the runtime throws is about the model that it was given."""
    try:
        yield
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        raise Refused(f"the runtime can't run {name}: {error}") from error


def load_library(runtime: Any, delegate: str) -> Any:
    """The delegate of a library such as libedgetpu.so.1; refuses where it is missing or finds no device."""
    try:
        return runtime.load_delegate(delegate)
    except (OSError, ValueError) as error:
        why = str(error) or "it found no accelerator"
        raise Faulty(
            f"delegate {delegate} can't be loaded: {why}; is its library installed, and the accelerator "
            "plugged in? `delegate` in the inventory names it"
        ) from error


def refuse_if_too_old(package: str, version: str, minimum: str) -> None:
    """The model's own minimum counts TensorFlow versions; only tflite-runtime is numbered like that."""
    if package == "tflite-runtime" and numbers(version) < numbers(minimum):
        raise Faulty(
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
    directory, manifest = open_release(root, args)
    interpreter, runtime = load_model(directory, manifest, args)
    inputs, expected = golden_inputs(directory, manifest)
    with the_models_fault(manifest["version"]):
        outputs = [run_frame(interpreter, inputs[number : number + 1])[0] for number in range(len(inputs))]
        return compare_golden(outputs, expected, runtime, delegate(interpreter), manifest)


def compare_golden(
    outputs: Sequence[NDArray[Any]], expected: NDArray[Any], runtime: str, by: str | None, manifest: Facts
) -> Facts:
    import numpy as np

    got, made = np.stack(outputs).astype(int), manifest["golden"]
    off = abs(got - expected).max(1)
    exact = runtime == made["runtime"] and made.get("delegate") in (None, by)
    allowed = 0 if exact else made["tolerance_lsb"]
    if off.any() if exact else not kin(got, expected.astype(int), allowed):
        raise Refused(
            f"{manifest['version']} answers otherwise here than where it was made: "
            f"{(off > allowed).sum()} of {len(off)} golden images differ by more than {allowed} "
            f"steps of 1/256, up to {off.max()} ({runtime} here, {made['runtime']} there)"
        )
    return {"images": len(off), "worst_lsb": int(off.max()), "allowed_lsb": allowed, "runtime": runtime}


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
    """Latency of one frame in milliseconds over `runs` frames and `min_s` seconds, after a warm-up.

    Load time and first inference are those of this fresh process, peak memory is all of it.
    """
    directory, manifest = open_release(root, args)
    inputs, _ = golden_inputs(directory, manifest)
    frames = [inputs[number : number + 1] for number in range(len(inputs))]
    with the_models_fault(manifest["version"]):
        return measured(lambda: load_model(directory, manifest, args), lambda interpreter: frames, args)


def time_file(root: Path, args: Namespace) -> Facts:
    """Latency of an uploaded .tflite that is no release, on noise; the upload goes, nothing else changes."""
    folder = upload_to_time(root, args.upload)
    try:
        (path,) = folder.iterdir()
        return measured(
            lambda: open_model(path, "", args.threads, args.delegate),
            lambda interpreter: noise(interpreter.get_input_details()[0], 8),
            args,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def upload_to_time(root: Path, name: str) -> Path:
    if not FILE_NAME.fullmatch(name) or VERSION.fullmatch(name):
        raise Refused(f"{name!r} is no name for an upload to time")
    if takes_signed_only(root):
        raise Refused("this device runs signed releases only: time the file on another one")
    return root / "incoming" / name


def noise(tensor: Facts, count: int) -> list[Any]:
    """Frames for an input tensor: its dtype's bytes, or 0 to 255 where it takes real values."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(0, 256, (count, *tensor["shape"]), np.uint8)
    return [*(drawn.view(np.int8) if tensor["dtype"] == np.int8 else drawn.astype(tensor["dtype"]))]


def measured(
    load: Callable[[], tuple[Any, str]], frames_for: Callable[[Any], Sequence[Any]], args: Namespace
) -> Facts:
    """The figures of a model, from its loading on."""
    before, started = health(), time.perf_counter()
    interpreter, runtime = load()
    load_s = time.perf_counter() - started
    frames = frames_for(interpreter)
    first_ms = timed(interpreter, frames[0])
    warmup = warm_up(interpreter, frames, args)
    times, cpu_share = timed_frames(interpreter, frames, args)
    return {
        **summary(times), "runs": len(times), "warmup": warmup, "threads": args.threads,
        "load_ms": 1000 * load_s, "first_ms": first_ms, "seconds": sum(times) / 1000,
        "runtime": runtime, "delegate": delegate(interpreter), "cpu_share": cpu_share,
        "peak_memory_bytes": peak_memory_bytes(),
        "health_before": before, "health_after": health(), "machine": machine(),
    }  # fmt: skip


def timed(interpreter: Any, frame: NDArray[np.uint8]) -> float:
    started = time.perf_counter_ns()
    run_frame(interpreter, frame)
    return (time.perf_counter_ns() - started) / 1e6


def warm_up(interpreter: Any, frames: Sequence[NDArray[np.uint8]], args: Namespace) -> int:
    """Run unmeasured frames until their time is up and they are steady, for half a second more at most.

    Caches fill and the governor raises the clock; ten frames a tenth off the ten before are not steady.
    """
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < args.warmup or time.perf_counter() - started < args.warmup_s:
        times.append(timed(interpreter, frames[len(times) % len(frames)]))
    patience_s = args.warmup_s + 0.5 if args.warmup_s else 0.0
    while time.perf_counter() - started < patience_s and not steady(times):
        times.append(timed(interpreter, frames[len(times) % len(frames)]))
    return len(times)


def steady(times: Sequence[float]) -> bool:
    last, before = sum(times[-10:]), sum(times[-20:-10])
    return abs(last - before) <= 0.1 * before


def timed_frames(
    interpreter: Any, frames: Sequence[NDArray[np.uint8]], args: Namespace
) -> tuple[list[float], float]:
    """(milliseconds of each frame, our share of a core meanwhile: this thread's, whatever others help)."""
    times: list[float] = []
    cpu, wall = time.thread_time(), time.perf_counter()
    while len(times) < args.runs or time.perf_counter() - wall < args.min_s:
        times.append(timed(interpreter, frames[len(times) % len(frames)]))
    cpu_share = (time.thread_time() - cpu) / (time.perf_counter() - wall)
    return times, round(min(cpu_share, 1.0), 3)


def peak_memory_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prove(root: Path, args: Namespace) -> Facts:
    """Golden outputs, then latency; nobody else measures here meanwhile."""
    with locked(root, args.lock_wait_s, "measuring"):
        checked = check(root, args)
        return {**benchmark(root, args), **checked}


def summary(times: Sequence[float]) -> dict[str, float]:
    import numpy as np

    mean = float(np.mean(times))
    # what np.percentile gives, which imports all of numpy.ma first, longer than a hundred frames take
    at = np.array([0.5, 0.95, 0.99]) * (len(times) - 1)
    p50, p95, p99 = (float(value) for value in np.interp(at, np.arange(len(times)), np.sort(times)))
    std = float(np.std(times, ddof=1)) if len(times) > 1 else 0.0
    return {"mean_ms": mean, "std_ms": std, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "fps": 1000 / mean}


def delegate(interpreter: Any) -> str | None:
    """Whether XNNPACK took part of the graph; None where the runtime doesn't tell (a private call)."""
    with contextlib.suppress(Exception):
        return (
            "xnnpack" if any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()) else "none"
        )
    return None


# ---------------------------------------------------------------- a session: one command after the other


class Gone(Exception):
    """Whoever asked is no longer there."""


class Caller:
    """Whoever speaks to `serve`: lines in, bytes in, lines out."""

    def __init__(self) -> None:
        self._arrived = bytearray()

    def hears(self, wait_s: float, *others: int) -> list[int]:
        """Wait for anything from the caller or from `others`; Gone where the caller has left."""
        ready, _, _ = select.select([0, *others], [], [], max(0.0, wait_s))
        if 0 in ready:
            got = os.read(0, 1 << 16)
            if not got:
                raise Gone
            self._arrived += got
        return ready

    def line(self, wait_s: float) -> bytes:
        while b"\n" not in self._arrived:
            if not self.hears(wait_s) or len(self._arrived) > LINE_BYTES:
                raise Gone
        line, _, rest = bytes(self._arrived).partition(b"\n")
        self._arrived = bytearray(rest)
        return line

    def take(self, size: int, wait_s: float) -> bytes:
        while len(self._arrived) < size:
            if not self.hears(wait_s):
                raise Gone
        taken, self._arrived = bytes(self._arrived[:size]), self._arrived[size:]
        return taken

    def say(self, result: Facts) -> None:
        print(json.dumps(result, separators=(",", ":")), flush=True)


def serve(root: Path, args: Namespace) -> None:
    """Introduce ourselves, then answer until the caller has left or is silent."""
    caller = Caller()
    with contextlib.suppress(OSError):
        link_program(root)
    mine = {"protocol": PROTOCOL, "program": sha256(Path(__file__)), "agent": args.agent,
            "waiting": waiting_program(root) if args.agent else None}  # fmt: skip
    seen = explained("inspect", lambda: {**settled(root, args), "proven_since": proven_since(root)})
    told = {**mine, **seen}  # what is nothing doesn't go over the air each night
    caller.say({name: value for name, value in told.items() if value is not None or name == "current"})
    signal.alarm(0)
    with contextlib.suppress(Gone, BrokenPipeError):
        while True:
            request = caller.line(min(IDLE_S, args.within_s))
            caller.say(explained("request", lambda line=request: serve_one(root, args, line, caller)))


def serve_one(root: Path, args: Namespace, line: bytes, caller: Caller) -> Facts:
    """Answer one request; its time box ends the whole session."""
    request = json.loads(line)
    command, within_s = request.pop("command"), float(request.pop("within_s"))
    if command not in REQUESTS:
        raise Refused(f"{command!r} is no command; there are {', '.join(REQUESTS)}")
    wait_s = min(args.lock_wait_s, within_s / 2)  # to wait for somebody else is not to hang
    own = {"command": command, "within_s": within_s, "lock_wait_s": wait_s}
    asked = Namespace(**{**vars(args), **DEFAULTS, **request, **own})
    signal.alarm(int(within_s) + 1)
    try:
        refuse_foreign(getattr(asked, "version", None))
        if command in TAKE_BYTES:
            content = caller.take(min(asked.bytes, FILE_BYTES), within_s)
            return run_command(root, asked, lambda root, args: TAKE_BYTES[command](root, args, content))
        if command in ("prove", "time"):
            signal.alarm(int(within_s) + 15)  # the child's own time box comes first
            if command == "time":
                put_to_time(root, asked, caller.take(min(asked.bytes, FILE_BYTES), within_s))
            return run_apart(root, asked, caller)
        return run_command(root, asked, REQUESTS[command])
    finally:
        signal.alarm(0)


def put_to_time(root: Path, args: Namespace, content: bytes) -> None:
    folder = upload_to_time(root, args.upload)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)


def run_apart(root: Path, args: Namespace, caller: Caller) -> Facts:
    """Run a model in a process of its own; it ends with its time box, or when the caller leaves."""
    import_runtime()
    name, (hears, says) = args.upload if args.command == "time" else args.version, os.pipe()
    child = forked(lambda: run_bounded(root, args), says)
    os.close(says)
    try:
        said = last_words(hears, name, args.within_s, caller)
    finally:
        os.close(hears)
        status = end_group(child)
    found = understood(name, status, said)
    if found.get("ok") and args.current:
        renew_mark(root, args.version)
    return found


def import_runtime() -> None:
    """Once for all forks; one thread, so that they are whole. What can't be imported is told by the fork."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for module, _ in RUNTIMES:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{module}.interpreter")
            return


def run_bounded(root: Path, args: Namespace) -> None:
    """In the fork: answer one command, whatever the model does with this process."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the session
    signal.alarm(int(args.within_s) + 1)
    with contextlib.suppress(OSError):  # where memory runs out, this goes before the application
        Path("/proc/self/oom_score_adj").write_text("1000")
    print(json.dumps(explained(args.command, lambda: COMMANDS[args.command](root, args))))


def renew_mark(root: Path, version: str) -> None:
    """A release that was confirmed here once has proven itself again, perhaps with another runtime."""
    if (root / "releases" / version / PROVEN).exists() and not read_state(root)["pending"]:
        mark_proven(root / "releases" / version)


def last_words(output: int, name: str, within_s: float, caller: Caller) -> bytes:
    """The end of what a child said, once it has closed its output."""
    said, deadline = b"", time.monotonic() + within_s
    while time.monotonic() < deadline:
        if output in caller.hears(deadline - time.monotonic(), output):
            got = os.read(output, 1 << 16)
            if not got:
                return said
            said = (said + got)[-LINE_BYTES:]
    raise Hung(f"{name} hangs: no end within {within_s:g} s")


def end_group(child: int) -> int:
    """End a child with all that it has started; its exit status, or the negative number of a signal.

    One that has closed its output has ended by itself: that is its status then.
    """
    for end in (os.killpg, os.kill):  # it may not have come to a group of its own yet
        with contextlib.suppress(ProcessLookupError):
            end(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def understood(version: str, status: int, said: bytes) -> Facts:
    """A child's answer; one that was ended by a signal had none."""
    if status == -signal.SIGALRM:
        raise Hung(f"{version} hangs: ended by its time box")
    last = said.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    if status < 0:
        ended = f"{version} crashes: ended by {signal.Signals(-status).name}"
        raise Refused(f"{ended}; {last[-200:]}" if last else ended)
    try:
        return json.loads(last)
    except ValueError:
        raise Faulty(f"no answer from the proof of {version}: status {status}, {last[-200:]}") from None


# ---------------------------------------------------------------- the command line

COMMANDS: dict[str, Callable[[Path, Namespace], Facts]] = {
    "inspect": inspect, "settle": settled, "need": need, "stage": stage, "check": check,
    "benchmark": benchmark, "prove": prove, "time": time_file, "switch": switch, "confirm": confirm,
    "revert": revert,
}  # fmt: skip
"""`settle` is for a timer; whoever looks returns from an expired switch first, as it does."""
TAKE_BYTES = {"put": put, "program": take_program}
"""Requests that are followed by a file."""
REQUESTS = {"offer": take_manifest, "signers": take_signers, **COMMANDS, **dict.fromkeys(TAKE_BYTES)}
"""What `serve` answers: files arrive through it, too."""
CHANGING = ("offer", "put", "signers", "program", "need", "stage", "switch", "confirm", "revert")
"""Commands that hold the lock; whatever runs a model doesn't."""
RUN_A_MODEL = ("check", "benchmark", "prove", "time")
DEFAULTS: Facts = {
    "delegate": "", "threads": 1, "runs": 100, "min_s": 0.0, "warmup": 10, "warmup_s": 0.0, "current": False,
    "confirm_within_s": 120.0, "why": "asked to", "signature": None, "order": None, "order_signature": None,
}  # fmt: skip


def parse(arguments: Sequence[str]) -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--lock-wait-s", type=float, default=30.0)
    parser.add_argument("--within-s", type=float, default=600.0, help="the kernel ends a command after this")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in [*COMMANDS, "watch", "serve", "install"]:
        command = commands.add_parser(name)
        if name in ("need", "stage", "check", "benchmark", "prove", "switch", "revert"):
            command.add_argument("--version", required=True)
        if name in ("check", "benchmark", "prove"):
            command.add_argument("--current", action="store_true", help="through the link `current`")
        if name in RUN_A_MODEL:
            command.add_argument("--threads", type=int, default=DEFAULTS["threads"])
            command.add_argument("--delegate", default="", help="library of a delegate, as of a Coral")
        if name in ("benchmark", "prove", "time"):
            for option, kind in (("runs", int), ("warmup", int), ("min_s", float), ("warmup_s", float)):
                name = "--" + option.replace("_", "-")
                command.add_argument(name, type=kind, default=DEFAULTS[option])
    commands.choices["time"].add_argument("--upload", required=True, help="folder below incoming")
    commands.choices["switch"].add_argument(
        "--confirm-within-s", type=float, default=DEFAULTS["confirm_within_s"]
    )
    commands.choices["confirm"].add_argument("--token", required=True)
    commands.choices["serve"].add_argument(
        "--agent", action="store_true", help="nobody replaces this program"
    )
    commands.choices["install"].add_argument(
        "--signers", type=Path, required=True, help="who may sign programs: a file that only its owner writes"
    )
    commands.choices["revert"].add_argument("--why", default=DEFAULTS["why"])
    return parser.parse_args(arguments)


def run_command(root: Path, args: Namespace, command: Callable[[Path, Namespace], Facts] | None) -> Facts:
    """One command, under the lock where it changes something."""
    assert command
    if args.command not in CHANGING:
        return command(root, args)
    with locked(root, args.lock_wait_s):
        settle(root)
        if args.command in ("offer", "put", "need", "stage"):
            refuse_if_pending(root)
        return command(root, args)


def answer(args: Namespace) -> Facts:
    root = args.root.resolve()
    if args.command == "watch":
        return watch(root, args.lock_wait_s)
    if args.command == "install":
        return install(root, args)
    refuse_foreign(getattr(args, "version", None))
    return run_command(root, args, COMMANDS[args.command])


def refuse_foreign(version: str | None) -> None:
    """A version becomes a folder's name."""
    if version is not None and not VERSION.fullmatch(version):
        raise Refused(f"{version!r} is not a release's version")


def explained(command: str, run: Callable[[], Facts]) -> Facts:
    """What `run` returns, or why it doesn't. Only a Refused is about the release."""
    try:
        return {"ok": True, **run()}
    except Refused as refusal:
        return {"ok": False, "kind": refusal.kind, "error": str(refusal)}
    except Gone:
        raise
    except OSError as error:
        said = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        return {"ok": False, "kind": "faulty", "error": f"{command}: {said}"}
    except Exception as error:
        return {"ok": False, "kind": "error", "error": f"{command}: {type(error).__name__}: {error}"}


def main(arguments: Sequence[str]) -> int:
    return run(parse(arguments))


def run(args: Namespace) -> int:
    if args.command == "serve":
        serve(args.root.resolve(), args)
        return 0
    result = explained(args.command, lambda: answer(args))
    print(json.dumps(result))
    return 0 if result["ok"] else 1


def end_in_time(args: Namespace) -> Namespace:
    """Have the kernel end this process after its time box, whatever it hangs in."""
    if args.command != "watch":  # `serve` has a time box for each request, and this one until its greeting
        signal.alarm(int(args.within_s) + 1)
    return args


if __name__ == "__main__":
    ended = run(end_in_time(parse(sys.argv[1:])))
    sys.stdout.flush()
    os._exit(ended)  # to take numpy and the runtime down piece by piece costs a fifth of loading them
