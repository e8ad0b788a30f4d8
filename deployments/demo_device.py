"""A device on this machine, for the demo: an SSH server inside this process, no sshd, no root, no Pi.

In: a folder. Out: the path of an inventory with one device, reached the same way as a real one: pinned
host key, key file, and the same program run as processes of this user. Its files stay in the folder.

The one other module that imports paramiko: a server has no place beside the client of real devices.
It listens on loopback only, opens for one fresh key only, and runs what the holder of that key asks.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko import common

_ACCEPT_S = 0.2
_CHANNEL_S = 30.0
_COMMAND_S = 600.0
_USER = "demo"


@contextlib.contextmanager
def demo_device(folder: Path) -> Generator[Path]:
    """Serve a device out of `folder` until the block ends; yields its inventory, `folder/fleet.toml`."""
    folder.mkdir(parents=True, exist_ok=True)
    host_key, client_key = _new_key(folder / "host_key"), _new_key(folder / "client_key")
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_ACCEPT_S)
        serving = threading.Thread(target=_serve, args=(listener, host_key, client_key, ending), daemon=True)
        serving.start()
        try:
            yield _write_inventory(folder, listener.getsockname()[1], host_key)
        finally:
            ending.set()
            serving.join()


def _serve(
    listener: socket.socket, host_key: paramiko.PKey, client_key: paramiko.PKey, ending: threading.Event
) -> None:
    transports: list[paramiko.Transport] = []
    while not ending.is_set():
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(connection)
            transports.append(transport)
            transport.add_server_key(host_key)
            # with an event it returns at once: nobody who only connects can hold the others up
            transport.start_server(event=threading.Event(), server=_OneKey(client_key))
    for transport in transports:
        transport.close()


class _OneKey(paramiko.ServerInterface):
    """Lets one key in, and runs commands for it."""

    def __init__(self, key: paramiko.PKey):
        self._key = key

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        welcome = username == _USER and key.asbytes() == self._key.asbytes()
        return common.AUTH_SUCCESSFUL if welcome else common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        welcome = kind == "session"
        return common.OPEN_SUCCEEDED if welcome else common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_run, args=(channel, command.decode()), daemon=True).start()
        return True


def _run(channel: paramiko.Channel, command: str) -> None:
    """Run a command as a shell would, and end it when the client has left."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException, subprocess.TimeoutExpired), channel:
        pipe = subprocess.PIPE
        with subprocess.Popen(["/bin/sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe) as process:
            feeding = threading.Thread(target=_feed, args=(channel, process), daemon=True)
            feeding.start()
            complaining = threading.Thread(
                target=_pass_on, args=(process.stderr, channel.sendall_stderr), daemon=True
            )
            complaining.start()
            _pass_on(process.stdout, channel.sendall)
            complaining.join(_CHANNEL_S)
            channel.send_exit_status(process.wait(_COMMAND_S))


def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
    """What the client sends is the command's input; the end of one is the end of the other."""
    assert process.stdin
    with contextlib.suppress(OSError, EOFError), process.stdin as stdin:
        while content := channel.recv(1 << 16):
            stdin.write(content)
            stdin.flush()


def _pass_on(output: IO[bytes] | None, send: Callable[[bytes], object]) -> None:
    assert output
    with contextlib.suppress(OSError, EOFError):
        while content := os.read(output.fileno(), 1 << 16):
            send(content)


def _new_key(path: Path) -> paramiko.PKey:
    """A fresh ed25519 key, readable by its owner only; paramiko itself can't make one."""
    content = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def _write_inventory(folder: Path, port: int, host_key: paramiko.PKey) -> Path:
    fields = {
        "name": "this-machine",
        "host": "127.0.0.1",
        "port": port,
        "user": _USER,
        "key_file": str((folder / "client_key").absolute()),
        "host_key": f"{host_key.get_name()} {host_key.get_base64()}",
        "root": str((folder / "root").absolute()),
        "python": sys.executable,
    }
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in fields.items()
    ]  # JSON strings are TOML strings
    inventory = folder / "fleet.toml"
    inventory.write_text("\n".join(["[[devices]]", *lines, ""]))
    return inventory
