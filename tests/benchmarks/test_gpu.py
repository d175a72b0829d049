"""``make gpu``: parts that fail, the tables, and its dry form on a CPU."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as tool
from benchmarks import gpu, gpu_parts
from benchmarks.gpu import Part, page, relate, run_part, table_of
from benchmarks.gpu_inference import Inference
from benchmarks.gpu_setup import Setup, row_or_reason
from benchmarks.options import GPU_BUDGETS, GPUOptions

ROOT = Path(__file__).parents[2]
WRITE = "import sys, time; file = open(sys.argv[1], 'w', buffering=1); print('{\"label\": \"a\"}', file=file); "
CPU = Setup("cpu", small=True)


def part(code: str, budget: float = 60) -> Part:
    return run_part("peak", [sys.executable, "-c", WRITE + code], budget)


# ---------------------------------------------------------------- parts as processes


def test_a_part_that_works():
    done = part("")
    assert (done.reason, done.rows, done.failed) == ("", [{"label": "a"}], False)


def test_a_part_sees_the_packages_of_the_run(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    done = part("import os, json; print(json.dumps(os.environ['PYTHONPATH']), file=file)")
    assert done.rows[1:] == [f"{ROOT}:/elsewhere"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('CUDA error: illegal access')", "RuntimeError: CUDA error: illegal access"),
        ("sys.exit(7)", "exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)  # fmt: skip
def test_a_failing_part_keeps_its_rows_and_has_one_line(code, reason):
    done = part(code)
    assert (done.reason, done.rows, done.failed) == (reason, [{"label": "a"}], True)


def test_a_part_that_takes_too_long_is_ended_with_what_it_started():
    sleep = "[sys.executable, '-S', '-c', 'import time; time.sleep(60)']"
    done = part(f"import subprocess; print(subprocess.Popen({sleep}).pid, file=file); time.sleep(60)", budget=2)
    assert done.reason == "it took more than its 2 s"
    row, child = done.rows
    assert row == {"label": "a"}
    for _ in range(100):  # the system may need a moment
        if not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes():
            return
        time.sleep(0.05)
    pytest.fail("the process that the part had started lives on")


def test_the_run_goes_on_after_a_failed_part(tmp_path, monkeypatch, capsys):
    def fake(name: str, command: list[str], budget: float) -> Part:
        assert command[1:] == ["-m", "benchmarks.gpu_parts", name, "cuda"] and budget == GPU_BUDGETS[name]
        return Part(name, 1.0, "no GPU" if name == "tests" else "", [{"label": name, "note": "fine"}])

    monkeypatch.setattr(gpu, "run_part", fake)
    report, whole = gpu.run_gpu(GPUOptions("cuda", False, tmp_path / "page.md"))
    assert not whole and [one["name"] for one in report["parts"]] == list(GPU_BUDGETS)
    assert json.loads((tmp_path / "page.json").read_text()) == report
    assert "Tests that need a GPU (FAILED after 1 s: no GPU)" in capsys.readouterr().out
    text = (tmp_path / "page.md").read_text()
    assert "It **failed**: no GPU." in text and "| processes | fine |" in text


def test_what_a_row_fails_for():
    row = row_or_reason("batch 8", lambda: torch.zeros(2) @ torch.zeros(3))
    assert row["label"] == "batch 8" and "size" in row["failed"] and "\n" not in row["failed"]


def test_eight_minutes():
    assert sum(GPU_BUDGETS.values()) <= 480 and set(gpu_parts.PARTS) == set(GPU_BUDGETS) == set(gpu.TITLES)


# ---------------------------------------------------------------- tables


def rows() -> list[Part]:
    case = {"case": "64 → 1024, batch 8", "precision": "float32"}
    theirs = {**case, "label": "MMagic", "reference": True, "seconds": 4.0, "memory": 8 * 2**30, "tflops": 10.0}
    ours = {**case, "precision": "bfloat16", "label": "ours", "seconds": 0.5, "memory": 2**30, "tflops": 80.0}
    peaks = [
        {"kind": "peak", "label": p, "precision": p, "tflops": t} for p, t in (("float32", 50.0), ("bfloat16", 400.0))
    ]
    return [Part("peak", 1.0, rows=peaks), Part("inference", 2.0, rows=[theirs, ours, {"label": "x", "failed": "a|b"}])]


def test_shares_and_relations():
    parts = rows()
    relate(parts)
    theirs, ours, failed = parts[1].rows
    assert (theirs["share"], ours["share"]) == (0.2, 0.2) and "speed" not in theirs
    assert (ours["speed"], ours["memory_ratio"]) == (8.0, 0.125)
    assert parts[1].failed and not parts[0].failed and failed == {"label": "x", "failed": "a|b"}
    headings, table = table_of(parts[1])
    assert headings == ["", "s", "GiB", "TFLOP/s", "of peak", "× MMagic", "memory / MMagic", ""]
    assert table[1] == ["ours", "0.5", "1.00", "80", "20%", "8.00", "0.12", ""]
    assert table[2] == ["x", *[""] * 6, "failed: a|b"]
    lines = page("a GPU", "make gpu", parts)
    assert "| x |  |  |  |  |  |  | failed: a/b |" in lines and "    make gpu" in lines


# ---------------------------------------------------------------- what is measured


def test_both_networks_compute_the_same():
    networks = Inference(CPU, 8, 16)
    theirs = networks.measure(2, "float32", "eager", mmagic=True)
    ours = networks.measure(2, "float32", "eager", mmagic=False)
    assert theirs["reference"] and not ours["reference"] and ours["case"] == theirs["case"] == "8 → 16, batch 2"
    assert ours["psnr"] > 100 and ours["memory"] is None
    assert ours["tflops"] * ours["seconds"] == pytest.approx(theirs["tflops"] * theirs["seconds"])


def test_the_training_step_on_a_gpu():
    case = gpu_parts.training_case(Setup("cuda", small=False), False, "bfloat16")
    model = case.model
    assert (model["generator"]["in_size"], model["generator"]["out_size"], case.batch) == (64, 1024, 8)
    assert model["r1_gamma"] > 0 and model["r1_interval"] == 16 and model["perceptual_loss"]["perceptual_weight"] > 0
    assert model["discriminator"]["in_size"] == 1024 and case.dtype == "bfloat16"


def test_options():
    assert tool.parse(["gpu"])[0] == GPUOptions("cuda", False, ROOT / "docs/performance_gpu.md")
    options, _ = tool.parse(["gpu", "--device", "cpu", "--small", "--parts", "peak", "loading"])
    assert options == GPUOptions("cpu", True, ROOT / "work_dirs/performance_gpu.md", ("peak", "loading"))


@pytest.mark.slow
def test_the_dry_form(tmp_path, capsys):
    assert tool.main(["gpu", "--device", "cpu", "--small", "--output", str(tmp_path / "page.md")]) == 0
    report = json.loads((tmp_path / "page.json").read_text())
    found = {part["name"]: part for part in report["parts"]}
    assert list(found) == list(GPU_BUDGETS) and not any(part["reason"] for part in report["parts"])
    assert all(part["rows"] for part in report["parts"]) and "torch" in report["machine"]
    theirs, ours = found["training"]["rows"]
    assert theirs["reference"] and ours["speed"] > 0 and ours["note"].startswith("R1 every 16 steps")
    assert found["compiled"]["rows"][0]["images_per_second"] > 0
    assert "gloo" in capsys.readouterr().out
