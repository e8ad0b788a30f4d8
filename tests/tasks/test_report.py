import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.champion import AgainstRelease
from tasks.convert import ConvertedModels
from tasks.evaluate import Paired
from tasks.evaluate.layers import LayerError
from tasks.gate import GateConfig, judge
from tasks.night import Night
from tasks.register import Release
from tasks.report.formats import duration, megabytes, outcome_words, points
from tasks.report.pages import (
    model_card_markdown,
    summary_markdown,
    write_model_card,
    write_report,
    write_verdict,
)
from tasks.rollout import DeviceOutcome, FleetOutcome
from tests.tasks.small_run import latency, small_night

PAIRED = Paired(both_right=40, candidate_only=5, champion_only=2, neither=3)


@pytest.fixture(scope="module")
def rejected(tmp_path_factory):
    return small_night(tmp_path_factory.mktemp("night"), min_accuracy=0.999)


def with_candidate(night: Night, **update: Any) -> Night:
    """The night with other results of its candidate."""
    return night.model_copy(update={"candidate": night.made.model_copy(update=update)})


@pytest.fixture
def accepted(rejected):
    return rejected.model_copy(update={"verdict": rejected.verdict.model_copy(update={"passed": True})})


@pytest.fixture
def release(tmp_path):
    return Release(version="20261122-031500-abab", uri="s3://b/m", manifest_sha256="cd", directory=tmp_path)


def fleet(*outcomes):
    devices = [
        DeviceOutcome(
            device=f"pi-{number}",
            outcome=outcome,
            reason=f"<{outcome}> | because",
            benchmark=latency(10 + number) if outcome == "updated" else None,
            seen_at=None if outcome == "unreachable" else datetime(2026, 11, 22, 3, 40, tzinfo=UTC),
        )
        for number, outcome in enumerate(outcomes)
    ]
    return FleetOutcome(release="r", devices=tuple(devices), max_latency_ms=200)


def test_a_report_is_one_file_that_asks_nothing_of_the_network(rejected, tmp_path):
    page = write_report(rejected, tmp_path).read_text()
    assert page.count("data:image/png;base64,") == 5
    assert not re.findall(r"<script|<link|@import|url\(|src=\"(?!data:)", page)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_rejected_run_says_first_what_was_missed_and_that_no_device_was_touched(rejected, tmp_path):
    page = write_report(rejected, tmp_path).read_text()
    assert rejected.outcome == "Rejected"
    assert page.index("Missed targets: accuracy") < page.index("<main>")
    assert "No device was touched" in page
    for check in rejected.verdict.checks:
        assert check.name in page


@pytest.mark.parametrize(
    ("outcomes", "word", "headline"),
    [
        (("updated", "updated"), "Deployed", "is seen to run on 2 of 2 devices"),
        (("updated", "unreachable"), "PartlyDeployed", "is seen to run on 1 of 2 devices"),
        (("updated", "failed"), "RolloutFailed", "is seen to run on 1 of 2 devices"),
        (("unreachable", "inconclusive"), "NotDeployed", "is seen to run on 0 of 2 devices"),
    ],
)
def test_no_device_is_claimed_that_was_not_updated(accepted, release, outcomes, word, headline, tmp_path):
    run = accepted.model_copy(update={"release": release, "fleet": fleet(*outcomes) if outcomes else None})
    assert run.outcome == word
    assert headline in run.headline
    page = write_report(run, tmp_path).read_text()
    assert all(f'<span class="pill {outcome}">' in page for outcome in outcomes)
    assert page.count("<td>not known</td>") == sum(not device.seen_at for device in run.fleet.devices)


def test_a_release_without_a_fleet_is_registered_and_says_so(accepted, release, tmp_path):
    run = accepted.model_copy(update={"release": release})
    assert run.outcome == "Registered"
    assert "no fleet was asked for" in write_report(run, tmp_path).read_text()


