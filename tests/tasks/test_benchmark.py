"""What a device says of its speed and its state."""

import pytest
from pydantic import ValidationError

from tasks.benchmark import BenchmarkConfig, Health, LatencyFigures, plain
from tests.tasks.small_run import latency


def test_a_hot_or_throttled_device_says_why_it_is_not_judged() -> None:
    config = BenchmarkConfig()
    assert Health(throttled=0, temperature_c=80.0).unfit(config) is None
    assert Health().unfit(config) is None
    assert Health(temperature_c=84.2).unfit(config) == "too hot: 84 °C, measured only up to 80 °C"
    assert Health(throttled=0b101).unfit(config) == "throttled: under-voltage, throttled"


def test_figures_are_unfit_if_the_device_was_before_or_after() -> None:
    hot = Health(temperature_c=99)
    for moment in ("health_before", "health_after"):
        assert latency(1).model_copy(update={moment: hot}).unfit(BenchmarkConfig())
    assert latency(1).unfit(BenchmarkConfig()) is None


def test_a_latency_is_another_processes_below_the_share_of_a_core() -> None:
    config = BenchmarkConfig(min_cpu_share=0.8)
    shares = {
        share: latency(1).model_copy(update={"cpu_share": share}).too_busy(config) for share in (0.79, 0.8)
    }
    assert shares == {0.79: True, 0.8: False}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_are_none(number: float) -> None:
    with pytest.raises(ValidationError, match="p95_ms"):
        LatencyFigures.model_validate({**latency(1).model_dump(), "p95_ms": number})


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[bold]as it is[/]", "[bold]as it is[/]"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07alert", "red alert"),
        ("\x1b]8;;http://evil\x1b\\link", "link"),
        ("one\ntwo\r\tthree\x00\x9b\u202efour", "one two three four"),
        ("84 °C, ñ, 顔", "84 °C, ñ, 顔"),
        ("x" * 501, "x" * 499 + "…"),
    ],
)
def test_what_a_device_says_is_one_line_of_printable_characters(said: str, shown: str) -> None:
    assert plain(said) == shown


def test_p99_of_fewer_than_a_thousand_frames_is_indicative() -> None:
    many = {runs: latency(1).model_copy(update={"runs": runs}).p99_is_indicative for runs in (999, 1000)}
    assert many == {999: True, 1000: False}
