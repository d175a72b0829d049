"""The command ``conditions``: memory of whole processes, a busy machine, many images, int8.

Each part is one measurement, which replaces the older one in a JSON file; the last section of the performance page is
made from that file. Memory and processor time need no quiet machine, wall-clock time does: ``load`` says how it was.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks import backends, measure
from benchmarks.cases import Inference, shared_weights
from benchmarks.options import BackendOptions, ConditionsOptions
from benchmarks.process_memory import measure_memory
from demo.render_faces import render_face
from glean_ext.errors import InputError
from glean_ext.inference.backend import NetworkSource, resolve_model
from glean_ext.inference.engines import open_session
from glean_ext.inference.model_maker import make_model
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.inference.quantization import quantize
from glean_ext.utils.image_io import Picture, write_picture
from glean_ext.utils.imresize import imresize

BUSY = "while True: pass"
BATCHES = 1, 4, 16
IMAGES, SAMPLES = 2000, 20
DEMOS = "demo_glean_x8", "demo_lightglean_x8"
FACES = 48
ISA = "AVX2"  # what oneDNN, PyTorch's and OpenVINO's, is limited to for int8


def measure_conditions(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """Measure one part; returns its report."""
    report = {"part": options.part, "load": round(os.getloadavg()[0], 1), **PARTS[options.part](options, console)}
    return report | measure.describe_environment("cpu")


def add(report: dict[str, Any], results: Path) -> None:
    """Put a report into the file of all of them, in place of an older one of the same part and network."""
    backends.add(report, results, ("part", "network", "in_size"))


@contextmanager
def _workloads(options: ConditionsOptions, batch: int = 1) -> Iterator[dict[str, Inference]]:
    """The fast form and the engines, with the same weights, which have run once with one image."""
    candidates = BackendOptions(
        options.network, options.in_size, options.out_size, 1, False, False, None, Path(), Path()
    )
    with tempfile.TemporaryDirectory() as folder:
        cases = backends.cases_of(candidates, options.models or Path(folder))
        weights = shared_weights(cases[0])
        chosen = [replace(case, batch=batch) for case in cases if case.prepared or case.onnx]
        workloads = {case.label: Inference(case, weights) for case in chosen}
        for workload in workloads.values():
            with_images(workload, 1).run()
        yield workloads


def with_images(workload: Inference, number: int) -> Inference:
    """The same network and the first images of its batch."""
    other = copy(workload)
    other.lq = workload.lq[:number]
    return other


def beside_a_busy_process(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """How many times as long each candidate takes beside an endless loop: medians of pairs of runs, in turn."""
    busy = subprocess.Popen([sys.executable, "-S", "-c", BUSY])
    pairs: dict[str, list[tuple[list[float], list[float]]]] = {}
    try:
        busy.send_signal(signal.SIGSTOP)
        with _workloads(options) as workloads:
            for _ in range(options.repeats):
                for label, workload in workloads.items():
                    pairs.setdefault(label, []).append(_quiet_and_busy(workload.run, busy))
                    console.print(label, *pairs[label][-1])
    finally:
        busy.kill()
        busy.wait()
    rows = []
    for label, measured in pairs.items():
        ratios = [[b / q for q, b in zip(quiet, loaded, strict=True)] for quiet, loaded in measured]
        wall, cpu = (median(values) for values in zip(*ratios, strict=True))
        rows.append({"label": label, "wall": wall, "cpu": cpu, "quiet": median(quiet[0] for quiet, _ in measured)})
    return {"network": options.network, "in_size": options.in_size, "out_size": options.out_size, "rows": rows}


def _quiet_and_busy(run: Callable[[], object], busy: subprocess.Popen) -> tuple[list[float], list[float]]:
    """Wall-clock and processor seconds of a run, without and with the busy process."""
    quiet = _timed(run)
    busy.send_signal(signal.SIGCONT)
    try:
        return quiet, _timed(run)
    finally:
        busy.send_signal(signal.SIGSTOP)


def _timed(run: Callable[[], object]) -> list[float]:
    started, cpu = time.perf_counter(), time.process_time()
    run()
    return [time.perf_counter() - started, time.process_time() - cpu]


def by_batch(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """Seconds an image, of the clock and of a processor, by batch: medians of runs in turn."""
    measured: dict[str, dict[int, list[list[float]]]] = {}  # candidate -> batch -> runs
    with _workloads(options, max(BATCHES)) as workloads:
        for _, batch, (label, workload) in product(range(options.repeats), BATCHES, workloads.items()):
            runs = measured.setdefault(label, {}).setdefault(batch, [])
            runs.append([seconds / batch for seconds in _timed(with_images(workload, batch).run)])
            console.print(label, batch, runs[-1])
    rows = []
    for label, by_size in measured.items():
        wall, cpu = zip(
            *([median(values) for values in zip(*runs, strict=True)] for runs in by_size.values()), strict=True
        )
        rows.append({"label": label, "wall": wall, "cpu": cpu})
    sizes = {"network": options.network, "in_size": options.in_size, "out_size": options.out_size}
    return {**sizes, "batches": list(BATCHES), "rows": rows}


def a_folder(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """``glean restore`` of a folder of small images: resident memory over time, and the share of the cores used."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), np.uint8)
        for i, image in enumerate(pixels):
            write_picture(Picture(image), folder / "in" / f"{i:05}.png")
        for arguments in ([], ["--batch", "8"]):
            command = [sys.executable, "-m", "glean_ext", "restore", "--model", DEMOS[0], str(folder / "in")]
            command += ["-o", str(folder / f"out{len(rows)}"), *arguments]
            rows.append({"label": " ".join(["restore", *arguments]), **_watch(command, folder / f"out{len(rows)}")})
            console.print(rows[-1])
    return {"network": DEMOS[0], "images": IMAGES, "rows": rows}


