"""The table of `python -m tests.benchmarks.bench_presets`, of small measured candidates."""

from pathlib import Path

from tests.benchmarks.bench_presets import chosen, spread, table
from tests.tasks.small_run import small_night


def test_a_figure_is_told_as_mean_and_range_and_not_where_one_lacks() -> None:
    assert spread([84.0, 86.0, 88.0], "{:.1f} %") == "86.0 % (84.0 to 88.0)"
    assert spread([3.0], "{:.0f}") == "3"
    assert spread([3.0, None], "{:.0f}") == "-" == spread([], "{:.0f}")


def test_the_table_has_the_last_candidate_of_each_seed(tmp_path: Path) -> None:
    night = small_night(tmp_path)
    seed, preset = night.config.train.seed, night.config.preset
    twice = night.model_copy(update={"candidate": night.made.model_copy(update={"against": ()})})
    made = chosen([night, twice], preset, [seed, seed + 1])
    assert len(made) == 1 and made[0] is twice.made
    assert chosen([night], preset, [-1]) == []
    lines = dict(
        line.strip("| ").split(" | ", 1) for line in table({preset: made}) if " | " in line.strip("| ")
    )
    assert lines["accuracy"] == f"{100 * night.made.int8.accuracy:.1f} %"
    assert lines["bytes"] == f"{night.made.model.bytes:,}"
    assert {"accuracy, blur 1 px", "stress found", "minutes of training"} <= set(lines)
