"""The command line: a demo, nights, services, rollouts, who may sign; steps one by one: `step_commands`.

Exit status: 0 done (released, or nothing new), 1 an error, 2 wrong usage, 3 rejected by the gate,
4 the rollout did not reach every device.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from flows.leaving import LEAVES_S, leave_in_time
from flows.step_commands import Commands, Fields, add_steps
from flows.table import print_error, print_table
from storage.errors import InputError, StressVisionError
from storage.files import explained
from tasks.presets import PRESETS

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.rollout import DeviceOutcome

CONFIGURED = ("run", "prepare", "train")
"""Commands with an option for every field of the configuration."""
EXAMPLES = {
    "demo": "stress-vision demo --home /tmp/stress-vision-demo",
    "run": "stress-vision run --config retrain.toml --store s3://faces/stress --train.epochs 30",
    "config": "stress-vision config --preset smallest > retrain.toml",
    "sweep": "stress-vision sweep sweep.toml --store /data/store",
    "up": "STRESS_VISION_STORE=/data/store stress-vision up --port 4300",
    "notify": "stress-vision notify - < address.txt",
    "rollout": "stress-vision rollout --store /data/store --inventory fleet.toml --release champion",
    "promote": "stress-vision promote --store /data/store --release 20261124-021500-0a1b2c3d",
    "signers": "STRESS_VISION_SIGNING_KEY=old stress-vision signers old.pub new.pub --store /data/store",
    "fleet": "stress-vision fleet --store /data/store --json | jq .running_release",
    "history": "stress-vision history --store /data/store --last 7",
    "completion": "source <(stress-vision completion bash)",
    "prepare": "stress-vision prepare --store /data/store --prepare.label_set ferplus_votes",
    "train": "stress-vision train --preset smallest --store /data/store --train.epochs 3",
    "evaluate": "stress-vision evaluate 20261124_021500 --store /data/store",
    "convert": "stress-vision convert 20261124_021500 --store /data/store --formats int8 float16",
    "report": "stress-vision report 20261124_021500 --store /data/store",
    "tensorboard": "stress-vision tensorboard 20261124_021500 --store /data/store",
    "benchmark": "stress-vision benchmark model_int8.tflite --runs 200",
}
"""One a command, at the end of its help."""
EXIT_STATUS = (
    "exit status: 0 done, 1 an error, 2 wrong usage, 3 rejected by the gate, 4 a device without the release"
)
_ADDRESS_CHARS = 10_000
_DEMO_MARKER = ".stress-vision-demo"
_COLUMNS = ("device", "running", "outcome", "seen (UTC)", "p50 ms", "p95 ms", "p99 ms", "FPS")
_EXIT = {"Rejected": 3, "PartlyDeployed": 4, "NotDeployed": 4, "RolloutFailed": 4}

_PREFECT_SAYS = {  # how its message begins: what to do
    "Failed to reach API": "the Prefect server of PREFECT_API_URL or of your Prefect profile does not "
    "answer; start it, or unset them, and a server is started for the run",
    "Timed out while attempting to connect": "the server that is started for a run did not answer in time; "
    "is the machine busy? Try again, give it longer with PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="
    "600, or start one that stays with `stress-vision up`",
}
_SERVER_GONE = "the Prefect server stopped answering; what was finished is in the store"


def script() -> int:
    """`main` as a program of its own: told to end, it takes along the server that was started for its run."""
    signal.signal(signal.SIGTERM, _leave)
    leave_in_time(LEAVES_S)
    return main()


def _leave(number: int, _frame: object) -> None:
    # by default the process would end at once, and Prefect stops that server at a regular exit only
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors that a user is meant to read are printed without a traceback."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _quiet_environment()
    given = _parser(arguments[:1]).parse_args(arguments)
    try:
        return given.command(given)
    except StressVisionError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if (advice := _advice(error)) is None:
            raise
        print_error(f"{error}: {advice}")
        return 1


def _advice(error: Exception) -> str | None:
    """What to do where the Prefect server is why a command ended."""
    client = sys.modules.get("httpx")  # which `--help` doesn't wait for
    if client and isinstance(error, client.TransportError):
        return _SERVER_GONE
    return next((told for start, told in _PREFECT_SAYS.items() if str(error).startswith(start)), None)


def _quiet_environment() -> None:
    """Set before the first import of either library, which read it then."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # without a server of the user's own Prefect starts one for the run: 20 s is too short on a busy machine
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")


