"""The parts of ``make gpu``, each a process: ``python -m benchmarks.gpu_parts PART DEVICE [--small] FILE``.

A part yields rows, which :mod:`benchmarks.gpu` reads from FILE; each is written as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import measure
from benchmarks.cases import SEED, Case, Training
from benchmarks.comparison import machine_line
from benchmarks.data_loading import make_test_image
from benchmarks.gpu_inference import compiled, inference
from benchmarks.gpu_setup import TERA, Row, Setup, allocated, peak_bytes, row_or_reason, seconds_of, use_precision
from glean_ext.config import load_config

ROOT = Path(__file__).parents[1]
TRAIN_CONFIG, PROCESS_CONFIG = ROOT / "configs/glean_x16_ffhq.py", ROOT / "configs/demo_glean_x8.py"
R1_INTERVAL = 16

# Peak


def peak(setup: Setup) -> Iterator[Row]:
    """The throughput of a large matrix product in each precision."""
    side = 256 if setup.small else 8192
    for precision in setup.precisions:

        def measured(precision: str = precision) -> Row:
            dtype = use_precision(precision)
            a, b = (torch.randn(side, side, device=setup.device).to(dtype) for _ in range(2))
            seconds = seconds_of(lambda: [a @ b for _ in range(10)], setup) / 10
            return {"kind": "peak", "precision": precision, "tflops": 2 * side**3 / seconds / TERA}

        yield row_or_reason(precision, measured)
    for precision in setup.precisions:
        for layout in torch.channels_last, torch.contiguous_format:
            label = f"depthwise 4×4, {precision}, {str(layout).removeprefix('torch.')}"
            yield row_or_reason(label, partial(measure_depthwise, setup, precision, layout))
    environment = measure.describe_environment(setup.device)
    gpus = torch.cuda.device_count() if setup.on_gpu else 0
    yield {"label": "GPUs", "machine": machine_line(environment), "note": str(gpus)}


def measure_depthwise(setup: Setup, precision: str, layout: torch.memory_format) -> Row:
    """The filter after each upsampling, in the layout that ``conv2d_gradfix.prefers_channels_first`` decides about."""
    dtype, side, channels = use_precision(precision), *((16, 4) if setup.small else (1024, 64))
    x = torch.randn(4, channels, side, side, device=setup.device, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(channels, 1, 4, 4, device=setup.device, dtype=dtype)
    with torch.inference_mode():
        return {"seconds": seconds_of(lambda: F.conv2d(x, weight, padding=1, groups=channels), setup)}


# Training


def training_case(setup: Setup, mmagic: bool, precision: str) -> Case:
    """A step as configs/glean_x16_ffhq.py has it, with R1; 64 -> 1024, batch 8."""
    config = load_config(TRAIN_CONFIG)
    model = config.model.to_dict()
    model |= {"r1_gamma": 10.0, "r1_interval": R1_INTERVAL}
    in_size, out_size = setup.sizes[0]
    generator = {k: v for k, v in setup.generator(in_size, out_size).items() if k != "bank_init"}
    model["generator"] = {**model["generator"], **generator}
    model["discriminator"]["in_size"] = out_size
    batch = 2 if setup.small else 8
    return Case("train", model, mmagic, precision, setup.device, batch, optim_wrapper=config.optim_wrapper.to_dict())


def training(setup: Setup) -> Iterator[Row]:
    """A training step of both; in float32 TF32 is used where PyTorch's defaults and MMagic's configs use it."""
    torch.backends.cudnn.benchmark = setup.on_gpu  # as configs/_base_/runtime.py
    ours = ["bfloat16", "float32"] if setup.on_gpu else ["float32"]
    for mmagic, precision in [(True, "float32"), *((False, one) for one in ours)]:
        label = f"{'MMagic, no R1' if mmagic else 'ours, R1'}, {precision}"
        yield row_or_reason(label, partial(measure_training, setup, mmagic, precision))


def measure_training(setup: Setup, mmagic: bool, precision: str) -> Row:
    """Seconds of a step, in ours with its share of the step with R1, and the largest memory of either."""
    before = allocated(setup)
    case = training_case(setup, mmagic, precision)
    steps = Training(case)
    counter = steps.restorer.step_counter

    def step(number: int) -> None:
        counter.fill_(number)
        steps.run()

    step(0)
    memory = peak_bytes(lambda: step(0), setup, before)
    seconds = seconds_of(lambda: step(1), setup)
    note = ""
    if not mmagic:
        with_r1 = seconds_of(lambda: step(0), setup)
        note = f"R1 every {R1_INTERVAL} steps: {with_r1:.3g} s, else {seconds:.3g} s"
        seconds += (with_r1 - seconds) / R1_INTERVAL
    return {
        "case": "training",
        "reference": mmagic and precision == "float32",
        "precision": precision,
        "seconds": seconds,
        "images_per_second": case.batch / seconds,
        "memory": memory,
        "note": note,
    }


# Loading


def loading(setup: Setup) -> Iterator[Row]:
    """Images/s of the data loader of the training config, with as many processes as there are processors."""
    from PIL import Image

    import glean_ext.plugin  # noqa: F401

    in_size, out_size = setup.sizes[0]
    processes = 1 if setup.small else min(measure.describe_environment("cpu")["machine"]["cpus"], 16)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "images").mkdir()
        first = Path(folder, "images", "0.png")
        Image.fromarray(make_test_image(out_size)).save(first)
        for i in range(1, 16):
            os.link(first, first.with_name(f"{i}.png"))
        yield row_or_reason(
            f"{out_size}² PNG, ×{out_size // in_size}, {processes} processes",
            partial(measure_loader, setup, folder, processes),
        )


def measure_loader(setup: Setup, folder: str, processes: int) -> Row:
    from mmengine.runner import Runner

    in_size, out_size = setup.sizes[0]
    config = load_config(TRAIN_CONFIG)
    dataset = {**config.train_dataloader.dataset, "data_root": folder, "scale": out_size // in_size}
    loader = {**config.train_dataloader, "dataset": dataset, "num_workers": processes, "batch_size": 8}
    batches = iter(Runner.build_dataloader(loader, seed=SEED))
    for _ in range(processes + 1):  # what the processes load ahead
        next(batches)
    count = 2 if setup.small else 4 * processes
    seconds = measure.seconds(lambda: [next(batches) for _ in range(count)])
    return {"seconds": seconds / count, "images_per_second": 8 * count / seconds, "note": "seconds of a batch of 8"}


# Two processes


def processes(setup: Setup) -> Iterator[Row]:
    """A few iterations of the demo's training by two processes: nccl on GPUs, gloo on a CPU."""
    if setup.on_gpu and torch.cuda.device_count() < 2:
        yield {"label": "nccl", "note": "skipped: there is one GPU"}
        return
    yield row_or_reason("nccl" if setup.on_gpu else "gloo", partial(train_by_two, setup))


