"""A morning report knows the nights before it."""

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.cli import main
from storage.opening import open_store
from tasks.register import Release
from tasks.report.history import PastNight, past_night, read_history, remember, trends
from tasks.report.pages import write_history, write_report
from tests.tasks.small_run import small_night

BEGAN = datetime(2026, 11, 1, 2, 15, tzinfo=UTC)


def nights(count: int) -> list[PastNight]:
    """Every third is rejected; the others made a release each."""
    return [
        PastNight(
            id=f"{BEGAN + timedelta(days=day):%Y%m%d_%H%M%S}",
            started_at=BEGAN + timedelta(days=day),
            preset="balanced",
            outcome="Rejected" if day % 3 == 2 else "Deployed",
            images=30_000 + 200 * day,
            accuracy=0.80 + 0.004 * day,
            macro_recall=0.78,
            stress_recall=0.6 + 0.01 * day,
            points_lost=0.2,
            latency_ms={"pi-1": 9.0 + day, "pi-2": 8.0},
            release=None if day % 3 == 2 else f"release-{day}",
            min_accuracy=0.84,
            headline="As it was said.",
        )
        for day in range(count)
    ]


def test_what_is_remembered_of_a_night_comes_back_in_order_and_what_is_no_night_is_left_out(tmp_path: Path):
    store = open_store(tmp_path)
    for night in reversed(nights(5)):
        remember(store, night)
    store.write("history/20261103_000000.json", b"")
    store.write("history/note.txt", b"")
    assert list(read_history(store)) == nights(5)
    assert list(read_history(store, last=2)) == nights(5)[-2:]


def test_a_night_is_remembered_with_the_figures_of_its_report(tmp_path: Path):
    night = small_night(tmp_path, min_accuracy=1.0)
    past = past_night(night)
    assert (past.outcome, past.accuracy) == ("Rejected", night.made.int8.accuracy)
    assert past.stress_recall == night.made.int8.per_class["stress"].recall
    assert past.images == sum(sum(night.made.data.counts[name].values()) for name in ("train", "val", "test"))
    assert list(past.latency_ms) == ["this host"]


def test_a_figure_is_drawn_where_two_nights_have_it_with_champion_and_target_marked():
    drawn = {title: str(picture) for title, *_, picture in trends(nights(6), "release-4")}
    assert list(drawn) == [
        "Accuracy, INT8", "Stress found", "Macro recall", "Lost by INT8, points", "Images", "pi-1, p95",
        "pi-2, p95",
    ]  # fmt: skip
    accuracy = drawn["Accuracy, INT8"]
    assert accuracy.count("<circle") == 6 and accuracy.count('class="good champion"') == 1
    assert accuracy.count('class="bad"') == 2 and 'class="target"' in accuracy
    assert "target" not in drawn["Images"]
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', accuracy)]
    assert heights == sorted(heights, reverse=True), "a better night stands higher"
    assert trends(nights(1), None) == []


def test_what_a_record_says_can_not_break_out_of_the_page(tmp_path: Path):
    hostile = nights(2)[1].model_copy(update={"preset": '"><script>alert(1)</script>', "headline": "<b>"})
    page = write_history([nights(1)[0], hostile], None, tmp_path).read_text()
    assert "<script" not in page and "<b>" not in page


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def links(page: Path) -> list[str]:
    parser = _Links()
    parser.feed(page.read_text())
    return [link for link in parser.found if not link.startswith(("#", "data:"))]


def test_report_and_history_lead_to_each_other_and_to_run_and_release(tmp_path: Path):
    night = small_night(tmp_path / "made", min_accuracy=1.0)
    release = Release(version="v1", uri="models/v1", manifest_sha256="ab", directory=tmp_path)
    night = night.model_copy(update={"run": "http://127.0.0.1:4200/runs/flow-run/1", "release": release})
    past = [*nights(3), past_night(night)]
    folder = tmp_path / "experiments" / night.id
    report = write_report(night, folder, past, "release-1")
    history = write_history(past, "release-1", tmp_path)
    assert (folder / "../../history.html").resolve() == history
    assert "../../history.html" in links(report) and "../../models/v1/report.html" in links(report)
    assert f"experiments/{night.id}/report.html" in links(history) and "models/v1/report.html" in links(
        history
    )
    assert night.run in links(report) and night.run in links(history)
    outside = [one for one in links(report) + links(history) if "://" in one]
    assert set(outside) == {night.run}, "nothing is asked of another place"


def test_a_first_night_has_no_past(tmp_path: Path):
    night = small_night(tmp_path, min_accuracy=1.0)
    assert "Nights before" not in write_report(night, tmp_path, [past_night(night)]).read_text()


def test_the_history_of_one_night_speaks_of_one_and_explains_no_picture(tmp_path: Path):
    page = write_history(nights(1), None, tmp_path).read_text()
    assert "· the night that had" in page and "Each dot" not in page
    page = write_history(nights(3), None, tmp_path).read_text()
    assert "· the last 3 nights that had" in page and "Each dot" in page


def test_history_prints_a_table_for_people_and_lines_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "130")
    for night in nights(4):
        remember(open_store(tmp_path), night)
    assert main(["history", "--store", str(tmp_path), "--last", "3"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[1:4]] == [
        "2026-11-02",
        "2026-11-03",
        "2026-11-04",
    ]
    assert "Rejected" in printed and "81.2 %" in printed and "history.html" in printed
    assert main(["history", "--store", str(tmp_path), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [night.id for night in nights(4)]
    assert rows[0]["champion"] is False
