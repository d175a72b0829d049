"""Several processes do what one does, and a lost one ends the job. Through the shell scripts, with gloo on a CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.training import NO_STATISTICS, ROOT, SGD, environment, free_port, process, small_config
from torch import Tensor

import glean_ext.plugin  # noqa: F401  (allows mmengine's own objects in checkpoints)
from glean_ext import checkpoints
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.errors import InputError

CONFIG = small_config(
    SGD,
    "train_cfg = dict(max_iters=4, val_interval=4)",
    "default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))",
    "randomness = dict(seed=0)",
    "env_cfg = dict(dist_cfg=dict(backend='gloo'))",
    model=f"{NO_STATISTICS}, r1_gamma=1.0, r1_interval=2",
)
DOUBLE_PRECISION = """
custom_imports = dict(imports=['glean_ext.plugin', 'support.double_precision'])
"""
WITH_SUPPORT = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"  # for PYTHONPATH


def weights(work_dir: str, iteration: int) -> dict[str, Tensor]:
    return checkpoints.read(Path(work_dir, f"iter_{iteration}.pth"))


def validation(work_dir: str) -> dict[str, float]:
    """The metrics of the last validation."""
    (log,) = Path(work_dir).glob("*/vis_data/*[0-9].json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {name: value for name, value in lines[-1].items() if name in ("PSNR", "SSIM", "MAE")}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The weights of two runs in double precision, in which they differ by rounding alone."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype != torch.float32 or name.endswith(".kernel"), name  # constant filters
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_two_processes_train_and_validate_like_one_with_the_doubled_batch(home):
    Path("config.py").write_text(CONFIG + DOUBLE_PRECISION)
    start = [sys.executable, ROOT / "tools/train.py", "config.py"]
    one = process(*start, "--work-dir", "one", PYTHONPATH=WITH_SUPPORT)
    assert one.returncode == 0, one.stderr[-3000:]
    options = "--work-dir", "two", "--cfg-options", "train_dataloader.batch_size=1"
    start = ["bash", ROOT / "tools/dist_train.sh", "config.py", 2]
    two = process(*start, *options, MASTER_PORT=free_port(), PYTHONPATH=WITH_SUPPORT)
    assert two.returncode == 0, two.stderr[-3000:]

    start, expected, found = torch.load("bank.pth")["state_dict"], weights("one", 4), weights("two", 4)
    assert_close(found, expected)
    for part in "generator.encoder", "generator.decoder", "discriminator.convs":
        moved = [k for k in expected if k.startswith(part) and not torch.equal(expected[k], weights("one", 2)[k])]
        assert moved, f"{part} is trained"
    assert all(torch.equal(v.double(), found[f"generator.{k.replace('_ema', '')}"]) for k, v in start.items())
    assert validation("two") == pytest.approx(validation("one"), rel=1e-4)
    assert validation("two").keys() == {"PSNR", "SSIM", "MAE"}


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_it_resumes(home):
    options = "--work-dir", "work", "--cfg-options", "train_dataloader.batch_size=1", "train_cfg.max_iters=2000"
    env = environment(MASTER_PORT=free_port())
    command = ["bash", str(ROOT / "tools/dist_train.sh"), "config.py", "2", *options]
    with Path("log.txt").open("w") as log:
        job = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        while not Path("work/iter_4.pth").exists():
            assert job.poll() is None, Path("log.txt").read_text()[-3000:]
            time.sleep(0.1)
        children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[-1]), signal.SIGKILL)
        begin = time.monotonic()
        assert job.wait(60) != 0
    assert time.monotonic() - begin < 60
    assert re.search(r"\nerror: process \d was killed by SIGKILL. --resume continues from", Path("log.txt").read_text())

    last = max(int(path.stem[5:]) for path in Path("work").glob("iter_*.pth"))
    options = "--work-dir", "work", "--resume", "--cfg-options", "train_dataloader.batch_size=1"
    more = f"train_cfg.max_iters={last + 2}"
    done = process("bash", ROOT / "tools/dist_train.sh", "config.py", 2, *options, more, MASTER_PORT=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(f"work/iter_{last + 2}.pth").exists()


# Takes the place of train.py: what one of two processes ends with.
WORKER = """
import os, signal, time
from glean_ext import cli
from glean_ext.errors import InputError