def _watch(command: list[str], out: Path) -> dict[str, Any]:
    """Run a command; its memory in MiB when each twentieth of the images was there, and its use of the cores.

    Raises:
        InputError: It failed.
    """
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        memory: list[int] = []  # MiB
        times = process.cpu_times()
        while running.poll() is None:
            done = sum(1 for _ in out.glob("*")) if out.is_dir() else 0
            if done >= (len(memory) + 1) * IMAGES / SAMPLES:
                memory.append(process.memory_info().rss >> 20)
            times = process.cpu_times()
            time.sleep(0.2)
    if running.returncode:
        raise InputError(f"{' '.join(command)} failed.")
    seconds = time.perf_counter() - started
    cpu = times.user + times.system
    return {"memory": memory, "seconds": seconds, "cpu": cpu, "share": cpu / seconds / os.cpu_count()}


def int8(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """The shipped models in int8: PSNR from fp32, what stays in fp32; speed with the instructions of :data:`ISA`."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for i in range(FACES):
            small = imresize(np.asarray(render_face(f"calibration {i}")), size=(8, 8))
            write_picture(Picture(small), folder / "images" / f"{i}.png")
        for name in DEMOS:
            fp32, out = folder / f"{name}.onnx", folder / f"{name}-int8.onnx"
            make_model(NetworkSource(*resolve_model(name, None)), fp32, "openvino", lambda notice: None)
            result = quantize(fp32, out, str(folder / "images"), lambda notice: None)
            row = {"label": name, "psnr": result.psnr, "layers": result.layers, "kept": result.kept}
            console.print(row)
            rows.append(row | {"speed": {isa: _int8_speed(fp32, out, isa, options.repeats) for isa in (ISA, "")}})
            console.print(rows[-1]["speed"])
    return {"network": "demo", "rows": rows}


def _int8_speed(fp32: Path, int8: Path, isa: str, repeats: int) -> dict[str, float]:
    """Of OpenVINO, in a process whose oneDNN is limited to an instruction set: see :func:`int8_process`."""
    limit = {"ONEDNN_MAX_CPU_ISA": isa} if isa else {}
    code = "from benchmarks.conditions import int8_process; int8_process()"
    command = [sys.executable, "-c", code, str(fp32), str(int8), str(repeats)]
    done = subprocess.run(command, env={**os.environ, **limit}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def int8_process() -> None:
    """Prints processor seconds of fp32 and of int8, medians of runs in turn, and their ratio."""
    *models, repeats = sys.argv[1:]
    sessions = [open_session(Path(model), "openvino", dtype="float32") for model in models]
    shape = (1, 3, *OnnxBackend(models[0]).takes.nominal)
    lq = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    runs = [lambda session=session: [session.run(lq) for _ in range(20)] for session in sessions]
    for run in runs:
        run()
    _, (slow, fast) = measure.wall_and_cpu(runs, int(repeats))
    ratio = median(a / b for a, b in zip(slow, fast, strict=True))
    print(json.dumps({"fp32": median(slow) / 20, "int8": median(fast) / 20, "ratio": ratio}))


PARTS: dict[str, Callable[[ConditionsOptions, Console], dict[str, Any]]] = {
    "memory": measure_memory,
    "busy": beside_a_busy_process,
    "batches": by_batch,
    "folder": a_folder,
    "int8": int8,
}