def test_a_night_that_lost_by_quantization_names_the_layers_that_lose_most(rejected, tmp_path):
    layers = (
        LayerError(name="stage_3/conv", relative_error=0.42),
        LayerError(name="stem", relative_error=0.1),
    )
    original = rejected.made.original.model_copy(update={"accuracy": rejected.made.int8.accuracy + 0.05})
    run = with_candidate(rejected, original=original).model_copy(update={"layer_errors": layers})
    page = write_report(run, tmp_path).read_text()
    assert "<code>stage_3/conv</code>" in page and "42.0 %" in page
    assert "most in stage_3/conv, stem" in summary_markdown(run)


def test_the_slowest_device_is_the_latency_shown(accepted, release, tmp_path):
    run = accepted.model_copy(update={"release": release, "fleet": fleet("updated", "failed", "updated")})
    assert run.slowest_p95_ms == latency(12).p95_ms
    assert "Latency, slowest device" in write_report(run, tmp_path).read_text()


def test_text_from_a_device_can_not_break_the_page_or_a_table(accepted, release, tmp_path):
    run = accepted.model_copy(update={"release": release, "fleet": fleet("updated")})
    assert "&lt;updated&gt; | because" in write_report(run, tmp_path).read_text()
    assert "<updated> \\| because" in summary_markdown(run)


def test_a_report_without_pictures_still_stands(rejected, tmp_path):
    bare = with_candidate(
        rejected,
        int8=rejected.made.int8.model_copy(update={"pictures": {}}),
        original=rejected.made.original.model_copy(update={"pictures": {}}),
    )
    assert "data:image" not in write_report(bare, tmp_path).read_text()
    assert summary_markdown(bare)
    assert model_card_markdown(bare)


def test_shortcuts_stand_in_a_table_of_their_own_the_surest_first(rejected, tmp_path):
    told = {"among": "all", "images": 60, "logistic_originals": 0.5, "trees_originals": 0.5, "chance": 0.1}
    audit = {"leaked_pairs": 0, "shortcuts": {"shortcuts": [
        {"told": "sad", "logistic": 0.51, "trees": 0.52, **told},
        {"told": "fatigue", "logistic": 0.91, "trees": 0.9, **told},
    ]}}  # fmt: skip
    kept = rejected.data.metadata_path.read_text()
    rejected.data.metadata_path.write_text(json.dumps({**json.loads(kept), "audit": audit}))
    page = write_report(rejected, tmp_path).read_text()
    rejected.data.metadata_path.write_text(kept)
    found = re.findall(r"<th>(\w+)</th><td>all</td>.*?>(0\.\d+)</td><td class=\"n\">(0\.\d+)<", page)
    assert found == [("fatigue", "0.91", "0.50"), ("sad", "0.52", "0.50")]


def test_the_verdict_with_its_targets_lies_beside_the_report_as_json(rejected, tmp_path):
    facts = json.loads(write_verdict(rejected, tmp_path).read_text())
    assert facts["outcome"] == "Rejected" and not facts["verdict"]["passed"]
    missed = [check for check in facts["verdict"]["checks"] if not check["passed"]]
    assert {"name": "accuracy", "target": 0.999}.items() <= missed[0].items()
    assert facts["targets"]["min_accuracy"] == 0.999 and facts["targets"]["max_model_mb"] == 10


def test_latency_and_accuracy_of_every_file_stand_in_the_report(rejected, tmp_path):
    int8 = rejected.made.model
    models = {"int8": int8, "float16": int8.model_copy(update={"format": "float16"})}
    half = rejected.made.int8.model_copy(update={"model": "float16", "accuracy": 0.7654})
    run = with_candidate(rejected, converted=ConvertedModels(models=models), float_files={"float16": half})
    page = write_report(run, tmp_path).read_text()
    assert "76.5 %" in page and "stress-vision tensorboard" in page
    timed = page.split("Latency of a frame on this host")[1]
    for figure in ("0.2 ms", "0.01 ms", "0.24 ms", "0.3 ms", ">5000<", "Mean", "Std", "p99", "FPS"):
        assert figure in timed, figure


