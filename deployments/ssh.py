"""SSH to one device, and the only paramiko on the road to a real one.

In: a `Device` of the inventory. Out: a `Connection` that runs commands and sends files; what a command
did is a value, `Finished`. That the device can't be reached, doesn't show its pinned host key, refuses
our key or stops answering is a `DeviceError`, always within a stated time.

Files go through the standard input of a small receiver, not through SFTP: SFTP's own check compares
sizes only, and it reports a full disk as "Failure"; the receiver compares size and SHA-256 before the
file gets its name, and says what the system said.
"""

import contextlib
import hashlib
import logging
import shlex
import socket
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import paramiko

from deployments.fleet import Device, key_fingerprint
from storage.errors import DeviceError, InputError
from storage.files import KEY_BYTES, read_bounded

# Its errors reach the caller as exceptions; its log would print them again, with tracebacks.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

KEEPALIVE_S = 5
SILENCE_MS = 15_000
"""TCP gives up on data that nobody acknowledged for this long: a pulled cable, a device without power."""
KEY_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
CIPHERS = ("aes128-ctr", "aes256-ctr", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-256")
"""OpenSSH's defaults have all of them, the first from 9.9 on. More names cost half a kilobyte a visit."""
MAX_OUTPUT_BYTES = 1 << 20
"""More than this from one command is cut off: no answer of the program on the device comes near it."""

_RECEIVER = """
import hashlib, os, signal, sys
path, size, digest = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.alarm(int(sys.argv[4]))  # whatever it hangs in, and whoever is gone
content = sys.stdin.buffer.read()
if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
    sys.exit("got %d of %d bytes, or others than were sent" % (len(content), size))
part = "%s.%d.part" % (path, os.getpid())
try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
except OSError as error:
    if os.path.exists(part):
        os.remove(part)
    sys.exit("%s: %s" % (path, error.strerror))
"""


@dataclass(frozen=True)
class Finished:
    """What a remote command did. Exit status -1: a signal ended it."""

    command: str
    exit_status: int
    stdout: str
    stderr: str


class Connection:
    """An authenticated connection to one device; made by `connect`."""

    def __init__(self, device: Device, transport: paramiko.Transport):
        self.device = device
        self._transport = transport

    def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 30.0) -> Finished:
        """Run a command and wait for its end; DeviceError after `timeout_s`, which ends the connection."""
        line = shlex.join(command)
        with self.deadline(line, timeout_s), self._open_channel(line, timeout_s) as channel:
            # a command that ends without reading all its input closes the channel's way in
            with contextlib.suppress(OSError):
                channel.sendall(stdin)
            return self._finish(line, channel)

    def upload(self, content: bytes, path: PurePosixPath, *, timeout_s: float = 120.0) -> Finished:
        """Write `content` to `path`, which appears only when whole; exit status 0 says that it is there."""
        digest = hashlib.sha256(content).hexdigest()
        command = [
            self.device.python,
            "-c",
            _RECEIVER,
            str(path),
            str(len(content)),
            digest,
            str(int(timeout_s) + 1),
        ]
        return self.run(command, stdin=content, timeout_s=timeout_s)

    def session(self, command: Sequence[str], folder: PurePosixPath, *, timeout_s: float = 30.0) -> "Session":
        """Start a command in `folder`; it is spoken to line by line, and ends with the connection."""
        line = f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}"
        with self.deadline(line, timeout_s):
            return Session(self, self._open_channel(line, timeout_s))

    @contextlib.contextmanager
    def deadline(self, what: str, timeout_s: float) -> Generator[None]:
        """DeviceError where the block takes longer than `timeout_s` or loses the connection."""
        # paramiko waits for channel events and exit statuses without a deadline: closing under it ends both
        timed_out = threading.Event()
        timer = threading.Timer(timeout_s, lambda: (timed_out.set(), self._transport.close()))
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError, paramiko.SSHException) as error:
            if isinstance(error, DeviceError):
                raise
            late = timed_out.is_set() or isinstance(error, TimeoutError)
            said = f"no end after {timeout_s:g} s" if late else f"connection lost: {_said(error)}"
            raise DeviceError(f"{_place(self.device)}: `{_short(what)}`: {said}") from error
        finally:
            timer.cancel()

    def _open_channel(self, line: str, timeout_s: float) -> paramiko.Channel:
        channel = self._transport.open_session(timeout=timeout_s)
        channel.settimeout(timeout_s)
        channel.exec_command(line)
        return channel

    def _finish(self, line: str, channel: paramiko.Channel) -> Finished:
        with contextlib.suppress(OSError, EOFError):
            channel.shutdown_write()
        stdout = channel.makefile("rb").read(MAX_OUTPUT_BYTES)
        stderr = channel.makefile_stderr("rb").read(MAX_OUTPUT_BYTES)
        status = channel.recv_exit_status()
        if not self._transport.is_active():
            raise EOFError("closed while the command ran")
        return Finished(line, status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


class Session:
    """A command that runs on a device and is spoken to; made by `Connection.session`."""

    def __init__(self, connection: Connection, channel: paramiko.Channel):
        self._connection = connection
        self._channel = channel
        self._arrived = b""

    def exchange(self, what: str, content: bytes, *, timeout_s: float) -> str | Finished:
        """Send `content` and wait for a line; how the command ended, where it has instead.

        `what` names the exchange in errors: DeviceError as of `Connection.run`.
        """
        with self._connection.deadline(what, timeout_s):
            self._channel.settimeout(timeout_s)
            # a command that has ended takes nothing any more: its last words say why
            with contextlib.suppress(OSError):
                self._channel.sendall(content)
            while b"\n" not in self._arrived:
                got = self._channel.recv(1 << 16)
                if not got or len(self._arrived) > MAX_OUTPUT_BYTES:
                    return self._ended(what)
                self._arrived += got
        line, _, self._arrived = self._arrived.partition(b"\n")
        return line.decode(errors="replace")

    def _ended(self, what: str) -> Finished:
        said = self._arrived.decode(errors="replace")
        finished = self._connection._finish(what, self._channel)  # pyright: ignore[reportPrivateUsage]
        return Finished(what, finished.exit_status, said + finished.stdout, finished.stderr)


@contextlib.contextmanager
def connect(device: Device, timeout_s: float = 10.0) -> Generator[Connection]:
    """Connect, compare the host key with the pinned one, and log in; each step within `timeout_s`."""
    with _open_socket(device, timeout_s) as sock:
        transport = paramiko.Transport(sock)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = timeout_s
        try:
            _log_in(device, transport, timeout_s)
            transport.set_keepalive(KEEPALIVE_S)
            yield Connection(device, transport)
        finally:
            transport.close()


def _open_socket(device: Device, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection((device.host, device.port), timeout=timeout_s)
    except OSError as error:
        raise DeviceError(
            f"{_place(device)} can't be reached: {_said(error)}; is it switched on, and on this network?"
        ) from error
    # without it every exec waits for a delayed ACK: 44 ms instead of 2 ms on loopback
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
    return sock


def _log_in(device: Device, transport: paramiko.Transport, timeout_s: float) -> None:
    offered = transport.get_security_options()
    offered.kex, offered.key_types = KEY_EXCHANGES, ("ssh-ed25519",)
    offered.ciphers, offered.digests = CIPHERS, MACS
    key = private_key(device)
    try:
        transport.start_client(timeout=timeout_s)
        _compare_host_key(device, transport.get_remote_server_key())
        transport.auth_publickey(device.user, key)
    except DeviceError:
        raise
    except paramiko.AuthenticationException as error:
        raise DeviceError(
            f"{_place(device)} refuses the key {device.key_file} for user {device.user}; "
            f"append its public half to ~{device.user}/.ssh/authorized_keys on the device"
        ) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise DeviceError(f"{_place(device)}: no SSH session: {_said(error)}") from error


def private_key(device: Device) -> paramiko.PKey:
    """Our key for this device, read from its `key_file`; DeviceError where that is none, or everybody's."""
    try:
        read_bounded(device.key_file, KEY_BYTES)  # paramiko reads all that there is
        key = paramiko.PKey.from_path(device.key_file)
    except InputError as error:
        raise DeviceError(f"{_place(device)}: key_file {error}") from None
    except (
        Exception
    ) as error:  # its own, the system's and cryptography's: a key file has many ways to be none
        raise DeviceError(
            f"{_place(device)}: key_file {device.key_file} can't be used: {type(error).__name__}; "
            "expected a private key without a passphrase, as `ssh-keygen -t ed25519 -N ''` makes it"
        ) from None
    if device.key_file.stat().st_mode & 0o077:
        raise DeviceError(
            f"{_place(device)}: others may read key_file {device.key_file}; `chmod 600 {device.key_file}`, "
            "and take a new key if others have used this machine"
        )
    return key


def _compare_host_key(device: Device, shown: paramiko.PKey) -> None:
    got = f"{shown.get_name()} {shown.get_base64()}"
    if got != device.host_key:
        raise DeviceError(
            f"{_place(device)} shows another host key than the inventory pins: expected "
            f"{key_fingerprint(device.host_key)}, got {key_fingerprint(got)}. Either the device was set up "
            "anew, or something else answers at its address. Run `ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub` on the device's own console; only if it shows what we got, "
            "change the inventory"
        )


def _place(device: Device) -> str:
    return f"device {device.name} ({device.user}@{device.host}:{device.port})"


def _said(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _short(line: str) -> str:
    first = line.partition("\n")[0]
    return first if len(first) < 160 else first[:157] + "…"
