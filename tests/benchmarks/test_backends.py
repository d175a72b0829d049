"""The table of backends: ratios pair by pair, a report for each network and size, the last section of the page."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import backends, measure
from benchmarks.__main__ import parse
from benchmarks.options import BackendOptions


def report(in_size: int = 16, speed: float = 1.5) -> dict:
    row = {"label": "openvino GLEAN float32", "speed": speed, "cpu_speed": 1.25, "memory": None, "psnr": 99.7}
    int8 = {**row, "label": "openvino GLEAN int8", "memory": 0.5, "psnr": 12.0}
    return {
        "network": "glean",
        "in_size": in_size,
        "out_size": 256,
        "int8": True,
        "load": 0.5,
        "results": [row, int8],
        "machine": {"cpu": "a processor", "threads": 2},
    }


def test_ratios_are_those_of_pairs():
    times = [[1.0, 2.0, 4.0], [2.0, 2.0, 40.0]]
    assert backends._ratio(times, 0) == 2.0 and backends._ratio(times, 1) == 1.0


def test_a_report_replaces_an_older_one_of_the_same_network(tmp_path):
    path = tmp_path / "results.json"
    backends.add(report(speed=1), path)
    backends.add(report(in_size=32), path)
    assert backends.add(report(speed=2), path) == json.loads(path.read_text()) == [report(32), report(speed=2)]


def test_the_section_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Performance\n\nText.\n")
    for speed in 1.5, 1.75:
        backends.write_section([report(speed=speed)], page)
    text = page.read_text()
    assert text.startswith("# Performance\n\nText.\n\n## Backends\n") and text.count("## Backends") == 1
    assert "| openvino GLEAN float32 | 1.75 | 1.25 |  | 100 |\n" in text
    assert "| openvino GLEAN int8 | 1.75 | 1.25 | 0.50 |  |\n" in text


def test_processor_time_is_that_of_each_run():
    def work() -> None:
        torch.ones(400, 400) @ torch.ones(400, 400)

    wall, cpu = measure.wall_and_cpu([work, lambda: None], 2)
    assert [len(times) for times in (*wall, *cpu)] == [2] * 4
    assert min(cpu[0]) > 0 and max(cpu[1]) < 0.1


@pytest.mark.parametrize("memory", [True, False])
def test_options(memory):
    options, _ = parse(["backends", "--int8", "--in-size", "8", *[[], ["--no-memory"]][not memory]])
    assert isinstance(options, BackendOptions)
    assert (options.in_size, options.out_size, options.int8, options.memory) == (8, 1024, True, memory)