def train_by_two(setup: Setup) -> Row:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "GT")
        images.mkdir()
        for i in range(8):
            Image.fromarray(make_test_image(64)).save(images / f"{i}.png")
        options = {
            "train_dataloader.dataset.data_root": folder,
            "train_dataloader.batch_size": 2,
            "val_cfg": None,
            "val_dataloader": None,
            "val_evaluator": None,
            "train_cfg.val_interval": 1000,
            "train_cfg.max_iters": 3 if setup.small else 20,
            "default_hooks.checkpoint": None,
            "custom_hooks": "[]",
            "env_cfg.dist_cfg.backend": "nccl" if setup.on_gpu else "gloo",
        }
        command = ["bash", "tools/dist_train.sh", str(PROCESS_CONFIG), "2", "--work-dir", str(Path(folder, "run"))]
        command += ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment["MASTER_PORT"] = str(free_port())
        if not setup.on_gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        done: list[subprocess.CompletedProcess] = []
        seconds = measure.seconds(
            lambda: done.append(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True))
        )
        if done[0].returncode:
            raise RuntimeError((done[0].stderr.strip().splitlines() or ["it failed without a word"])[-1])
    return {"seconds": seconds, "note": f"{options['train_cfg.max_iters']} iterations, the start included"}


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# Tests


def tests(setup: Setup) -> Iterator[Row]:
    """The tests that are marked ``gpu``; on a CPU they are only collected."""
    marked = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text())
    only = [] if setup.on_gpu else ["--collect-only"]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *only, *marked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    summary = re.sub(r"^=+ | =+$", "", lines[-1])
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        yield {"label": f"{len(marked)} files", "failed": "; ".join([summary, *failed])}
    else:
        yield {"label": f"{len(marked)} files", "note": summary}


PARTS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "peak": peak,
    "tests": tests,
    "inference": inference,
    "training": training,
    "compiled": compiled,
    "loading": loading,
    "processes": processes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("device")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with args.file.open("a", buffering=1) as file:
        for row in PARTS[args.part](Setup(args.device, args.small)):
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
