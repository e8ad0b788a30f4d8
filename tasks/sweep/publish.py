"""Where a sweep's result goes: its folder in the store, and Prefect's artifacts.

In: outcomes in the order of the variants. Out: sweep.json and accuracy_cost.png in one directory.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_table_artifact

from storage.files import write_whole
from storage.opening import open_store
from tasks.report.formats import data_uri, duration, figure, interval, megabytes, milliseconds, percent
from tasks.sweep.outcome import Failed, Figures, Outcome, best, compute_cost, finished, frontier
from tasks.sweep.picture import draw_accuracy_cost


def table(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """A row for each variant that finished, the most accurate first."""
    ranked = sorted(finished(outcomes), key=lambda one: -one.figures.accuracy)
    efficient = [one.name for cost in ("bytes", compute_cost(outcomes)) for one in frontier(outcomes, cost)]
    return [_row(one.name, one.figures, "yes" if one.name in efficient else "") for one in ranked]


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """The choice in a sentence, and what is cheaper and perhaps as good."""
    winner = best(outcomes)
    failed = "; ".join(f"{one.name} failed: {one.error}" for one in outcomes if isinstance(one, Failed))
    if winner is None:
        return f"No variant finished. {failed}"
    text = f"{winner.name} is the most accurate on validation: {percent(winner.figures.accuracy)}"
    floor = winner.figures.accuracy_ci[0]
    cheaper = frontier(outcomes, compute_cost(outcomes))[:-1]
    if rivals := [one.name for one in cheaper if one.figures.accuracy >= floor]:
        text += f"; within its 95 % interval and cheaper: {', '.join(rivals)}"
    if len({one.figures.data_fingerprint for one in finished(outcomes)}) > 1:
        text += "; variants were prepared in different ways, so they were not measured on the same images"
    return f"{text}. {failed}".strip()


def write_sweep(outcomes: Sequence[Outcome], directory: Path) -> None:
    """Write sweep.json and, where a variant finished, accuracy_cost.png."""
    winner = best(outcomes)
    content = {
        "split": "val",
        "winner": winner.name if winner else None,
        "conclusion": conclusion(outcomes),
        "variants": [outcome.model_dump(mode="json") for outcome in outcomes],
    }
    write_whole(directory / "sweep.json", json.dumps(content, indent=1, allow_nan=False))
    if drawn := finished(outcomes):
        draw_accuracy_cost(drawn, conclusion(drawn), directory / "accuracy_cost.png")


def _row(name: str, figures: Figures, efficient: str) -> dict[str, str]:
    return {
        "variant": name,
        "accuracy": percent(figures.accuracy),
        "95 % interval": interval(figures.accuracy_ci),
        "recall": percent(figures.macro_recall),
        "INT8 loses": f"{figures.quantization_loss:.1f}",
        "size": megabytes(figures.bytes),
        "p95": milliseconds(figures.host_p95_ms),
        "M instr.": figure(figures.instructions_m, 2),
        "training": duration(figures.train_seconds),
        "frontier": efficient,
    }


@task(name="publish-sweep", task_run_name="publish-sweep")
def publish_sweep(store_uri: str, outcomes: Sequence[Outcome], directory: Path) -> None:
    """Write the result, keep it in the store under sweeps/<id>/, and show it on the run's page."""
    write_sweep(outcomes, directory)
    store = open_store(store_uri)
    for path in sorted(directory.iterdir()):
        store.upload(path, f"sweeps/{directory.name}/{path.name}")
    create_table_artifact(table(outcomes), key="sweep", description=conclusion(outcomes))
    if (directory / "accuracy_cost.png").exists():
        create_image_artifact(data_uri(directory / "accuracy_cost.png"), key="accuracy-cost")
    get_run_logger().info(conclusion(outcomes))
