"""What `python -m tests.benchmarks.bench_peers` says of rows and sources, without a peer's wheel."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import InputError
from tests.benchmarks.bench_peers import PEERS, Row, behind_in, cell, images_of, photos_of

OURS = Row("ours", 0.8, (0.75, 0.85), 0.7, (0.6, 0.8), 0.5, 0.9, 1000, 7.0, 0.1)


def test_a_peer_is_ahead_where_it_finds_more_or_costs_less_and_not_where_one_was_not_measured() -> None:
    better = replace(OURS, accuracy=0.9, stress_auc=0.95, bytes=900)
    worse = replace(OURS, accuracy=0.7, macro_recall=0.6, stress_found=0.4, stress_auc=0.8, bytes=2000)
    assert behind_in(OURS, replace(better, macro_recall=0.6, stress_found=None, instructions_m=None)) == [
        "accuracy",
        "stress: area under the curve",
        "bytes",
    ]
    assert behind_in(OURS, replace(worse, instructions_m=8.0)) == []
    assert len(behind_in(OURS, OURS)) == 6


def test_a_figure_stands_with_its_interval_where_it_has_one() -> None:
    assert cell(OURS, "accuracy", ".1%") == "80.0% (75.0% to 85.0%)"
    assert cell(OURS, "bytes", ",") == "1,000"
    assert cell(replace(OURS, stress_auc=None), "stress_auc", ".3f") == "not measured"


def test_an_unknown_source_is_told_which_there_are(tmp_path: Path) -> None:
    known = {"sources": ["fer2013"], "elsewhere": {"office": {}}, "label_set": "ferplus_votes"}
    (tmp_path / "metadata.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match="no source 'ofice'; it has fer2013, office"):
        images_of(tmp_path, "ofice", 0, None)


def test_peers_are_shown_the_files_themselves_in_their_own_size(tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    Image.new("RGB", (90, 120), (255, 255, 255)).save(tmp_path / "sad/a.png")
    [photo] = photos_of(tmp_path, np.array([b"office:sad/a.png"]))
    assert photo.shape == (120, 90, 1)
    for peer in PEERS:
        fed = peer.prepare(photo, {})
        assert fed.shape == (1, peer.px, peer.px, peer.channels) and fed == pytest.approx(1)
    with pytest.raises(InputError, match=r"1 of 2 images have no file there, the first is .*b\.png"):
        photos_of(tmp_path, np.array([b"office:sad/a.png", b"office:sad/b.png"]))
