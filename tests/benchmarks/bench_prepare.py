"""fer2013.csv → splits on disk, audit included, against the straightforward version and against mere parsing.

    python -m tests.benchmarks.bench_prepare [fer2013.csv] [--naive-rows 4000]

Without a file, `STRESS_VISION_FER2013` or `../shared/data/fer2013/fer2013.csv` is taken, else as many drawn
faces as FER-2013 has images. The straightforward version (read_csv, a Python loop, 160x160x3 float32, savez)
needs some 11 GB for all rows: it does `--naive-rows` of them, and its time and memory are scaled up by rows.
Each figure is of a process of its own; the peak is its resident set.
"""

import argparse
import importlib
import io
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storage.opening import open_store
from tasks.ingest import IngestConfig, Source, ingest
from tasks.prepare import PrepareConfig, prepare
from tasks.prepare.fer2013 import read_fer2013
from tasks.prepare.threads import Pool
from tasks.synthetic import write_dataset


class Figures(NamedTuple):
    """What one process took; the wall time is the work's alone; CPU time includes its imports."""

    seconds: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", nargs="?", type=Path, help="fer2013.csv, unpacked")
    parser.add_argument("--naive-rows", type=int, default=4000, help="rows for the straightforward version")
    parser.add_argument("--tiles", type=int, default=10, help="copies for the memory test, 0 = none")
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of which the fastest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report(measure(options.csv or find_csv(Path(scratch)), Path(scratch), options))


def find_csv(scratch: Path) -> Path:
    for place in (os.environ.get("STRESS_VISION_FER2013"), "../shared/data/fer2013/fer2013.csv"):
        if place and Path(place).is_file():
            return Path(place)
    print("no fer2013.csv given or found: drawing 35,900 faces, which takes minutes")
    write_dataset(scratch / "drawn", 8975, seed=1)
    return scratch / "drawn/datasets/fer2013/fer2013.csv"


def measure(csv: Path, scratch: Path, options: argparse.Namespace) -> dict[str, Figures]:
    with csv.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    jobs = {
        "parse, numpy.fromstring": (parse_with_numpy, csv),
        "parse, pyarrow": (parse_with_pyarrow, csv),
        "parse, ours": (parse_with_ours, csv),
        "prepare, whole": (prepare_all, csv, scratch, 1),
        "straightforward": (straightforward, csv, options.naive_rows, scratch / "naive.npz"),
    }
    if options.tiles:
        jobs[f"prepare, {options.tiles} times the rows"] = (prepare_all, csv, scratch, options.tiles)
    rounds = [{name: in_own_process(*job) for name, job in jobs.items()} for _ in range(options.rounds)]
    figures = {name: [found for one in rounds if (found := one[name])] for name in jobs}
    best = {name: min(found) for name, found in figures.items() if found}
    scale = rows / options.naive_rows
    naive = best["straightforward"]
    return best | {"straightforward": Figures(*(figure * scale for figure in naive))}


def in_own_process(work: Callable, *arguments: object) -> Figures | None:
    """None where the library that `work` needs isn't installed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, *arguments))


def _measured(work: Callable, *arguments: object) -> Figures | None:
    start = time.process_time()
    try:
        seconds = work(*arguments)
    except ImportError:
        return None
    return Figures(
        seconds, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )


def parse_with_numpy(csv: Path) -> float:
    """The pixels alone, found by splitting lines; the fastest of the general parsers tried."""
    start = time.perf_counter()
    with csv.open("rb") as file:
        next(file)
        images = [np.fromstring(line[2 : line.rindex(b",")], np.uint8, sep=" ") for line in file]
    assert {len(image) for image in images} == {48 * 48}
    return time.perf_counter() - start


def parse_with_pyarrow(csv: Path) -> float:
    # no part of the environment: compared with where somebody has it
    arrow, uint8 = importlib.import_module("pyarrow.csv"), importlib.import_module("pyarrow").uint8

    names = [str(number) for number in range(48 * 48)]
    start = time.perf_counter()
    with csv.open("rb") as file:
        next(file)
        numbers = b"\n".join(line[2 : line.rindex(b",")] for line in file)
    table = arrow.read_csv(
        io.BytesIO(numbers),
        arrow.ReadOptions(column_names=names),
        arrow.ParseOptions(delimiter=" "),
        arrow.ConvertOptions(column_types=dict.fromkeys(names, uint8())),
    )
    assert table.num_columns == 48 * 48
    return time.perf_counter() - start


def parse_with_ours(csv: Path) -> float:
    start = time.perf_counter()
    with Pool(0) as pool:
        rows = sum(len(block.rows) for block in read_fer2013(csv, csv.name, pool))
    assert rows
    return time.perf_counter() - start


def prepare_all(csv: Path, scratch: Path, tiles: int) -> float:
    """Splits, audit, pictures; no augmentation, as the straightforward version has none."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        store, work = Path(folder) / "store", Path(folder) / "work"
        tiled = store / "datasets/fer2013/fer2013.csv"
        tiled.parent.mkdir(parents=True)
        with tiled.open("wb") as target, csv.open("rb") as source:
            target.write(next(source))
            for _ in range(tiles):
                source.seek(0)
                next(source)
                shutil.copyfileobj(source, target)
        sources = (Source(name="fer2013", prefix="datasets/fer2013"),)
        ingested = ingest(open_store(store), IngestConfig(sources=sources), work)
        config = PrepareConfig(target_per_class=0)
        start = time.perf_counter()
        data = prepare(ingested, config, work)
        seconds = time.perf_counter() - start
    assert data.leaked_pairs == 0
    return seconds


def straightforward(csv: Path, rows: int, target: Path) -> float:
    """What a first version does: pandas, a loop, every face 160x160x3 float32, one NPZ a split."""
    import pandas as pd
    from PIL import Image

    start = time.perf_counter()
    frame = pd.read_csv(csv, nrows=rows)
    images = []
    for pixels in frame["pixels"]:
        face = np.array([int(pixel) for pixel in pixels.split()], np.uint8).reshape(48, 48)
        large = Image.fromarray(face).resize((160, 160), Image.Resampling.BILINEAR).convert("RGB")
        images.append(np.asarray(large, np.float32) / 255)
    images = np.array(images)
    order = np.random.default_rng(0).permutation(len(images))
    cuts = [int(len(order) * share) for share in (0.7, 0.85)]
    for name, chosen in zip(("train", "val", "test"), np.split(order, cuts), strict=True):
        np.savez(
            target.with_name(f"{name}.npz"), images=images[chosen], labels=frame["emotion"].to_numpy()[chosen]
        )
    return time.perf_counter() - start


def report(figures: dict[str, Figures]) -> None:
    ours, naive = figures["prepare, whole"], figures["straightforward"]
    general = [one for name, one in figures.items() if name.startswith("parse, ") and "ours" not in name]
    parsing = min(general)
    print(f"{'':36}{'seconds':>10}{'CPU s':>10}{'peak MB':>10}")
    for name, (seconds, cpu, peak) in figures.items():
        print(f"{name:36}{seconds:10.1f}{cpu:10.1f}{peak:10.0f}")
    print(f"faster than straightforward: {naive.seconds / ours.seconds:.1f}x (target 15x)")
    print(f"peak memory: 1/{naive.peak_mb / ours.peak_mb:.0f} (target 1/10)")
    print(f"against parsing alone: {ours.seconds / parsing.seconds:.1f}x (target at most 4x)")
    for name, (_, _, peak) in figures.items():
        if "times the rows" in name:
            print(f"memory, {name}: {peak / ours.peak_mb:.2f}x (target at most 1.20x)")


if __name__ == "__main__":
    main()