def _parser(whole: Sequence[str]) -> argparse.ArgumentParser:
    """All commands; of those of CONFIGURED only the ones in `whole` with an option for every field.

    Reading the fields takes longer than all the rest.
    """
    parser = argparse.ArgumentParser(
        prog="stress-vision", description="Nightly retraining for a Pi fleet.", epilog=EXIT_STATUS
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_runs(commands, whole)
    _add_services(commands)
    _add_fleet(commands)
    add_steps(commands, whole, _field_options)
    for name, example in EXAMPLES.items():
        commands.choices[name].epilog = f"for example: {example}"
    return parser


def _add_runs(commands: Commands, whole: Sequence[str]) -> None:
    demo = commands.add_parser("demo", help="the whole night on drawn faces and a device on this machine")
    demo.add_argument("--home", type=Path, default=Path("stress-vision-demo"), help="where everything is put")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="one run on your data", allow_abbrev=False)
    run.add_argument("--config", type=Path, metavar="FILE.toml", help="see `stress-vision config`")
    if "run" in whole:
        fields = _field_options(run)
        run.set_defaults(command=lambda given: _run(given.config, fields(given)))

    config = commands.add_parser("config", help="print a configuration file to start from")
    config.add_argument("--preset", default="balanced", choices=list(PRESETS))
    config.set_defaults(command=_config)

    sweep = commands.add_parser("sweep", help="compare configurations on the validation split")
    sweep.add_argument(
        "file", type=Path, metavar="SWEEP.toml", help="a configuration with [[variant]] tables"
    )
    _add_store(sweep).set_defaults(command=_sweep)

    history = commands.add_parser("history", help="the nights so far: outcomes, figures, releases")
    history.add_argument("--last", type=int, default=30, metavar="N", help="how many nights (default: 30)")
    history.add_argument("--json", action="store_true", help="one JSON object a night, for programs")
    _add_store(history).set_defaults(command=_history)


def _add_services(commands: Commands) -> None:
    up = commands.add_parser("up", help="Prefect server, work pool, deployments and worker, until Ctrl-C")
    up.add_argument("--port", type=int, default=4200, help="port of the server and its UI (default: 4200)")
    up.add_argument("--unit", action="store_true", help="only print a systemd unit that runs this")
    up.set_defaults(command=_up)

    notify = commands.add_parser("notify", help="who is told how nights end")
    notify.add_argument(
        "address",
        help="https://…, a Slack hook, mailtos://USER:PASSWORD@HOST?to=…; - reads one from stdin",
    )
    notify.add_argument("--port", type=int, default=4200, help="of the Prefect server here (default: 4200)")
    notify.set_defaults(command=_notify)

    completion = commands.add_parser("completion", help="print what makes Tab complete commands and options")
    completion.add_argument("shell", choices=["bash", "zsh"])
    completion.set_defaults(command=_completion)


def _add_fleet(commands: Commands) -> None:
    rollout = commands.add_parser("rollout", help="bring a registered release to the fleet")
    _add_inventory(rollout)
    rollout.add_argument("--release", default="champion", help="version, or champion (default)")
    _add_store(rollout).set_defaults(command=_rollout)

    promote = commands.add_parser("promote", help="make a release the champion by hand, an older one too")
    promote.add_argument("--release", required=True, help="version of a registered release")
    _add_store(promote).set_defaults(command=_promote)

    signers = commands.add_parser("signers", help="replace the keys that may sign releases")
    signers.add_argument("keys", type=Path, nargs="+", metavar="KEY.pub", help="all of them, a file each")
    _add_store(signers).set_defaults(command=_signers)

    fleet = commands.add_parser("fleet", help="what each device runs, and how fast")
    fleet.add_argument("--json", action="store_true", help="one JSON object a device, for programs")
    _add_inventory(fleet)
    fleet.add_argument("--example", action="store_true", help="only print an inventory to start from")
    _add_store(fleet).set_defaults(command=_fleet)


