"""An agent behind a forced command: the rollout's key starts it and nothing else, and its owner renews it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.pi import device as program
from deployments.program import PROTOCOL, SOURCE, DeviceProgram, Renewal
from deployments.ssh import connect
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, RolloutConfig
from tasks.rollout.payload import read_payload
from tasks.rollout.visit import visit
from tasks.signing import SIGNING_KEY_VARIABLE, sign_program
from tests.ssh_devices import SshDevice, new_key

CONFIG = RolloutConfig(benchmark=BenchmarkConfig(runs=10, min_cpu_share=0))
OLDER = SOURCE.read_bytes() + b"# as it was last year\n"


class Agent:
    """A device on which the rollout's key starts an older program of its owner's."""

    def __init__(self, device: SshDevice, folder: Path):
        self.device, self.path, self.signers = device, folder / "device.py", folder / "program_signers"
        folder.mkdir()
        self.path.write_bytes(OLDER)
        self.signers.write_text(f"stress-vision {new_key(folder / 'key')}\n")
        words = f"{sys.executable} {self.path} --root {device.root} --within-s 60 serve --agent"
        keys = device.folder / "authorized_keys"
        keys.write_text(f'restrict,command="{words}" {keys.read_text()}')

    def visit(self, release: Path, renewal: Renewal | None) -> DeviceOutcome:
        return visit(self.device.device, read_payload(release, CONFIG, renewal=renewal), CONFIG)

    def install(self) -> program.Facts:
        """As the timer of its owner does."""
        words = [sys.executable, self.path, "--root", self.device.root, "install", "--signers", self.signers]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        return json.loads(done.stdout)

    def waits(self, content: bytes, number: int, key: str = "key", about: bytes = b"") -> None:
        """A program that was sent, and signed as that number."""
        folder = self.device.root / "incoming" / "program"
        folder.mkdir(parents=True, exist_ok=True)
        digest = program.hashlib.sha256(about or content).hexdigest()
        statement = json.dumps({"program": digest, "number": number})
        command = ["ssh-keygen", "-Y", "sign", "-f", self.path.with_name(key), "-n", program.PROGRAM]
        done = subprocess.run(command, input=statement.encode(), capture_output=True, check=True, timeout=30)
        (folder / "device.py").write_bytes(content)
        (folder / "program.sig").write_bytes(done.stdout)
        (folder / "program.json").write_text(statement)


@pytest.fixture
def agent(ssh_device: SshDevice, tmp_path: Path) -> Agent:
    return Agent(ssh_device, tmp_path / "agent")


def test_an_agent_takes_a_release_then_a_program_that_its_owner_installs(
    agent: Agent, tiny_releases: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, str(agent.path.with_name("key")))
    renewal = sign_program()
    first = agent.visit(tiny_releases[0], renewal)
    assert first.outcome == "updated" and first.reason.endswith("; its agent was sent a new program")
    assert agent.path.read_bytes() == OLDER, "it can't write itself"
    again = agent.visit(tiny_releases[0], renewal)
    assert again.reason.endswith("its agent's new program waits for the device's owner to `install` it")

    assert agent.install()["installed"] is True
    assert agent.path.read_bytes() == SOURCE.read_bytes()
    assert agent.path.with_name("device.py.before").read_bytes() == OLDER
    assert agent.install()["installed"] is False
    last = agent.visit(tiny_releases[1], renewal)
    assert last.outcome == "updated" and "agent" not in last.reason
    assert agent.device.current == tiny_releases[1].name


def test_the_key_of_an_agent_runs_nothing_else(agent: Agent) -> None:
    with connect(agent.device.device) as connection:
        done = connection.run(["touch", str(agent.device.folder / "mine")], timeout_s=30)
    assert json.loads(done.stdout)["agent"] is True and not (agent.device.folder / "mine").exists()


def test_an_agent_of_another_protocol_is_sent_the_program_and_said_to_be_at_fault(agent: Agent) -> None:
    agent.path.write_bytes(OLDER.replace(f"PROTOCOL = {PROTOCOL}".encode(), b"PROTOCOL = 1"))
    with connect(agent.device.device) as connection:
        said = DeviceProgram(connection).start()
        assert (said["ok"], said["kind"]) == (False, "faulty")
        spoken = f"its agent speaks protocol 1, expected {PROTOCOL}"
        assert said["error"] == f"{spoken}: install deployments/pi/device.py there by hand"
    with connect(agent.device.device) as connection:
        said = DeviceProgram(connection).start(renewal=Renewal("{}", "none"))
    assert said["error"].endswith("its agent was sent a new program")
    assert (agent.device.root / "incoming" / "program" / "device.py").read_bytes() == SOURCE.read_bytes()


def thief(agent: Agent) -> None:
    new_key(agent.path.with_name("thief"))
    agent.waits(SOURCE.read_bytes(), 5, key="thief")


def older(agent: Agent) -> None:
    agent.waits(SOURCE.read_bytes(), 5)
    assert agent.install()["installed"]
    agent.path.write_bytes(OLDER)
    agent.waits(SOURCE.read_bytes(), 4)


def link(agent: Agent) -> None:
    agent.waits(SOURCE.read_bytes(), 5)
    there = agent.device.root / "incoming" / "program" / "device.py"
    there.unlink()
    there.symlink_to(SOURCE)


def pending(agent: Agent) -> None:
    agent.waits(SOURCE.read_bytes(), 5)
    noted = {"version": "20260101-000000-00000000", "previous": None}
    noted |= {"token": "", "boot_id": "", "deadline": 0}
    (agent.device.root / "state.json").write_text(json.dumps({"pending": noted}))


@pytest.mark.parametrize(
    ("lay", "said"),
    [
        (thief, "is not signed by one of"),
        (older, "is older: signed as 4, the one here as 5"),
        (link, "Too many levels of symbolic links"),
        (pending, "a switch waits for its confirmation"),
        (lambda agent: agent.waits(b"import nothing_there", 5), "doesn't answer: "),
        (lambda agent: agent.waits(SOURCE.read_bytes(), 5, about=b"x"), "is not the one that was signed"),
    ],
)
def test_a_program_is_installed_only_signed_newer_whole_and_running(
    agent: Agent, lay: Callable[[Agent], None], said: str
) -> None:
    lay(agent)
    answer = agent.install()
    assert answer["ok"] is False and said in answer["error"]
    assert agent.path.read_bytes() == OLDER


def test_a_program_that_no_agent_is_takes_no_other_for_itself(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection:
        asked = DeviceProgram(connection)
        asked.start()
        assert asked.renew(Renewal("{}", "")) == ""
        answer = asked.ask("program", statement="{}", signature="", bytes=1, content=b"x")
    assert answer["kind"] == "refused" and "is no agent" in answer["error"]
