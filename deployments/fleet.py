"""The inventory: which devices there are, how to reach them, and the host key that each must show.

In: a TOML file like `fleet.example.toml`: one `[defaults]` table, one `[[devices]]` table a device.
Out: a `Fleet` of `Device`s. Everything unknown, double or missing is refused with the way to mend it.
"""

import base64
import binascii
import hashlib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from storage.errors import FleetError, InputError
from storage.files import read_bounded

EXAMPLE = Path(__file__).with_name("fleet.example.toml")
"""An inventory to start from, and how a device is prepared."""


class Device(BaseModel, frozen=True, extra="forbid", title="Device"):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Unique name, used in reports.")
    host: str = Field(min_length=1, description="Host name or address.")
    port: int = Field(default=22, ge=1, le=65535, description="SSH port.")
    user: str = Field(min_length=1, description="Login user: needs to write under root, nothing more.")
    key_file: Path = Field(description="Private key file (OpenSSH format, no passphrase).")
    host_key: str = Field(description='Pinned host key, "ssh-ed25519 AAAA…".')
    root: str = Field(
        default="/opt/stress-vision", pattern=r"^/", description="Absolute folder of the releases."
    )
    python: str = Field(default="python3", min_length=1, description="Python ≥ 3.9 that has the runtime.")
    delegate: str = Field(
        default="",
        pattern=r"^(/.*)?$",
        description="Library of a delegate that runs the model, such as a Coral's "
        "/usr/lib/aarch64-linux-gnu/libedgetpu.so.1; empty: the runtime's own.",
    )
    signed: bool = Field(
        default=False, description="Refuse the device while it takes unsigned releases (no allowed_signers)."
    )
    group: str = Field(
        default="default", description="Free label, for reports and for rolling out to a part."
    )

    @field_validator("host_key")
    @classmethod
    def _is_an_ed25519_key(cls, pin: str) -> str:
        key_fingerprint(pin)
        return " ".join(pin.split()[:2])


class Fleet(BaseModel, frozen=True, title="Fleet"):
    devices: tuple[Device, ...] = Field(min_length=1)

    def __len__(self) -> int:
        return len(self.devices)

    def device(self, name: str) -> Device:
        """The device of that name; FleetError names the devices that there are."""
        for device in self.devices:
            if device.name == name:
                return device
        names = ", ".join(device.name for device in self.devices[:20])
        raise FleetError(f"the inventory has no device {name!r}; its devices: {names}")

    def group(self, name: str) -> "Fleet":
        """The devices of one group; FleetError names the groups that there are."""
        devices = tuple(device for device in self.devices if device.group == name)
        if not devices:
            groups = ", ".join(sorted({device.group for device in self.devices}))
            raise FleetError(f"no device of the inventory is in group {name!r}; its groups: {groups}")
        return Fleet(devices=devices)


def key_fingerprint(key: str) -> str:
    """OpenSSH's SHA256 fingerprint of "ssh-ed25519 AAAA…"; ValueError where it is not such a key."""
    kind, _, blob = key.strip().partition(" ")
    try:
        raw = base64.b64decode(blob.split()[0], validate=True)
    except (binascii.Error, IndexError):
        raise ValueError('expected "ssh-ed25519 AAAA…", the key in base64 after its kind') from None
    if kind != "ssh-ed25519" or not raw.startswith(b"\0\0\0\x0bssh-ed25519") or len(raw) != 51:
        raise ValueError(f'expected an ed25519 key, "ssh-ed25519 AAAA…", not one of kind {kind!r}')
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def load_fleet(path: Path) -> Fleet:
    """Read an inventory. A relative `key_file` counts from the inventory's folder; `~` is the home folder."""
    try:
        content = tomllib.loads(read_bounded(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"there is no inventory {path}; `stress-vision fleet --example` prints one to start from"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"inventory {path} can't be read: {error}") from error
    tables = _tables(path, content)
    devices = tuple(_device(path, tables.defaults, table) for table in tables.devices)
    if not devices:
        raise InputError(f"inventory {path} names no device; add a [[devices]] table for each")
    _refuse_doubles(path, devices)
    return Fleet(devices=devices)


class _Tables(BaseModel, extra="forbid"):
    defaults: dict[str, Any] = Field(default={})
    devices: list[dict[str, Any]] = Field(default=[])


def _tables(path: Path, content: dict[str, Any]) -> _Tables:
    try:
        return _Tables.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(
            f"inventory {path}: expected one [defaults] and [[devices]] tables, but {problems}"
        ) from None


def _device(path: Path, defaults: dict[str, Any], table: dict[str, Any]) -> Device:
    given = table.get("name")
    name = given if isinstance(given, str) else "(without a name)"
    try:
        if "host_key" not in table:
            raise InputError(f"inventory {path}, device {name}: host_key is missing. {_how_to_pin(table)}")
        device = Device.model_validate({**defaults, **table})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        hint = f" {_how_to_pin(table)}" if "host_key" in problems else ""
        raise InputError(f"inventory {path}, device {name}: {problems}.{hint}") from None
    key_file = path.parent / device.key_file.expanduser()
    if not key_file.is_file():
        raise InputError(f"inventory {path}, device {name}: there is no key_file {key_file}")
    return device.model_copy(update={"key_file": key_file})


def _how_to_pin(table: dict[str, Any]) -> str:
    given = table.get("port")
    port = f"-p {given} " if isinstance(given, int) and 0 < given < 65536 else ""
    host = given if isinstance(given := table.get("host"), str) else "HOST"
    return (
        f"Get it with `ssh-keyscan -t ed25519 {port}{host}`, and compare it with "
        "/etc/ssh/ssh_host_ed25519_key.pub on the device's own console before you trust it"
    )


def _refuse_doubles(path: Path, devices: tuple[Device, ...]) -> None:
    names: set[str] = set()
    places: set[tuple[str, int, str]] = set()
    machines: dict[str, Device] = {}
    for device in devices:
        place = (device.host, device.port, device.root)
        if device.name in names:
            raise InputError(f"inventory {path}: two devices are called {device.name}; names are unique")
        if place in places:
            raise InputError(f"inventory {path}: {device.name} is at the same host, port and root as another")
        first = machines.setdefault(device.host_key, device)
        if (first.host, first.port) != (device.host, device.port):
            raise InputError(
                f"inventory {path}: {first.name} and {device.name} show the same host key. If they are one "
                "device under two addresses, keep one of them. If one's SD card is a copy of the other's, "
                "whoever has one can pass for the other: on the copy run `sudo rm "
                "/etc/ssh/ssh_host_* && sudo dpkg-reconfigure openssh-server`, and pin its new key"
            )
        names.add(device.name)
        places.add(place)
