"""The speed of the degradation engine, by preset."""

from __future__ import annotations

import json

import cv2
import pytest

from benchmarks import __main__ as tool
from benchmarks.options import DegradationOptions
from glean_ext.degradations.presets import PRESETS


def test_every_preset_is_measured_and_written(tmp_path, capsys):
    threads, file = cv2.getNumThreads(), tmp_path / "speed.json"
    assert tool.parse(["degradations"]) == (DegradationOptions(512, 50), None)
    assert tool.main(["degradations", "--size", "64", "--images", "2", "--json", str(file)]) == 0
    speeds = json.loads(file.read_text())["speeds"]
    assert [speed["preset"] for speed in speeds] == list(PRESETS)
    for speed in speeds:
        times = speed["seconds"]
        assert speed["images_per_second"] == pytest.approx(2 / (times["minimum"] + times["maximum"]))
    assert "Degrading 64x64 pixels" in capsys.readouterr().out
    assert cv2.getNumThreads() == threads
