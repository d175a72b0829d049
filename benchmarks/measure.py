"""Seconds, memory, the machine's largest throughput, and how much two outputs differ."""

from __future__ import annotations

import gc
import json
import math
import platform
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import benchmark

from benchmarks.cases import Case, build, import_mmagic
from glean_ext.errors import InputError
from glean_ext.inference.engines import PACKAGES as ENGINE_PACKAGES
from glean_ext.utils.heap import return_freed_memory
from glean_ext.utils.processes import count_cores

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PACKAGES = (
    "glean-ext",
    "torch",
    "onnxruntime",
    "openvino",
    "torchvision",
    "mmagic",
    "mmengine",
    "mmcv-lite",
    "mmcv",
    "numpy",
    "pillow",
)


@dataclass(frozen=True)
class SampleStats:
    """The median, the quartiles and the extremes of a sample."""

    median: float
    first_quartile: float
    third_quartile: float
    minimum: float
    maximum: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> SampleStats:
        """
        >>> SampleStats.of([3.0, 1.0, 2.0])
        SampleStats(median=2.0, first_quartile=1.5, third_quartile=2.5, minimum=1.0, maximum=3.0, count=3)
        """
        first, _, third = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(median(values), first, third, min(values), max(values), len(values))


def as_json(content: Any) -> Any:
    """Dataclasses in dicts and lists as plain dicts."""
    return json.loads(json.dumps(content, default=asdict))


# Time


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, including its work on the current GPU, for which torch's timer waits."""
    return timeit.timeit(run, timer=benchmark.timer, number=1)


def time_alternately(
    runs: Sequence[Callable[[], object]], repeats: int, on_run: Callable[[], object] = lambda: None
) -> list[list[float]]:
    """Time each of ``runs`` ``repeats`` times in turn, A B A B ...: what slows the machine down slows all of them.

    ``benchmark.Timer`` would time all repeats of one before the next. ``on_run`` is called after every run.

    Returns:
        The seconds of each of ``runs``, in the order in which they were measured.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, results in zip(runs, times, strict=True):
            results.append(seconds(run))
            on_run()
    return times


def wall_and_cpu(runs: Sequence[Callable[[], object]], repeats: int) -> tuple[list[list[float]], list[list[float]]]:
    """As :func:`time_alternately`: wall-clock seconds, and those of all processors together."""
    cpu: list[list[float]] = [[] for _ in runs]

    def timed(run: Callable[[], object], seconds: list[float]) -> None:
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)

    wall = time_alternately([partial(timed, run, own) for run, own in zip(runs, cpu, strict=True)], repeats)
    return wall, cpu


def machine_peak(dtype: torch.dtype, device: str, min_seconds: float = 5.0) -> dict[str, float]:
    """FLOP/s of a large matrix product and of a large convolution: the best within ``min_seconds`` of each.

    About 0.2 TFLOP each on a CPU, 5 on a GPU.
    """
    side, images = (16384, 64) if device.startswith("cuda") else (4096, 8)
    channels, size = 512, 64
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(images, channels, size, size, device=device, dtype=dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    work: dict[str, tuple[Callable[[], Tensor], int]] = {
        "matmul": (lambda: a @ b, 2 * side**3),
        "conv": (lambda: F.conv2d(x, weight, padding=1), 2 * images * size**2 * channels**2 * 9),
    }
    peak = {}
    with torch.inference_mode():
        for name, (run, flops) in work.items():
            timer = benchmark.Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
            peak[name] = flops / min(timer.blocked_autorange(min_run_time=min_seconds).times)
    return peak


# Memory


@dataclass(frozen=True)
class Memory:
    """Bytes: on a CPU the resident memory of a process that does nothing else; on a GPU torch's allocated memory.

    Args:
        imports: Of the interpreter and its libraries, before anything is built (0 on a GPU).
        ready: After the network, and for training the optimiser, is built.
        peak: The largest value during the runs.
    """

    imports: int
    ready: int
    peak: int

    @property
    def own(self) -> int:
        """The peak without the interpreter and its libraries."""
        return self.peak - self.imports


def peak_memory(case: Case, runs: int) -> Memory:
    """The memory that ``runs`` runs of ``case`` take in a process of their own.

    Raises:
        InputError: The process failed, or the system is not Linux: its /proc is needed.
    """
    if not STATUS.is_file():
        raise InputError(f"Peak memory is read from {STATUS}, which only Linux has. Use --no-memory.")
    command = [sys.executable, "-c", "from benchmarks import measure; measure.memory_process()"]
    content = json.dumps({"case": case.as_dict(), "runs": runs})
    done = subprocess.run(command, input=content, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"The process that measures the memory of {case.label} failed: {reason}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def memory_process() -> None:
    """The process of :func:`peak_memory`: reads a case from stdin, runs it, and prints its memory as JSON."""
    content = json.load(sys.stdin)
    case = Case(**content["case"])
    if case.mmagic or case.task == "train":
        import_mmagic()
    if case.onnx:
        import_module(ENGINE_PACKAGES[case.engine])
    cuda = case.device.startswith("cuda")
    gc.collect()
    imports = 0 if cuda else resident_bytes("VmRSS")
    subject = build(case)
    gc.collect()
    return_freed_memory()
    subject.compile()
    if case.compile:
        subject.run()
    ready = torch.cuda.memory_allocated(case.device) if cuda else resident_bytes("VmRSS")
    reset_peak(case.device)
    for _ in range(content["runs"]):
        subject.run()
    peak = torch.cuda.max_memory_allocated(case.device) if cuda else resident_bytes("VmHWM")
    print(json.dumps({"imports": imports, "ready": ready, "peak": peak}))


def resident_bytes(line: str) -> int:
    """Resident memory of this process: the current value (``VmRSS``) or the largest so far (``VmHWM``)."""
    value = next(entry for entry in STATUS.read_text().splitlines() if entry.startswith(f"{line}:"))
    return int(value.split()[1]) * 1024


def reset_peak(device: str) -> None:
    """Reset the recorded peak, so that it does not include the memory for building the network."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR.write_text("5")  # proc(5): resets the high-water mark of resident memory


# Results and environment


def difference(output: Tensor, reference: Tensor) -> dict[str, float]:
    """Largest difference relative to the range (largest minus smallest value) of ``reference``, and PSNR in dB with
    that range as peak."""
    a, b = output.double().cpu(), reference.double().cpu()
    span = (b.max() - b.min()).item()
    error = (a - b).square().mean().item()
    psnr = math.inf if error == 0 else 10 * math.log10(span**2 / error)
    return {"max_of_range": ((a - b).abs().max() / span).item(), "psnr": psnr}


def describe_environment(device: str) -> dict[str, Any]:
    """The machine and the versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__  # includes the version of CUDA
    machine: dict[str, Any] = {
        "cpu": cpu_name(),
        "cpus": count_cores(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": "amx_tile" in _cpuinfo(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["cuda"] = torch.version.cuda
    return {"machine": machine, "versions": versions}


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def cpu_name() -> str:
    """The processor's name; its family and model tell generations with the same name apart."""
    lines = (line.partition(":") for line in _cpuinfo().split("\n\n")[0].splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name
