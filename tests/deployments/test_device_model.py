"""The program on the device, with a model: golden outputs, latency, and what it tells of the machine."""

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.pi import device
from tests.deployments.device_program import NEW, OLD, ask, fault, refusal, stage
from tests.ssh_devices import as_device_runs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def running(root: Path, tiny_releases: tuple[Path, Path]) -> str:
    """A real release, in use on the device."""
    as_device_runs(root, tiny_releases[0])
    return tiny_releases[0].name


def test_a_release_gives_its_golden_outputs_and_its_latency(root: Path, running: str) -> None:
    checked = ask(root, "check", "--version", running)
    assert checked["worst_lsb"] == checked["allowed_lsb"] == 0 and checked["images"] == 16
    measured = ask(root, "benchmark", "--version", running, "--current", "--runs", 12, "--warmup", 1)
    assert measured["load_ms"] > 0 and measured["first_ms"] > 0 and measured["peak_memory_bytes"] > 1e7
    assert (measured["runs"], measured["warmup"], measured["threads"]) == (12, 1, 1)
    assert 0 < measured["p50_ms"] <= measured["p95_ms"] <= measured["p99_ms"]
    assert measured["runtime"] == checked["runtime"] and measured["delegate"] in ("xnnpack", "none")
    assert 0 <= measured["cpu_share"] <= 1 and measured["machine"]["model"]


def test_another_model_than_the_golden_set_was_made_with_is_refused(
    root: Path, running: str, tiny_releases: tuple[Path, Path]
) -> None:
    other = root / "releases" / tiny_releases[1].name
    shutil.copytree(tiny_releases[1], other)
    manifest = json.loads((other / "manifest.json").read_text())
    golden = json.loads((tiny_releases[0] / "manifest.json").read_text())["files"]["golden.npz"]
    shutil.copy(tiny_releases[0] / "golden.npz", other)
    manifest["files"]["golden.npz"] = golden
    (other / "manifest.json").write_text(json.dumps(manifest))
    said = refusal(root, "check", "--version", other.name)
    assert said.startswith(f"{other.name} answers otherwise here than where it was made: 1")
    assert "differ by more than 0 steps" in said


def test_a_rotted_release_is_named_before_it_is_opened(root: Path, running: str) -> None:
    (root / "current" / "golden.npz").write_bytes(b"rot")
    said = fault(root, "check", "--version", running, "--current")
    assert said == f"files of {running} differ from its manifest: golden.npz"


@pytest.mark.parametrize("command", ["check", "benchmark"])
def test_only_what_is_there_is_run(root: Path, command: str) -> None:
    stage(root, OLD)
    assert fault(root, command, "--version", NEW) == f"there is no release {NEW} on this device"
    assert fault(root, command, "--version", OLD, "--current").startswith("there is no release current")
    device.point_current(root, OLD)
    stage(root, NEW)
    assert fault(root, command, "--version", NEW, "--current") == f"current leads to {OLD}, not to {NEW}"


# ---------------------------------------------------------------- a model that only answers, and counts


class Network:
    """Answers with the number in the frame's corner, off by `off`, and counts."""

    def __init__(self) -> None:
        self.off, self.frame = 0, -1
        self.seen: list[int] = []

    def get_input_details(self) -> list[dict[str, int]]:
        return [{"index": 3}]

    def get_output_details(self) -> list[dict[str, int]]:
        return [{"index": 4}]

    def set_tensor(self, index: int, frame: NDArray[np.uint8]) -> None:
        assert index == 3 and frame.shape == (1, 2, 2, 1)
        self.frame = int(frame[0, 0, 0, 0])

    def invoke(self) -> None:
        self.seen.append(self.frame)

    def get_tensor(self, index: int) -> NDArray[np.uint8]:
        assert index == 4
        return np.array([[100, 100 + self.seen[-1] + (self.off if self.seen[-1] == 1 else 0)]], np.uint8)


