"""The inventory: what it takes, and how it says what it doesn't."""

import base64
from pathlib import Path

import pytest

from deployments.fleet import EXAMPLE, key_fingerprint, load_fleet
from storage.errors import FleetError, InputError
from tests.ssh_devices import new_key


def pin(number: int) -> str:
    """A host key that isn't that of another number."""
    raw = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(raw).decode()}"


def inventory(folder: Path, devices: str, defaults: str = 'user = "pi"\nkey_file = "key"') -> Path:
    (folder / "key").touch()
    path = folder / "fleet.toml"
    path.write_text(f"[defaults]\n{defaults}\n{devices}")
    return path


def device(name: str = "a", **fields: object) -> str:
    fields = {"name": name, "host": f"{name}.example", "host_key": pin(ord(name[0])), **fields}
    lines = [f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in fields.items()]
    return "\n".join(["[[devices]]", *lines, ""])


def test_defaults_hold_unless_a_device_says_otherwise(tmp_path: Path) -> None:
    first, second = load_fleet(inventory(tmp_path, device("a") + device("b", port=2222, user="edge"))).devices
    assert (first.user, first.port, first.root, first.python) == ("pi", 22, "/opt/stress-vision", "python3")
    assert (second.user, second.port) == ("edge", 2222)
    assert first.key_file == tmp_path / "key"


def test_a_group_is_a_part_of_the_fleet(tmp_path: Path) -> None:
    fleet = load_fleet(inventory(tmp_path, device("a", group="x") + device("b")))
    assert [one.name for one in fleet.group("x").devices] == ["a"]


def test_an_unknown_group_is_an_error_that_names_the_groups_there_are(tmp_path: Path) -> None:
    fleet = load_fleet(inventory(tmp_path, device("a", group="press") + device("b", group="canteen")))
    with pytest.raises(FleetError, match=r"'pres'.*groups: canteen, press$"):
        fleet.group("pres")


def test_the_shipped_example_is_a_valid_inventory(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "fleet.toml").write_text(EXAMPLE.read_text().replace("~/.ssh/stress_vision_ed25519", "key"))
    assert [one.name for one in load_fleet(tmp_path / "fleet.toml").devices] == ["line-1", "line-2"]


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (device(host_key=""), r"device a: host_key.*ssh-keyscan -t ed25519 a\.example.*console"),
        (device(host_key="ssh-rsa AAAA"), r"ed25519.*ssh-keyscan"),
        (device().replace("host_key", "#"), r"host_key is missing.*ssh-keyscan -t ed25519 a\.example"),
        (device(color="red"), r"device a: color"),
        (device(port=70000), r"device a: port"),
        (device().replace("[[devices]]", "[[devices]]\nport = 0x" + "f" * 5000, 1), r"device a: port"),
        (device(root="opt/x"), r"device a: root"),
        (device(name="../a"), r"device \.\./a: name"),
        (device("a") + device("a", host="b"), r"two devices are called a"),
        (device("a") + device("b", host="a.example"), r"b is at the same host, port and root"),
        (device("a") + device("b", host_key=pin(ord("a"))), r"a and b show the same host key\. If they"),
        (device(key_file="none"), r"device a: there is no key_file .*none"),
        ("", r"names no device"),
        ("[device]\n", r"but device: "),
        ("[devices]\n", r"but devices: .* valid list"),
        ("[[devices]\n", r"can't be read"),
    ],
)
def test_what_is_wrong_with_an_inventory_is_said_with_its_place(
    tmp_path: Path, devices: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        load_fleet(inventory(tmp_path, devices))


def test_a_missing_inventory_points_to_the_example(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fleet --example"):
        load_fleet(tmp_path / "none.toml")


def test_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    import subprocess

    key = new_key(tmp_path / "key")
    said = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True, timeout=20
    )
    assert key_fingerprint(key) == said.stdout.split()[1]