def test_a_figure_that_was_not_measured_is_called_so(rejected, tmp_path):
    unmeasured = rejected.made.model.model_copy(update={"host_latency": None})
    run = with_candidate(rejected, converted=ConvertedModels(models={"int8": unmeasured}))
    targets = GateConfig(max_instructions_m=8, source_accuracy_floors={"night": 0.5})
    run = run.model_copy(update={"verdict": judge(run.made, targets)})
    assert run.latency_ms is None
    assert write_report(run, tmp_path).read_text().count(">not measured<") == 6
    assert "None" not in summary_markdown(run)


def test_the_summary_is_small_enough_for_an_artifact_and_names_every_check_and_class(rejected):
    text = summary_markdown(rejected)
    assert len(text.encode()) < 60_000
    assert "data:image" not in text
    for name in [check.name for check in rejected.verdict.checks] + list(rejected.made.int8.per_class):
        assert f"| {name} |" in text


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(rejected, release):
    run = rejected.model_copy(update={"release": release, "fleet": fleet("updated", "failed")})
    for text in (summary_markdown(run), model_card_markdown(run)):
        tables = [block for block in re.split(r"\n(?!\|)", text) if "|---" in block]
        assert len(tables) >= 3
        for table in tables:
            rows = [line for line in table.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, table


def test_the_model_card_gives_use_data_figures_limits_and_the_law(rejected, tmp_path):
    markdown, html = write_model_card(rejected, tmp_path)
    text = markdown.read_text()
    for heading in ("Intended use", "Data", "Figures", "Limits"):
        assert f"## {heading}" in text
        assert f"<h2>{heading}</h2>" in html.read_text()
    assert "Article 5(1)(f)" in text
    assert rejected.data.fingerprint in text
    assert html.read_text().count("<table>") == 3


@pytest.mark.parametrize(
    ("champion", "said", "unsaid"),
    [
        ({"paired": PAIRED, "seen": 0}, "right on 5, only the champion on 2", "test images were training"),
        ({"paired": PAIRED, "seen": 7}, "7 of the 50 test images were training", "not recorded"),
        ({"paired": PAIRED}, "It is not recorded which images", "test images were training"),
        ({"paired": None, "reason": "other size"}, "be compared with: other size", "McNemar"),
    ],
)
def test_the_report_says_how_the_champion_was_compared_with(rejected, tmp_path, champion, said, unsaid):
    run = with_candidate(rejected, against=(AgainstRelease(role="champion", version="v1", **champion),))
    page = write_report(run, tmp_path).read_text()
    assert said in page and unsaid not in page


def test_instructions_and_a_warm_start_stand_in_report_and_card(rejected, tmp_path):
    counted = rejected.made.model.model_copy(update={"instructions_m": 7.23})
    warm = rejected.made.int8.model_copy(update={"left_out": 4})
    run = with_candidate(rejected, converted=ConvertedModels(models={"int8": counted}), int8=warm)
    page = write_report(run, tmp_path).read_text()
    assert "7.23 million instructions" in page and "learnt from 4 of the test images" in page
    card = model_card_markdown(run)
    assert "instructions per inference | 7.23" in card and "learnt from 4 more" in card
    assert "instructions" not in model_card_markdown(rejected)


def test_quantities_are_written_for_people():
    assert (megabytes(770_000), megabytes(8_520), megabytes(None)) == ("0.77 MB", "8.5 kB", "-")
    assert (duration(4.26), duration(312.5), duration(7_260)) == ("4.3 s", "5 min 12 s", "2 h 1 min")
    assert outcome_words("PartlyDeployed") == "Partly deployed"
    assert (points(-0.0004), points(0.0123), points(None)) == ("0.0 points", "+1.2 points", "-")