@pytest.fixture
def network(root: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    inputs = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(2, 1).repeat(2, 2)
    outputs = np.array([[100, 100 + number] for number in range(3)], np.uint8)
    monkeypatch.setattr(device, "golden_inputs", lambda directory, manifest: (inputs, outputs))
    monkeypatch.setattr(device, "load_model", lambda directory, manifest, args: (network, "made 1.0"))
    release = stage(root, NEW)
    manifest = json.loads((release / "manifest.json").read_text())
    manifest["golden"] |= {"runtime": "made 1.0", "tolerance_lsb": 2}
    (release / "manifest.json").write_text(json.dumps(manifest))
    return network


def test_every_golden_image_is_run_once_in_order(root: Path, network: Network) -> None:
    answer = ask(root, "check", "--version", NEW)
    assert answer == {"ok": True, "images": 3, "worst_lsb": 0, "allowed_lsb": 0, "runtime": "made 1.0"}
    assert network.seen == [0, 1, 2]


@pytest.mark.parametrize("off", [1, -1])
def test_on_the_runtime_that_made_the_golden_set_no_step_is_allowed(
    root: Path, network: Network, off: int
) -> None:
    network.off = off
    assert refusal(root, "check", "--version", NEW) == (
        f"{NEW} answers otherwise here than where it was made: 1 of 3 golden images differ by more than 0 "
        "steps of 1/256, up to 1 (made 1.0 here, made 1.0 there)"
    )


@pytest.mark.parametrize(("off", "passes"), [(2, True), (-2, True), (3, False), (-3, False)])
def test_on_another_runtime_the_stated_steps_are_allowed(
    root: Path, network: Network, monkeypatch: pytest.MonkeyPatch, off: int, passes: bool
) -> None:
    network.off = off
    monkeypatch.setattr(device, "load_model", lambda directory, manifest, args: (network, "other 2.0"))
    answer = ask(root, "check", "--version", NEW)
    assert answer["ok"] is passes
    if passes:
        assert (answer["worst_lsb"], answer["allowed_lsb"]) == (2, 2)


def test_the_same_runtime_without_its_delegate_counts_as_another_one(
    root: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "releases" / NEW / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["golden"]["delegate"] = "xnnpack"
    path.write_text(json.dumps(manifest))
    network.off = 1
    monkeypatch.setattr(device, "delegate", lambda interpreter: "none")
    assert ask(root, "check", "--version", NEW)["allowed_lsb"] == 2
    monkeypatch.setattr(device, "delegate", lambda interpreter: "xnnpack")
    assert "more than 0" in refusal(root, "check", "--version", NEW)


EXPECTED = np.array([[200, 56], [56, 200], [140, 116], [200, 56]])


@pytest.mark.parametrize(
    ("shift", "passes"),
    [
        ([0, 0, 0, 0], True),
        ([40, 0, 0, 0], True),  # one of four is far off, and still says the same
        ([40, 40, 0, 0], False),
        ([0, 0, 16, 0], True),  # turns over, where the lead is less than two such steps
        ([80, 0, 0, 0], False),  # turns over a clear answer
    ],
)
def test_other_kernels_keep_every_clear_answer_and_most_images_within_the_tolerance(
    shift: list[int], passes: bool
) -> None:
    signs = np.where(EXPECTED.max(1, keepdims=True) == EXPECTED, -1, 1)
    assert device.kin(EXPECTED + signs * np.array(shift)[:, None], EXPECTED, 16) is passes


# ---------------------------------------------------------------- a file that is no release


def test_a_file_is_timed_and_leaves_nothing(
    root: Path, running: str, tiny_releases: tuple[Path, Path]
) -> None:
    upload = root / "incoming" / "timed-1"
    upload.mkdir(parents=True)
    shutil.copy(tiny_releases[1] / "model_int8.tflite", upload / "any name.tflite")
    answer = ask(root, "time", "--upload", "timed-1", "--runs", 12, "--warmup", 1)
    assert answer["ok"] and answer["runs"] == 12 and 0 < answer["p50_ms"] <= answer["p99_ms"]
    assert not upload.exists() and (root / "current").resolve().name == running


def test_a_device_with_signers_times_no_file_that_nobody_signed(root: Path) -> None:
    root.mkdir()
    (root / "allowed_signers").touch()
    assert "runs signed releases only" in refusal(root, "time", "--upload", "timed-1")


def test_only_uploads_are_timed(root: Path) -> None:
    for name in ("../releases", NEW, ".hidden"):
        assert "no name for an upload" in refusal(root, "time", "--upload", name)


# ---------------------------------------------------------------- a delegate's library


class Runtime:
    """A runtime module whose delegates are what its test says."""

    def __init__(self, loads: Exception | str) -> None:
        self.loads, self.given = loads, {}

    def load_delegate(self, path: str) -> str:
        if isinstance(self.loads, Exception):
            raise self.loads
        return f"{self.loads} of {path}"

    def Interpreter(self, **given: object) -> SimpleNamespace:
        self.given = given
        return SimpleNamespace(allocate_tensors=lambda: None)


def test_a_devices_delegate_is_loaded_and_told_with_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime("delegate")
    monkeypatch.setattr(device.importlib, "import_module", lambda name: runtime)
    _, told = device.open_model(Path("model.tflite"), "", 1, "/usr/lib/libedgetpu.so.1")
    assert runtime.given["experimental_delegates"] == ["delegate of /usr/lib/libedgetpu.so.1"]
    assert told.startswith("ai-edge-litert ") and told.endswith(" with libedgetpu.so.1")


@pytest.mark.parametrize("error", [OSError("no such file"), ValueError("")])
def test_a_delegate_that_can_not_be_loaded_is_refused_with_what_to_look_at(error: Exception) -> None:
    with pytest.raises(device.Faulty, match=r"/lib/x\.so can't be loaded: .*plugged in"):
        device.load_library(Runtime(error), "/lib/x.so")


# the runtime's own destructor stumbles over what it could not load
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_real_runtime_refuses_a_library_that_is_not_there(root: Path, running: str) -> None:
    said = fault(root, "check", "--version", running, "--delegate", "/lib/libnowhere.so.1")
    assert "delegate /lib/libnowhere.so.1 can't be loaded" in said


def test_warm_up_is_not_measured_and_frames_take_turns(
    root: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**9, 2_000_000))  # 2 ms between two looks at it
    fake = SimpleNamespace(perf_counter_ns=lambda: next(clock), monotonic=lambda: 0.0,
                           perf_counter=lambda: len(network.seen) / 100,
                           thread_time=lambda: len(network.seen) * 0.006)  # fmt: skip
    monkeypatch.setattr(device, "time", fake)
    answer = ask(root, "benchmark", "--version", NEW, "--runs", 5, "--warmup", 4, "--threads", 2)
    assert network.seen == [0, 0, 1, 2, 0, 0, 1, 2, 0, 1]
    assert (answer["runs"], answer["warmup"], answer["threads"]) == (5, 4, 2)
    assert (answer["mean_ms"], answer["std_ms"], answer["fps"]) == (2.0, 0.0, 500.0)
    assert answer["cpu_share"] == 0.6 and answer["delegate"] is None and answer["first_ms"] == 2


def test_it_is_measured_for_as_long_as_asked_after_a_warm_up_that_ends_steady(
    root: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame takes 10 ms, and at first ever less time."""
    slow = [0.05 - 0.0005 * number for number in range(80)]

    def now() -> float:
        return sum(slow[: len(network.seen)]) + 0.01 * max(0, len(network.seen) - len(slow))

    fake = SimpleNamespace(perf_counter_ns=lambda: int(now() * 1e9), monotonic=lambda: 0.0,
                           perf_counter=now, thread_time=now)  # fmt: skip
    monkeypatch.setattr(device, "time", fake)
    monkeypatch.setattr(device, "timed", lambda interpreter, frame: took(now, interpreter, frame))
    words = ("--runs", 5, "--min-s", 1, "--warmup", 1, "--warmup-s", 0.5)
    answer = ask(root, "benchmark", "--version", NEW, *words)
    assert answer["seconds"] == pytest.approx(1, abs=0.1)
    assert answer["warmup"] > 11, "half a second is over, but frames still get faster"


def took(now: Callable[[], float], interpreter: Network, frame: NDArray[np.uint8]) -> float:
    started = now()
    device.run_frame(interpreter, frame)
    return 1000 * (now() - started)


def test_by_default_a_hundred_frames_are_measured_after_ten_on_one_thread(
    root: Path, network: Network
) -> None:
    answer = ask(root, "benchmark", "--version", NEW)
    assert (answer["runs"], answer["warmup"], answer["threads"], len(network.seen)) == (100, 10, 1, 111)


def test_percentiles_are_of_the_measured_times() -> None:
    figures = device.summary([float(number) for number in range(1, 102)])
    assert (figures["p50_ms"], figures["p95_ms"], figures["p99_ms"]) == (51, 96, 100)
    assert figures["mean_ms"] == 51 and figures["fps"] == pytest.approx(1000 / 51)
    assert figures["std_ms"] == pytest.approx(np.std(np.arange(1, 102), ddof=1))
    assert device.summary([3.0])["std_ms"] == 0
    few = [9.0, 1.0, 4.0, 2.5]
    for name, q in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
        assert device.summary(few)[name] == pytest.approx(np.percentile(few, q))


def test_the_delegate_is_what_the_graph_shows() -> None:
    def graph(*names: str) -> SimpleNamespace:
        return SimpleNamespace(_get_ops_details=lambda: [{"op_name": name} for name in names])

    assert device.delegate(graph("CONV_2D", "DELEGATE")) == "xnnpack"
    assert device.delegate(graph("CONV_2D")) == "none"
    assert device.delegate(object()) is None


def test_a_proof_is_the_golden_outputs_and_the_latency(root: Path, network: Network) -> None:
    answer = ask(root, "prove", "--version", NEW, "--runs", 10)
    assert (answer["images"], answer["worst_lsb"], answer["runs"]) == (3, 0, 10)
    network.off = 1
    assert "answers otherwise" in refusal(root, "prove", "--version", NEW)


def test_a_model_that_the_runtime_throws_at_is_at_fault_itself(
    root: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def invoke() -> None:
        raise RuntimeError("node 121 failed to invoke")

    monkeypatch.setattr(network, "invoke", invoke)
    for command in ("check", "benchmark"):
        said = refusal(root, command, "--version", NEW)
        assert said == f"the runtime can't run {NEW}: node 121 failed to invoke"


def test_two_proofs_do_not_measure_at_the_same_time(root: Path, network: Network) -> None:
    with device.locked(root, 0, "measuring"):
        assert ask(root, "prove", "--version", NEW)["kind"] == "busy"


# ---------------------------------------------------------------- the runtime


def test_a_device_without_a_runtime_says_how_to_get_one(
    root: Path, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "RUNTIMES", (("nowhere_to_be_found", "nowhere"),))
    assert "has no runtime: pip install ai-edge-litert" in fault(root, "check", "--version", running)
    machine = ask(root, "inspect")["machine"]
    assert (machine["runtime"], machine["runtime_version"]) == (None, None)


def test_the_first_runtime_that_is_there_is_used_and_told(
    root: Path, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "RUNTIMES", (("nowhere_to_be_found", "nowhere"), *device.RUNTIMES))
    assert ask(root, "check", "--version", running)["runtime"].startswith("ai-edge-litert ")
    machine = ask(root, "inspect")["machine"]
    assert (
        f"{machine['runtime']} {machine['runtime_version']}"
        == ask(root, "check", "--version", running)["runtime"]
    )


@pytest.mark.parametrize(
    ("package", "version", "minimum", "refused"),
    [
        ("tflite-runtime", "2.9.1", "2.14.0", True),
        ("tflite-runtime", "2.14.0", "2.14.0", False),
        ("tflite-runtime", "2.14.0.post1", "2.14.0", False),
        ("tflite-runtime", "2.15.0", "2.14.0", False),
        ("tflite-runtime", "2.14.0", "", False),
        ("ai-edge-litert", "1.0.0", "2.14.0", False),
    ],
)
def test_the_models_minimum_holds_for_the_runtime_that_counts_like_it(
    package: str, version: str, minimum: str, refused: bool
) -> None:
    said = f"needs TensorFlow Lite {minimum} or newer, this device has {package} {version}"
    with pytest.raises(device.Faulty, match=said) if refused else contextlib.nullcontext():
        device.refuse_if_too_old(package, version, minimum)


# ---------------------------------------------------------------- the machine


@pytest.mark.parametrize(
    ("said", "celsius"), [("48312", 48.312), ("-5000", -5.0), ("n/a", None), ("", None), (None, None)]
)
def test_the_kernel_counts_thousandths_of_a_degree(
    monkeypatch: pytest.MonkeyPatch, said: str | None, celsius: float | None
) -> None:
    monkeypatch.setattr(device, "first_line", lambda path: said)
    assert device.temperature_c() == celsius


@pytest.mark.parametrize(
    ("said", "flags"), [("throttled=0x50005", 5), ("throttled=0x70000", 0), ("VCHI failed", None)]
)
def test_only_what_holds_now_counts_as_throttled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, flags: int | None
) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] && echo {said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert device.throttled() == flags


def test_without_its_firmwares_program_nobody_knows_whether_a_device_is_throttled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert device.throttled() is None


def test_load_is_that_of_the_last_minute_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert device.health()["load_per_core"] == 1.5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device.health()["load_per_core"] == 6.0


def test_the_machine_is_told_by_its_own_name_else_by_its_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {"/proc/device-tree/model": "Raspberry Pi 5", "/sys/firmware/devicetree/base/model": "Pi, too"}
    monkeypatch.setattr(device, "first_line", names.get)
    assert device.machine_model() == "Raspberry Pi 5"
    del names["/proc/device-tree/model"]
    assert device.machine_model() == "Pi, too"
    names.clear()
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Cortex-A76 @ 2.4\nmodel name\t: another\n")
    monkeypatch.setattr(device, "Path", lambda name: cpuinfo)
    assert device.machine_model() == "Cortex-A76 @ 2.4"
    cpuinfo.write_text("processor : 0\n")
    assert device.machine_model() == platform.machine()
    cpuinfo.unlink()
    assert device.machine_model()


def test_memory_is_counted_in_bytes() -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert device.machine()["memory_bytes"] == pytest.approx(int(total.split()[1]) * 1024, rel=0.01)


def test_a_first_line_comes_without_what_the_kernel_ends_it_with(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5\0\nmore")
    assert device.first_line(str(tmp_path / "model")) == "Raspberry Pi 5"
    assert device.first_line(str(tmp_path / "none")) is None


@pytest.mark.parametrize(("said", "after"), [(b"", ""), (b"what it said\n", "; what it said")])
def test_a_crash_is_told_with_its_signal_and_its_last_words_if_there_are_any(said: bytes, after: str) -> None:
    with pytest.raises(device.Refused) as caught:
        device.understood(NEW, -11, said)
    assert str(caught.value) == f"{NEW} crashes: ended by SIGSEGV{after}"
