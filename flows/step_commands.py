"""The commands that take one step alone: prepare, train, evaluate, convert, benchmark, report, tensorboard.

What they do is in `flows.steps`; here are their options, the choice among experiments, and what is printed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.text import Text

from flows.table import print_table
from storage.errors import InputError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
FORMATS = ("int8", "float16", "float32")
"""Those of `tasks.convert`, without the cost of reading it for `--help`."""
_SHOWN = 15
_NEXT = {
    "Prepared": "next:    stress-vision train with the same options, which learns from it",
    "Trained": """next:    stress-vision evaluate {0}      figures on the test split
         stress-vision convert {0}       TFLite files
         stress-vision report {0}        the report with all of it
         stress-vision tensorboard {0}   its logs in a browser""",
}
"""By the name of a step's end, what a person would do then; {0} is the experiment."""

Fields = Callable[[argparse.Namespace], dict[str, Any]]
"""Reads the fields of the configuration from parsed arguments. InputError for a value that is none."""


def add_steps(
    commands: Commands,
    whole: Sequence[str],
    field_options: Callable[[argparse.ArgumentParser], Fields],
) -> None:
    """Add each step's command; `field_options` gives those in `whole` an option for every field."""
    for name, told in (("prepare", "make the data set, nothing more"), ("train", "make an experiment")):
        step = commands.add_parser(name, help=told, allow_abbrev=False)
        step.add_argument("--config", type=Path, metavar="FILE.toml", help="see `stress-vision config`")
        if name in whole:
            step.set_defaults(command=_configured(name, field_options(step)))
    _add_of_experiment(commands, "evaluate", "measure an experiment on the test split", _evaluate)
    convert = _add_of_experiment(commands, "convert", "write an experiment's TFLite files", _convert)
    convert.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="default: all")
    _add_of_experiment(commands, "report", "write an experiment's report", _report)
    board = _add_of_experiment(commands, "tensorboard", "an experiment's logs in a browser", _tensorboard)
    board.add_argument("--port", type=int, default=6006, help="default: 6006")
    _add_benchmark(commands)


def _add_of_experiment(
    commands: Commands,
    name: str,
    told: str,
    command: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    step = commands.add_parser(name, help=told)
    step.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT",
        help="its name, or newest; none: choose from a list",
    )
    step.add_argument("--store", default="", help="default: the environment's STRESS_VISION_STORE")
    step.add_argument("--work_dir", default="", help="default: the environment's STRESS_VISION_WORK")
    step.set_defaults(command=command)
    return step


def _add_benchmark(commands: Commands) -> None:
    step = commands.add_parser("benchmark", help="time a .tflite here or on a device, without a rollout")
    step.add_argument("file", metavar="FILE.tflite")
    step.add_argument("--device", default="", metavar="NAME", help="a device of the inventory")
    step.add_argument("--inventory", default="", metavar="FLEET.toml", help="the fleet's TOML file")
    step.add_argument(
        "--runs", type=int, default=100, help="timed frames, on a device at least (default: 100)"
    )
    step.set_defaults(command=_benchmark)


def _configured(name: str, fields: Fields) -> Callable[[argparse.Namespace], int]:
    def command(given: argparse.Namespace) -> int:
        from flows.config import load_config
        from flows.steps import alone, training_site

        config = load_config(given.config, fields(given))
        training_site(config)  # complains before a server is started
        return _run(alone(name), config)

    return command


def _evaluate(given: argparse.Namespace) -> int:
    from flows.steps import ExperimentRequest, evaluate

    return _run(evaluate, ExperimentRequest(**_asked_for(given)))


def _convert(given: argparse.Namespace) -> int:
    from flows.steps import ConversionRequest, convert

    request = ConversionRequest(**_asked_for(given), formats=tuple(given.formats))
    return _run(convert, request)


def _report(given: argparse.Namespace) -> int:
    from flows.steps import ExperimentRequest, report

    return _run(report, ExperimentRequest(**_asked_for(given)))


