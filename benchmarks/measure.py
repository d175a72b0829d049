"""Seconds, memory, FLOPs, the machine's peak, and how much two outputs differ."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import Case, build, import_mmagic
from glean_ext.errors import InputError
from glean_ext.utils.heap import return_freed_memory

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PACKAGES = ("glean-ext", "torch", "torchvision", "mmagic", "mmengine", "mmcv-lite", "mmcv", "numpy", "pillow")


@dataclass(frozen=True)
class Spread:
    """A sample's median, its middle half and its ends."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.5, high=2.5, least=1.0, most=3.0, count=3)
        """
        low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(median(values), low, high, min(values), max(values), len(values))


def as_json(content: Any) -> Any:
    """Dataclasses in dicts and lists as plain dicts."""
    if isinstance(content, Mapping):
        return {key: as_json(value) for key, value in content.items()}
    if isinstance(content, list):
        return [as_json(value) for value in content]
    return asdict(content) if hasattr(content, "__dataclass_fields__") else content


# Time


def synchronize(device: str) -> None:
    """Wait for a GPU; a CPU has done its work when a call returns."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: str) -> float:
    """Wall-clock seconds of one call, work on the device included."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def alternate(
    runs: Sequence[Callable[[], object]], repeats: int, device: str, tick: Callable[[], object] = lambda: None
) -> list[list[float]]:
    """Time each of ``runs`` ``repeats`` times in turn, A B A B ..., so that what slows the machine slows all.

    ``tick`` is called after every run. One list of seconds for each of ``runs``.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, results in zip(runs, times, strict=True):
            results.append(seconds(run, device))
            tick()
    return times


# What the machine can do


def machine_peak(dtype: torch.dtype, device: str, repeats: int = 5) -> dict[str, float]:
    """FLOP/s of a large matrix product and of a large convolution: the best of ``repeats``, ``{'matmul', 'conv'}``.

    About 0.2 TFLOP each on a CPU, 5 on a GPU.
    """
    side, images = (16384, 64) if device.startswith("cuda") else (4096, 8)
    channels, size = 512, 64
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(images, channels, size, size, device=device, dtype=dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    work = {
        "matmul": (lambda: a @ b, 2 * side**3),
        "conv": (lambda: F.conv2d(x, weight, padding=1), 2 * images * size**2 * channels**2 * 9),
    }
    peak = {}
    with torch.inference_mode():
        for name, (run, flops) in work.items():
            run()
            peak[name] = flops / min(seconds(run, device) for _ in range(repeats))
    return peak


# Memory


@dataclass(frozen=True)
class Memory:
    """Bytes. On a CPU resident memory of a process that does nothing else; on a GPU what torch's allocator gave.

    Args:
        imports: Before anything was built: the interpreter and its libraries (0 on a GPU).
        ready: With the network, and for training the optimiser, built.
        peak: The most while it ran.
    """

    imports: int
    ready: int
    peak: int

    @property
    def own(self) -> int:
        """The peak without the interpreter and its libraries."""
        return self.peak - self.imports


def peak_memory(case: Case, runs: int) -> Memory:
    """The memory of ``runs`` runs of ``case`` in a process of its own.

    Raises:
        InputError: The process failed, or needs /proc, which only Linux has.
    """
    if not STATUS.is_file():
        raise InputError(f"Peak memory is read from {STATUS}, which only Linux has. Leave it out by --no-memory.")
    command = [sys.executable, "-c", "from benchmarks import measure; measure.memory_process()"]
    told = json.dumps({"case": case.as_dict(), "runs": runs})
    done = subprocess.run(command, input=told, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"The process that measures the memory of {case.label} failed: {reason}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def memory_process() -> None:
    """What the process of :func:`peak_memory` does: read a case from stdin, run it, print bytes."""
    told = json.load(sys.stdin)
    case = Case(**told["case"])
    if case.mmagic or case.task == "train":
        import_mmagic()
    cuda = case.device.startswith("cuda")
    gc.collect()
    imports = 0 if cuda else resident("VmRSS")
    subject = build(case)
    gc.collect()
    return_freed_memory()
    subject.compile()
    if case.compile:
        subject.run()
    ready = torch.cuda.memory_allocated(case.device) if cuda else resident("VmRSS")
    forget_peak(case.device)
    for _ in range(told["runs"]):
        subject.run()
    peak = torch.cuda.max_memory_allocated(case.device) if cuda else resident("VmHWM")
    print(json.dumps({"imports": imports, "ready": ready, "peak": peak}))


def resident(line: str) -> int:
    """Bytes of this process that are in memory: now (``VmRSS``) or at most so far (``VmHWM``)."""
    value = next(entry for entry in STATUS.read_text().splitlines() if entry.startswith(f"{line}:"))
    return int(value.split()[1]) * 1024


def forget_peak(device: str) -> None:
    """Let the peak start anew: what building took does not count."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR.write_text("5")  # proc(5): resets the high-water mark of resident memory


# Results and circumstances


def difference(output: Tensor, reference: Tensor) -> dict[str, float]:
    """Largest difference relative to the range (largest minus smallest value) of ``reference``, and PSNR in dB with
    that range as peak."""
    a, b = output.double().cpu(), reference.double().cpu()
    span = (b.max() - b.min()).item()
    error = (a - b).square().mean().item()
    psnr = math.inf if error == 0 else 10 * math.log10(span**2 / error)
    return {"max_of_range": ((a - b).abs().max() / span).item(), "psnr": psnr}


def circumstances(device: str) -> dict[str, Any]:
    """The machine and the versions."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # tells CUDA's version, too
    machine: dict[str, Any] = {
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": "amx_tile" in _cpuinfo(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["cuda"] = torch.version.cuda
    return {"machine": machine, "versions": found}


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def cpu_name() -> str:
    """The processor as the system names it, with what tells generations of one name apart."""
    lines = (line.partition(":") for line in _cpuinfo().split("\n\n")[0].splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name