def main():
    if os.environ["RANK"] == "0":
        time.sleep(60)  # a process that waits for the others
    if {kill}:
        os.kill(os.getpid(), signal.SIGKILL)
    raise InputError("data/GT/3.png is empty. Get the file again.")

cli.run(main)
"""


@pytest.mark.parametrize(
    ("kill", "code", "message"),
    [
        (False, 2, "data/GT/3.png is empty. Get the file again."),
        (True, 1, "process 1 was killed by SIGKILL. --resume continues from the newest checkpoint."),
    ],
)
def test_the_job_ends_as_its_first_process_that_fails(tmp_path, kill, code, message):
    (tmp_path / "train.py").write_text(WORKER.format(kill=kill))
    (tmp_path / "dist_train.sh").write_text((ROOT / "tools/dist_train.sh").read_text())
    begin = time.monotonic()
    done = process("bash", tmp_path / "dist_train.sh", "config.py", 2, MASTER_PORT=free_port())
    assert time.monotonic() - begin < 45
    assert done.returncode == code
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [f"error: {message}"]
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1] == f"error: {message}"


def test_a_number_of_processes_that_does_not_fit(home, monkeypatch):
    for gpus in "two", "0", "-1":
        done = process("bash", ROOT / "tools/dist_train.sh", "config.py", gpus)
        message = f"error: GPUS is {gpus}, but it is the number of processes on this machine. Give 1 or more.\n"
        assert (done.returncode, done.stderr) == (2, message)

    def fault(launcher: str) -> str:
        with pytest.raises(InputError) as error:
            runners.train(load_config("config.py", [f"launcher={launcher}"]))
        return str(error.value)

    assert fault("pytorch") == (
        "launcher='pytorch' is for processes that bash tools/dist_train.sh starts, and it did not start this one. "
        "Start it by bash tools/dist_train.sh, or leave launcher out."
    )
    assert fault("slurm") == (
        "launcher='slurm' is for processes that srun starts, and it did not start this one. Start it by srun, or leave "
        "launcher out."
    )
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert fault("pytorch") == "4 processes were started on this machine, but it has 2 GPUs. Start 2."


@pytest.mark.slow
def test_two_machines_train_like_one(home):
    """Two launchers on this machine, one process each."""
    options = "--work-dir", "two", "--cfg-options", "train_dataloader.batch_size=1"
    Path("config.py").write_text(CONFIG + DOUBLE_PRECISION)
    env = environment(MASTER_PORT=free_port(), PYTHONPATH=WITH_SUPPORT)
    command = ["bash", str(ROOT / "tools/dist_train.sh"), "config.py", "1", *options]
    machines = [
        subprocess.Popen(command, env=env | {"NNODES": "2", "NODE_RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    one = process(sys.executable, ROOT / "tools/train.py", "config.py", "--work-dir", "one", PYTHONPATH=WITH_SUPPORT)
    assert one.returncode == 0, one.stderr[-3000:]
    assert_close(weights("two", 4), weights("one", 4))
    assert validation("two") == pytest.approx(validation("one"), rel=1e-4)


def test_slurm_script_says_how_it_is_used_and_what_does_not_fit():
    script = ROOT / "tools/slurm_train.sh"
    done = process("bash", script, "gpu")
    usage = "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG GPUS [options of train.py]\n"
    assert (done.returncode, done.stderr) == (2, usage)
    done = process("bash", script, "gpu", "job", "config.py", 12)
    assert done.returncode == 2 and "12 GPUS cannot be spread over nodes of GPUS_PER_NODE=8" in done.stderr


def test_slurm_script_asks_for_what_was_meant(tmp_path):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", ROOT / "tools/slurm_train.sh", "gpu", "job", "c.py", "16", "--resume"]
    asked = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True).stdout
    for option in "--partition=gpu", "--gres=gpu:8", "--ntasks=16", "--ntasks-per-node=8", "--kill-on-bad-exit=1":
        assert option in asked
    assert asked.rstrip().endswith("train.py c.py --launcher slurm --resume")