def _benchmark(given: argparse.Namespace) -> int:
    from flows.config import parse_config
    from flows.steps import BenchmarkRequest, benchmark, device_of
    from tasks.benchmark_file import check_tflite

    if given.inventory and not given.device:
        raise InputError(
            f"--inventory {given.inventory} without a device of it: name one with --device, or leave both "
            "out to time the file on this machine"
        )
    asked = {name: getattr(given, name) for name in ("file", "device", "inventory", "runs")}
    request = parse_config(BenchmarkRequest, asked, "the command line")
    check_tflite(Path(given.file).expanduser())  # complains before a server is started, as does the next
    device_of(request)
    return _run(benchmark, request)


def _tensorboard(given: argparse.Namespace) -> int:
    """Serve the logs on this machine alone until interrupted; those of a training under way, too."""
    from flows.config import store_uri, work_path
    from flows.up import expect_free
    from storage.opening import open_store
    from tasks.experiment import bring_experiment, find_experiment

    store, work = open_store(store_uri(given.store)), work_path(given.work_dir)
    experiment = find_experiment(store, work, _chosen(given, finished=False), finished=False)
    logs = bring_experiment(store, work, experiment) / "tensorboard"
    if not logs.is_dir():
        raise InputError(f"{logs}: experiment {experiment.id} has no logs yet; its first epoch writes them")
    expect_free(given.port)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs)]
    command += ["--host", "127.0.0.1", "--port", str(given.port)]
    print(f"logs:    {logs}\nopen:    http://127.0.0.1:{given.port}    (Ctrl-C ends it)", flush=True)
    os.execv(command[0], command)


def _asked_for(given: argparse.Namespace) -> dict[str, str]:
    return {"store": given.store, "work_dir": given.work_dir, "experiment": _chosen(given)}


def _chosen(given: argparse.Namespace, *, finished: bool = True) -> str:
    """The experiment that was named; else the person's choice from a list, the newest first.

    InputError for one that can't be used, before a server is started for the step; and with the list where
    nobody sits at the terminal to choose.
    """
    from flows.config import store_uri, work_path
    from storage.opening import open_store
    from tasks.experiment import find_experiment, list_experiments

    store, work = open_store(store_uri(given.store)), work_path(given.work_dir)
    if given.experiment:
        return find_experiment(store, work, given.experiment, finished=finished).id
    every = [one for one in list_experiments(store, work) if one.finished or not finished]
    if not every:
        raise InputError(f"{store.uri}: no experiment to choose from yet; `stress-vision train` makes one")
    if not sys.stdin.isatty():
        names = ", ".join(one.id for one in every[:_SHOWN])
        raise InputError(f"name an EXPERIMENT, or newest; the newest are {names}")
    rows = [{"": number, **one.row(store, work)} for number, one in enumerate(every[:_SHOWN], start=1)]
    print_table(rows, tuple(rows[0]))
    return _asked([one.id for one in every[:_SHOWN]])


def _asked(names: Sequence[str]) -> str:
    """A name, by its number or itself; Enter is the first."""
    try:
        answer = input("Which experiment (number or name, Enter for the newest)? ").strip() or "1"
    except EOFError:  # Ctrl-D
        raise KeyboardInterrupt from None
    if answer.isdigit() and 1 <= int(answer) <= len(names):
        return names[int(answer) - 1]
    return answer


def _run(step: Callable[..., Any], config: Any) -> int:
    """Run a step's flow, and print how it ended."""
    from flows.logs import log_our_errors_in_one_line
    from flows.server import start_server

    log_our_errors_in_one_line()
    start_server()
    return _conclude(step(config, return_state=True))


def _conclude(state: "State") -> int:
    result: Any = state.result()  # raises the error that ended it
    console = Console(highlight=False)
    console.print(f"\n[bold]{state.name}[/]", Text(state.message or ""), soft_wrap=True)
    if result.rows:
        columns = dict.fromkeys(name for row in result.rows for name in row)
        print_table(result.rows, tuple(columns))
    for path in result.files:
        console.print("written: ", Text(str(path)), soft_wrap=True)
    if after := _NEXT.get(state.name or ""):
        console.print(Text(after.format(result.experiment)), soft_wrap=True)
    return 0