def _add_inventory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--inventory", default="", help="the fleet's TOML file; default: STRESS_VISION_INVENTORY"
    )


def _add_store(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("--store", default="", help="default: the environment's STRESS_VISION_STORE")
    return command


def _field_options(run: argparse.ArgumentParser) -> Fields:
    """Give a command an option for every field of the configuration: --train.epochs 5."""
    from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

    from tasks.config import RetrainConfig

    class Options(RetrainConfig, BaseSettings, frozen=True, extra="forbid"):  # pyright: ignore[reportGeneralTypeIssues]
        """Frozen in its turn, which the checker can't see of its second base."""

    options = CliSettingsSource(Options, root_parser=run)

    def fields(given: argparse.Namespace) -> dict[str, Any]:
        try:
            return options(parsed_args=given)()
        except SettingsError as error:
            raise InputError(
                f"{error}; expected a value or JSON, as in --train '{{\"epochs\": 5}}'"
            ) from None

    return fields


def _demo(given: argparse.Namespace) -> int:
    home = given.home.absolute()
    _empty_home(home)
    # before Prefect is imported: the demo leaves the user's own server and profile alone
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(PREFECT_HOME=str(home / "prefect"), PREFECT_PROFILE="ephemeral")
    from flows.demo import NEXT_STEPS, demo
    from flows.server import start_server

    start_server()
    status = _conclude(demo(home))
    print(NEXT_STEPS.format(home=home))
    return status


def _empty_home(home: Path) -> None:
    """Make the demo's folder, emptied if a demo made it; InputError where anything else lies there."""
    with explained("write", home):
        if home.exists() and any(home.iterdir()):
            if not (home / _DEMO_MARKER).exists():
                raise InputError(
                    f"{home} is not empty and no demo made it: choose another folder with --home"
                )
            shutil.rmtree(home)
        home.mkdir(parents=True, exist_ok=True)
        (home / _DEMO_MARKER).touch()


def _run(path: Path | None, options: dict[str, Any]) -> int:
    from flows.config import load_config
    from flows.retrain import retrain
    from flows.server import start_server
    from flows.site import preflight

    config = load_config(path, options)
    preflight(config)  # complains before a server is started for the run
    start_server()
    return _conclude(retrain(config, return_state=True))


def _config(given: argparse.Namespace) -> int:
    from flows.template import config_template
    from tasks.config import RetrainConfig

    print(config_template(RetrainConfig.model_validate({"preset": given.preset})), end="")
    return 0


def _sweep(given: argparse.Namespace) -> int:
    from flows.logs import log_our_errors_in_one_line
    from flows.server import start_server
    from flows.site import preflight
    from flows.sweep import run_sweep
    from flows.variants import load_sweep
    from tasks.sweep import table

    config = load_sweep(given.file, given.store)
    preflight(config.base)
    log_our_errors_in_one_line()
    start_server()
    state = run_sweep(config)
    compared = state.result()
    rows = table(compared.outcomes)
    print_table(rows, tuple(rows[0]))
    print(state.message)
    print(f"picture: {compared.directory / 'accuracy_cost.png'}")
    print(f"next:    stress-vision run --config {compared.directory / 'winner.toml'}")
    return 0


def _up(given: argparse.Namespace) -> int:
    from flows.config import work_path
    from flows.unit import unit
    from flows.up import up

    if given.unit:
        print(unit(given.port), end="")
        return 0
    up(given.port, work_path("") / "logs")
    return 0


def _notify(given: argparse.Namespace) -> int:
    from flows.notify import notify

    address = sys.stdin.readline(_ADDRESS_CHARS).strip() if given.address == "-" else given.address
    notify(address, os.environ.get("PREFECT_API_URL") or f"http://127.0.0.1:{given.port}/api")
    print("a first message was sent; from now on one goes there for every night that needs a person")
    return 0


def _completion(given: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(_parser(CONFIGURED), given.shell))
    return 0


def _rollout(given: argparse.Namespace) -> int:
    from flows.rollout import RolloutRequest, rollout
    from flows.server import start_server
    from flows.site import open_site
    from tasks.rollout import RolloutConfig

    request = RolloutRequest(
        store=given.store, release=given.release, rollout=RolloutConfig(inventory=given.inventory)
    )
    open_site(request.store, request.work_dir, request.rollout)  # complains before a server is started
    start_server()
    return _conclude(rollout(request, return_state=True))


def _promote(given: argparse.Namespace) -> int:
    from flows.promote import promote

    champion = promote(given.store, given.release)
    print(f"champion: {champion.version}, before: {champion.previous or 'none'}")
    print("next:     stress-vision rollout, which brings it to the devices")
    return 0


def _signers(given: argparse.Namespace) -> int:
    from flows.signers import sign_list

    listed = sign_list(given.store, given.keys)
    print(f"list {listed.count}: {len(listed.signers)} keys may sign; the champion is signed anew")
    print("next:     stress-vision rollout, with which devices take the list")
    return 0


def _fleet(given: argparse.Namespace) -> int:
    from deployments.fleet import EXAMPLE
    from flows.config import store_uri
    from storage.identity import expect_begun
    from storage.opening import open_store
    from storage.registry import Registry
    from tasks.rollout.ledger import read_ledger

    if given.example:
        print(EXAMPLE.read_text(), end="")
        return 0
    store = open_store(store_uri(given.store))
    registry = Registry(store)
    devices = list(read_ledger(registry).values())
    if not devices:
        expect_begun(store)
    if given.json:
        print("".join(f"{device.model_dump_json()}\n" for device in devices), end="")
        return 0
    champion = registry.champion()
    print(f"champion: {champion.version if champion else 'none yet'}")
    strangers = _not_in(given.inventory or os.environ.get("STRESS_VISION_INVENTORY", ""), devices)
    ours = [device for device in devices if device not in strangers]
    strange = [{**device.row(), "outcome": "not in the inventory"} for device in strangers]
    print_table([*(device.row() for device in ours), *strange], _COLUMNS)
    _print_reasons(ours)
    for device in strangers:
        kept = f"{store.uri}/fleet/{device.device}.json"
        print(f"{device.device}: not in the inventory; delete {kept} to forget it")
    return 0


def _not_in(inventory: str, devices: Iterable["DeviceOutcome"]) -> list["DeviceOutcome"]:
    """Devices of the ledger that the inventory doesn't name, as after a new name; none without one."""
    from deployments.fleet import load_fleet

    if not inventory:
        return []
    names = {device.name for device in load_fleet(Path(inventory).expanduser()).devices}
    return [device for device in devices if device.device not in names]


def _history(given: argparse.Namespace) -> int:
    from flows.history import history

    return history(given.store, given.last, as_json=given.json)


def _conclude(state: "State") -> int:
    """Print how a run ended; returns the exit status. An error that ended it is raised again."""
    if state.is_crashed() or (state.is_failed() and state.name not in _EXIT):
        state.result()
    from flows.outcome import ended_of

    ended = ended_of(state)
    console = Console(highlight=False)
    console.print(f"\n[bold]{state.name}[/]", Text(state.message or ""), soft_wrap=True)
    if ended and ended.fleet:
        print_table(ended.fleet.table(), _COLUMNS)
    if ended and ended.report:
        console.print("report:  ", Text(ended.report.as_uri()), soft_wrap=True)
        console.print("pictures:", Text(str(ended.report.parent / "*.png")), soft_wrap=True)
    return _EXIT.get(state.name or "", 0)


def _print_reasons(devices: Iterable["DeviceOutcome"]) -> None:
    """Why a device doesn't run what it should: too long for a column."""
    for device in devices:
        if device.outcome != "updated":
            said = Text.assemble(device.device, ": ", device.outcome, ", ", device.reason)
            Console(highlight=False).print(said, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(script())
