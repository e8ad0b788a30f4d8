"""What follows from a night's results."""

from datetime import UTC, datetime

import pytest

from flows.config import RetrainConfig
from flows.experiment import Experiment
from flows.night import Night
from tasks.evaluate.layers import LayerError
from tasks.ingest import Ingested
from tasks.report import summary_markdown, write_report
from tests.tasks.small_run import small_run

LAYERS = (LayerError(name="stage_3/conv", relative_error=0.42), LayerError(name="stem", relative_error=0.1))


@pytest.fixture
def night(tmp_path):
    """A night that lost by quantization what `lost` says, in points."""

    def after(lost: float) -> Night:
        run = small_run(tmp_path)
        accuracy = run.int8.accuracy + lost / 100
        return Night(
            config=RetrainConfig(),
            started=datetime.now(UTC),
            experiment=Experiment(id="20261122_031500", key="ab", champion=None, directory=tmp_path),
            ingested=Ingested(sources=(), fingerprint="ab", blobs=tmp_path, seconds=1.0),
            data=run.data,
            drift=None,
            trained=run.trained,
            original=run.evaluations["float"].model_copy(update={"accuracy": accuracy}),
            converted=run.converted,
            quantized=run.int8,
            champion=None,
        )

    return after


def test_layers_are_worth_measuring_only_where_int8_loses_more_than_its_bound(night):
    assert night(3.5).lost_by_quantization
    assert not night(2.5).lost_by_quantization


def test_the_report_and_the_advice_name_the_layers_that_lose_most(night, tmp_path):
    inputs = night(3.5).report_inputs(None, None, LAYERS)
    page = write_report(inputs, tmp_path).read_text()
    assert "<code>stage_3/conv</code>" in page and "42.0 %" in page
    assert "most in stage_3/conv, stem" in summary_markdown(inputs)
