"""``python -m benchmarks conditions``: what it measures, and the end of the page."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from support.networks import TINY

from benchmarks import backends, conditions, conditions_page
from benchmarks.__main__ import parse
from benchmarks.cases import Case
from benchmarks.options import CONDITIONS, ConditionsOptions
from benchmarks.process_memory import run_process
from glean_ext.errors import InputError

SIZES = {
    "network": "glean",
    "in_size": 16,
    "out_size": 256,
    "load": 0.5,
    "machine": {"cpu": "a processor", "threads": 2},
}
REPORTS = [
    {
        "part": "memory",
        "rows": [
            {"label": "torch", "peak": 600 << 20, "ratio": 0.6, "cpu_seconds": 3.4},
            {
                "label": "new",
                "peak": 3 << 20,
                "ratio": 0.5,
                "unmapped": 2 << 20,
                "unmapped_ratio": 0.4,
                "cpu_seconds": 1,
            },
        ],
    },
    {"part": "busy", "rows": [{"label": "torch", "wall": 1.75, "cpu": 1.04, "quiet": 2.5}]},
    {"part": "batches", "batches": [1, 4], "rows": [{"label": "torch", "wall": [2.0, 1.5], "cpu": [4.0, 3.25]}]},
    {
        "part": "folder",
        "images": 2000,
        "rows": [{"label": "restore", "memory": [700, 710, 705], "seconds": 40.0, "share": 0.9}],
    },
    {
        "part": "int8",
        "rows": [
            {
                "label": "demo",
                "psnr": 41.25,
                "layers": 9,
                "kept": {"conv_3": 31.0},
                "speed": {"AVX2": {"ratio": 1.5}, "": {"ratio": 2.5}},
            }
        ],
    },
]


def test_the_section_has_every_part():
    text = "\n".join(conditions_page.lines([SIZES | report for report in REPORTS]))
    assert text.count("###") == len(conditions.PARTS) == len(CONDITIONS)
    for line in (
        "| torch | 600 | 0.60 | 3 |",
        "| new | 3 (2) | 0.50 (0.40) | 1 |",
        "| torch | 1.75 | 1.04 | 2.50 |",
        "| torch | 0.5 (4.00) | 0.667 (3.25) |",
        "| restore | 700 | 710 | 705 | 50 | 90% |",
        "| demo | 41.2 | 8 of 9 | 1.50 | 2.50 |",
        "demo keeps conv_3 in fp32: alone in int8 it would leave 31.0 dB.",
    ):
        assert line in text.splitlines()


def test_a_report_replaces_an_older_one_and_stays_when_backends_are_measured(tmp_path):
    results = tmp_path / backends.CONDITIONS
    for seconds in 9, 3.4:
        report = SIZES | {"part": "memory", "rows": [REPORTS[0]["rows"][0] | {"cpu_seconds": seconds}]}
        conditions.add(report, results)
    conditions.add(report | {"in_size": 64}, results)
    assert [old["in_size"] for old in json.loads(results.read_text())] == [16, 64]
    backends.write_section([SIZES | {"results": []}], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.index("## Backends") < text.index("### Peak memory") and text.count("| torch | 600 | 0.60 | 3 |") == 2
    backends.write_section(backends.known(tmp_path / "none.json"), tmp_path / "page.md")
    assert "### Peak memory" in (tmp_path / "page.md").read_text()


def test_the_peak_of_a_process_is_its_own(tmp_path):
    ballast = bytearray(300 << 20)  # of this process, which is not to count
    code = "import time; x = bytearray(b'x' * (50 << 20)); time.sleep(0.2)"
    measured = run_process([sys.executable, "-S", "-c", code], tmp_path)
    assert 100 << 20 < measured["peak"] < 200 << 20 < len(ballast)
    assert 50 << 20 < measured["unmapped"] < measured["own"] < 1.05 * measured["peak"]
    with pytest.raises(InputError, match="failed: no"):
        run_process([sys.executable, "-S", "-c", "raise SystemExit('no')"], tmp_path)


def test_options():
    options, _ = parse(["conditions", "busy", "--in-size", "16"])
    assert isinstance(options, ConditionsOptions)
    assert (options.part, options.in_size, options.out_size) == ("busy", 16, 1024)
    assert options.results.name == backends.CONDITIONS


class Work:
    """A few milliseconds of a processor, for each image and once."""

    lq = range(max(conditions.BATCHES))

    def run(self) -> int:
        return sum(range((100 + len(self.lq)) * 1000))


def test_runs_beside_a_busy_process_and_in_batches(monkeypatch):
    @contextmanager
    def workloads(options, batch=1):
        yield {"work": Work()}

    monkeypatch.setattr(conditions, "_workloads", workloads)
    options, _ = parse(["conditions", "busy", "--in-size", "16", "--out-size", "256", "--repeats", "2"])
    busy = conditions.beside_a_busy_process(options, Console(quiet=True))
    (row,) = busy["rows"]
    assert busy["in_size"] == 16 and min(row["wall"], row["cpu"], row["quiet"]) > 0
    batches = conditions.by_batch(options, Console(quiet=True))
    (row,) = batches["rows"]
    assert len(row["cpu"]) == len(row["wall"]) == len(conditions.BATCHES) and row["cpu"][0] > row["cpu"][-1] > 0


def test_candidates_share_their_network_between_batches(tmp_path, monkeypatch):
    case = Case("infer", {"generator": TINY | {"bank_init": "random"}}, False, "float32", "cpu", 1)
    monkeypatch.setattr(
        backends, "cases_of", lambda options, folder: [case, replace(case, mmagic=True, prepared=False)]
    )
    options, _ = parse(["conditions", "batches"])
    with conditions._workloads(options, 3) as workloads:
        (workload,) = workloads.values()
        one = conditions.with_images(workload, 1)
    assert one.net is workload.net and workload.run().shape[0] == 3
    torch.testing.assert_close(one.run(), workload.run()[:1])
