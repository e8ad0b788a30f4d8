"""What each preset reaches, as mean and range over seeds: the table of docs/figures.md.

    python -m tests.benchmarks.bench_presets retrain.toml --store /data/store [--presets smallest …]

Runs `stress-vision run` for each preset and seed, one after the other: hours each. Killed and started again
it goes on where it was. Everything is the INT8 file's, on the test split, which each network meets once, and
on the sources with `use = "evaluate"`. `--only-tell`: the table of what has been trained already.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from storage.objects import ObjectStore
from storage.opening import open_store
from tasks.candidate import Candidate
from tasks.night import Night, load_night
from tasks.presets import PRESETS
from tasks.train import TrainConfig

_CAMERAS = ("blur 1 px", "noise 10 levels", "light 25 %")
_PERCENT = "{:.1f} %"
_FIRST_SEED = TrainConfig().seed
Figures = dict[str, tuple[str, Callable[[Candidate], float | None]]]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("config", type=Path, help="sources, and all else that is the same for all")
    options.add_argument("--store", required=True)
    options.add_argument("--work-dir", type=Path, default=Path("work"))
    options.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    options.add_argument("--seeds", type=int, default=3, help="the everyday one and those after it")
    options.add_argument("--only-tell", action="store_true")
    given, others = options.parse_known_args()
    seeds = range(_FIRST_SEED, _FIRST_SEED + given.seeds)
    for preset in () if given.only_tell else given.presets:
        for seed in seeds:
            run(given.config, given.store, given.work_dir, preset, seed, others)
    nights = trained(open_store(given.store), given.work_dir.absolute())
    for line in table({preset: chosen(nights, preset, seeds) for preset in given.presets}):
        print(line)


def run(config: Path, store: str, work: Path, preset: str, seed: int, others: Sequence[str]) -> None:
    """A night of its own process; that its targets are missed is no error here."""
    words = ["--config", str(config), "--store", store, "--work_dir", str(work), "--preset", preset]
    words += ["--train.seed", str(seed), *others]
    done = subprocess.run([sys.executable, "-m", "flows.cli", "run", *words], check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{preset} with seed {seed} ended with status {done.returncode}")


def trained(store: ObjectStore, work: Path) -> list[Night]:
    """The records of all nights that trained a network, from old to new."""
    keys = [info.key.removeprefix("nights/").removesuffix(".json") for info in store.list("nights")]
    nights = [load_night(store, key, work) for key in keys]
    return sorted((night for night in nights if night and night.candidate), key=lambda night: night.id)


def chosen(nights: Iterable[Night], preset: str, seeds: Iterable[int]) -> list[Candidate]:
    """The last candidate of a preset with each of the seeds."""
    last = {night.config.train.seed: night.made for night in nights if night.config.preset == preset}
    return [last[seed] for seed in seeds if seed in last]


def table(presets: dict[str, list[Candidate]]) -> Iterable[str]:
    """Lines of Markdown: a figure a line, a preset a column, mean and range over its candidates."""
    yield "| | " + " | ".join(f"`{name}`, seeds: {len(made)}" for name, made in presets.items()) + " |"
    yield "|---" * (1 + len(presets)) + "|"
    some = next((made[0] for made in presets.values() if made), None)
    for name, (unit, figure) in (figures(some) if some else {}).items():
        cells = [spread([figure(one) for one in made], unit) for made in presets.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"


def spread(values: Sequence[float | None], unit: str) -> str:
    """Mean, and from which to which; a dash where one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    bare = unit.removesuffix(" %")
    mean, low, high = unit.format(sum(known) / len(known)), bare.format(min(known)), bare.format(max(known))
    return mean if low == high else f"{mean} ({low} to {high})"


def figures(some: Candidate) -> Figures:
    """Figure to its unit and how to read it; sources and sets are those that `some` was measured on."""
    plain: Figures = {
        "accuracy": (_PERCENT, lambda one: 100 * one.int8.accuracy),
        "macro recall": (_PERCENT, lambda one: 100 * one.int8.macro_recall),
        **{f"accuracy, {name} alone": (_PERCENT, of_source(name)) for name in some.int8.per_source},
        **{f"{name} found": (_PERCENT, of_class(name)) for name in some.int8.per_class},
        "stress: alarms that are right": (
            _PERCENT,
            lambda one: percent(one.int8.per_class["stress"].precision),
        ),
        "lost by quantization, points": ("{:.1f}", lambda one: one.points_lost),
        **{f"accuracy, {name}": (_PERCENT, through(name)) for name in _CAMERAS},
    }
    for place, found in enumerate(some.elsewhere.sets):
        plain[f"{found.source}: macro recall"] = (_PERCENT, elsewhere(place))
        plain[f"{found.source}: stress, area under the curve"] = ("{:.3f}", stress_area(place))
    return {
        **plain,
        "bytes": ("{:,.0f}", lambda one: one.model.bytes),
        "M instructions": ("{:.1f}", lambda one: one.model.instructions_m),
        "epochs": ("{:.0f}", lambda one: one.trained.epochs),
        "minutes of training": ("{:.0f}", lambda one: one.trained.seconds / 60),
    }


def of_source(name: str) -> Callable[[Candidate], float | None]:
    return lambda one: percent(one.int8.per_source[name].accuracy)


def of_class(name: str) -> Callable[[Candidate], float | None]:
    return lambda one: percent(one.int8.per_class[name].recall)


def through(camera: str) -> Callable[[Candidate], float | None]:
    return lambda one: next((100 * it.accuracy for it in one.cameras.cameras if it.camera == camera), None)


def elsewhere(place: int) -> Callable[[Candidate], float | None]:
    return lambda one: 100 * one.elsewhere.sets[place].macro_recall


def stress_area(place: int) -> Callable[[Candidate], float | None]:
    def area(one: Candidate) -> float | None:
        ranking = one.elsewhere.sets[place].per_class["stress"].ranking
        return ranking.auc if ranking else None

    return area


def percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


if __name__ == "__main__":
    main()
