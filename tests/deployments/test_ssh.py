"""SSH to a real OpenSSH server: results are values, trouble is one error within a stated time."""

import pickle
import shutil
import socket
import time
from pathlib import Path, PurePosixPath

import pytest

from deployments.ssh import Finished, connect
from storage.errors import DeviceError
from tests.ports import free_port
from tests.ssh_devices import SshDevice, new_key


def test_a_command_ends_with_its_status_and_both_streams(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection:
        done = connection.run(["sh", "-c", "cat; echo 'a b' >&2; exit 7"], stdin=b"in")
    assert (done.exit_status, done.stdout, done.stderr) == (7, "in", "a b\n")


def test_words_reach_the_device_as_they_are(ssh_device: SshDevice) -> None:
    words = ["two words", "$HOME", "quote'd", "; exit 1", "ñ"]
    with connect(ssh_device.device) as connection:
        assert connection.run(["printf", r"%s\n", *words]).stdout.splitlines() == words


def test_a_command_without_end_is_ended_by_its_deadline(ssh_device: SshDevice) -> None:
    started = time.monotonic()
    with (
        connect(ssh_device.device) as connection,
        pytest.raises(DeviceError, match=r"pi-1.*no end after 0.5 s"),
    ):
        connection.run(["sleep", "30"], timeout_s=0.5)
    assert time.monotonic() - started < 25


def test_a_server_that_dies_under_a_command_is_an_error_not_a_result(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection, pytest.raises(DeviceError, match=r"connection lost"):
        # the connection's own sshd is the parent of what it runs
        connection.run(["sh", "-c", "kill -9 $PPID; sleep 5"], timeout_s=20)


def test_an_uploaded_file_is_whole_or_not_there(ssh_device: SshDevice, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    with connect(ssh_device.device) as connection:
        assert connection.upload(content, PurePosixPath(tmp_path / "new/folder/file")).exit_status == 0
        (tmp_path / "blocked").write_text("a file where a folder is needed")
        failed = connection.upload(content, PurePosixPath(tmp_path / "blocked/file"))
    assert (tmp_path / "new/folder/file").read_bytes() == content
    assert failed.exit_status == 1 and "blocked" in failed.stderr
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["file"]


def test_a_file_that_the_system_will_not_take_is_reported_in_its_words(ssh_device: SshDevice) -> None:
    limited = ssh_device.device.model_copy(update={"python": str(_limited_python(ssh_device))})
    with connect(limited) as connection:
        failed = connection.upload(b"x" * 100_000, PurePosixPath(ssh_device.folder / "in" / "file"))
    assert failed.exit_status == 1 and "File too large" in failed.stderr
    assert list((ssh_device.folder / "in").iterdir()) == []


def _limited_python(device: SshDevice) -> Path:
    """A Python whose files can't grow beyond 1 kB: the kernel refuses the write, as a full disk does."""
    wrapper = device.folder / "limited"
    wrapper.write_text(f'#!/bin/bash\nulimit -f 1\ntrap "" XFSZ\nexec {device.device.python} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def test_a_device_that_is_off_is_named_within_the_deadline(ssh_device: SshDevice) -> None:
    off = ssh_device.device.model_copy(update={"port": free_port()})
    with pytest.raises(DeviceError, match=r"pi-1 .* can't be reached: .*refused.*switched on"), connect(off):
        pass


def test_a_server_that_never_greets_is_given_up(ssh_device: SshDevice) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = ssh_device.device.model_copy(update={"port": silent.getsockname()[1]})
        started = time.monotonic()
        with pytest.raises(DeviceError, match=r"no SSH session"), connect(mute, timeout_s=0.5):
            pass
    assert time.monotonic() - started < 25


def test_a_refused_key_says_where_to_put_the_public_half(ssh_device: SshDevice, tmp_path: Path) -> None:
    new_key(tmp_path / "stranger")
    stranger = ssh_device.device.model_copy(update={"key_file": tmp_path / "stranger"})
    with pytest.raises(DeviceError, match=r"refuses the key .*authorized_keys"), connect(stranger):
        pass


def test_a_key_file_that_is_far_too_large_is_named_and_not_read_whole(
    ssh_device: SshDevice, tmp_path: Path
) -> None:
    with (tmp_path / "key").open("wb") as file:
        file.truncate(1 << 40)
    other = ssh_device.device.model_copy(update={"key_file": tmp_path / "key"})
    with pytest.raises(DeviceError, match="key: expected at most 65,536 bytes, got more"), connect(other):
        pass


def test_a_key_file_that_is_none_is_named_without_its_content(ssh_device: SshDevice, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("topsecret")
    other = ssh_device.device.model_copy(update={"key_file": tmp_path / "key"})
    with pytest.raises(DeviceError, match=r"key_file .*can't be used") as caught, connect(other):
        pass
    assert "topsecret" not in str(caught.value)


def test_a_key_that_others_may_read_is_not_used(ssh_device: SshDevice) -> None:
    ssh_device.device.key_file.chmod(0o640)
    with (
        pytest.raises(DeviceError, match=r"others may read key_file .*`chmod 600 "),
        connect(ssh_device.device),
    ):
        pass


def test_a_command_is_spoken_to_line_by_line_and_its_end_is_a_value(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection:
        words = ["sh", "-c", 'read a; echo "got $a in $PWD"; echo more; read b; exit 4']
        session = connection.session(words, PurePosixPath("/usr"))
        assert session.exchange("first", b"one\n", timeout_s=60) == "got one in /usr"
        assert session.exchange("nothing", b"", timeout_s=60) == "more"
        ended = session.exchange("second", b"two\n", timeout_s=60)
    assert isinstance(ended, Finished) and ended.exit_status == 4


def test_a_command_that_says_nothing_is_given_up(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection:
        session = connection.session(["sleep", "30"], PurePosixPath("/"))
        with pytest.raises(DeviceError, match=r"pi-1.*`wait`: no end after 0.5 s"):
            session.exchange("wait", b"", timeout_s=0.5)


def test_a_changed_host_key_is_refused_before_our_key_is_shown(ssh_device: SshDevice, tmp_path: Path) -> None:
    ssh_device.stop()
    (ssh_device.folder / "host_key").unlink()
    shutil.move(_fresh_key(tmp_path), ssh_device.folder / "host_key")
    ssh_device.start()
    said = r"another host key.*expected SHA256:.*got SHA256:"
    with pytest.raises(DeviceError, match=said) as caught, connect(ssh_device.device):
        pass
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert "Accepted" not in (ssh_device.folder / "log").read_text()


def _fresh_key(folder: Path) -> Path:
    new_key(folder / "other_host_key")
    return folder / "other_host_key"
