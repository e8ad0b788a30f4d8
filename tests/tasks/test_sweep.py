"""Which variants a sweep points out."""

from typing import Any

import pytest

from storage.errors import InputError
from storage.opening import open_store
from tasks.sweep import (
    Failed,
    Figures,
    Finished,
    best,
    conclusion,
    figures_of,
    frontier,
    recall_figures,
    record_figures,
    table,
)
from tests.tasks.small_run import small_candidate


def outcome(name: str, accuracy: float, size: int, p95: float, **others: object) -> Finished:
    figures: dict[str, Any] = {
        "experiment_id": name, "label_set": "fer2013", "data_fingerprint": "ab", "images": 100,
        "accuracy": accuracy, "accuracy_ci": (accuracy - 0.05, accuracy + 0.05), "macro_recall": accuracy,
        "quantization_loss": 0.1, "bytes": size, "host_p95_ms": p95, "instructions_m": None,
        "parameters": size, "epochs": 3, "train_seconds": 60.0, **others,
    }  # fmt: skip
    return Finished(name=name, figures=Figures(**figures))


SMALL = outcome("small", 0.80, 100, 1.0)
LARGE = outcome("large", 0.84, 900, 3.0)
POOR = outcome("poor", 0.79, 500, 2.0)
BROKEN = Failed(name="broken", error="no weights")


def test_the_most_accurate_wins_and_the_faster_of_equals():
    assert best([SMALL, LARGE, POOR, BROKEN]) == LARGE
    quick = outcome("quick", 0.84, 900, 2.0)
    assert best([LARGE, quick]) == quick
    assert best([BROKEN]) is None


def test_the_frontier_holds_what_nothing_beats_in_both_accuracy_and_cost():
    assert frontier([LARGE, POOR, SMALL, BROKEN], "bytes") == [SMALL, LARGE]
    assert frontier([LARGE, outcome("equal", 0.80, 100, 2.0), SMALL], "host_p95_ms") == [SMALL, LARGE]


def test_instructions_are_the_cost_where_every_variant_has_them_counted():
    heavy = outcome("heavy", 0.80, 100, 1.0, instructions_m=9.0)
    light = outcome("light", 0.80, 100, 5.0, instructions_m=2.0)
    assert best([heavy, light, BROKEN]) == light
    assert best([heavy, light, outcome("uncounted", 0.1, 1, 1.0)]) == heavy


def test_the_conclusion_names_cheaper_ones_within_the_interval_failures_and_unlike_images():
    text = conclusion([SMALL, LARGE, BROKEN])
    assert "large is the most accurate" in text and "cheaper: small" in text
    assert "broken failed: no weights" in text and "same images" not in text
    assert "not measured on the same images" in conclusion(
        [LARGE, outcome("p", 0.1, 1, 1, data_fingerprint="cd")]
    )


def test_the_table_has_a_row_for_each_that_finished_the_best_first():
    rows = table([SMALL, POOR, LARGE, BROKEN])
    assert [row["variant"] for row in rows] == ["large", "small", "poor"]
    assert [row["frontier"] for row in rows] == ["yes", "yes", ""]


def test_figures_are_remembered_by_their_key(tmp_path):
    store = open_store(tmp_path)
    assert recall_figures(store, "aa") is None
    record_figures(store, "aa", SMALL.figures)
    assert recall_figures(store, "aa") == SMALL.figures
    assert recall_figures(store, "bb") is None
    store.write("sweeps/variants/aa.json", b'{"accuracy": 0.9}')
    assert recall_figures(store, "aa") is None


def test_figures_of_the_test_split_are_refused(tmp_path):
    run = small_candidate(tmp_path)
    with pytest.raises(InputError, match="val split, got figures of the test"):
        figures_of(run.trained, run.original, run.model, run.int8)
