"""Candidates measured side by side in one run, and the table of the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import measure
from benchmarks.cases import Case, Inference, Training, build, shared_weights
from benchmarks.measure import Memory, SampleStats
from benchmarks.options import MeasureOptions
from glean_ext.utils.progress import ProgressBar

GIB, GIGA = 2**30, 1e9
MEMORY_RUNS = {"infer": 1, "train": 2}  # the first training step allocates the optimiser's state


@dataclass(frozen=True)
class RelativeResult:
    """A candidate in relation to the reference, which is the last candidate.

    Args:
        label: The reference's label.
        speed: How many times as fast as the reference, pair by pair.
        memory: Peak relative to the reference's, both without interpreter and libraries; None: not measured.
        process_memory: The same with interpreter and libraries.
        difference: How much the results differ, see :func:`result_difference`; None: the weights differ.
    """

    label: str
    speed: SampleStats
    memory: float | None
    process_memory: float | None
    difference: dict[str, float] | None


@dataclass
class Result:
    """The measurements of one candidate.

    Args:
        label: Its name in tables.
        case: What was measured.
        seconds: Of one run.
        images_per_second: From the median of ``seconds``.
        compile_seconds: Of the first compiled run; None: not compiled.
        gflop: Of one run of the unfolded network or of a training step, in matrix products and convolutions.
        gflop_per_second: From the median of ``seconds``.
        share_of_peak: ``gflop_per_second`` relative to the machine's peak in this dtype; None: not measured.
        memory: None: not measured.
        relative: In relation to the reference; None for the reference itself.
    """

    label: str
    case: dict[str, Any]
    seconds: SampleStats
    images_per_second: float
    compile_seconds: float | None
    gflop: float
    gflop_per_second: float
    share_of_peak: float | None = None
    memory: Memory | None = None
    relative: RelativeResult | None = None


def compare(cases: Sequence[Case], options: MeasureOptions, console: Console) -> dict[str, Any]:
    """Measure ``cases`` side by side with the same weights and inputs; the last one is the reference.

    Returns:
        ``results``: a :class:`Result` each; ``peak``: GFLOP/s by dtype; ``machine`` and ``versions``.

    Raises:
        InputError: A case cannot be built, or its memory cannot be measured.
    """
    device = cases[0].device
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # torch's timer waits for the current GPU
    with ProgressBar(console, transient=True) as bar:
        steps = len(cases) * (options.repeats + 1 + options.memory)
        advance = partial(bar.advance, bar.add_task("measuring", total=steps))
        memories: list[Memory | None] = [None] * len(cases)
        if options.memory:  # measured first, while this process is still small
            for i, case in enumerate(cases):
                memories[i] = measure.peak_memory(case, MEMORY_RUNS[case.task])
                advance()
        weights = shared_weights(cases[0])
        workloads = [build(case, weights) for case in cases]
        first_runs = []
        for case, workload in zip(cases, workloads, strict=True):
            first_runs.append(_first_runs(case, workload))
            advance()
        times = measure.time_alternately([workload.run for workload in workloads], options.repeats, advance)
    shared = [workload.shares_weights for workload in workloads]
    del weights, workloads
    results = [
        _make_result(case, flops, compile_seconds, seconds, memory)
        for case, (flops, compile_seconds, _), seconds, memory in zip(cases, first_runs, times, memories, strict=True)
    ]
    for i, result in enumerate(results[:-1]):
        result.relative = RelativeResult(
            results[-1].label,
            SampleStats.of([b / a for a, b in zip(times[i], times[-1], strict=True)]),
            _memory_ratio(result.memory, results[-1].memory, "own"),
            _memory_ratio(result.memory, results[-1].memory, "peak"),
            result_difference(first_runs[i][2], first_runs[-1][2]) if shared[i] and shared[-1] else None,
        )
    peak = relate_to_peak(results, device) if options.peak else {}
    return {"results": results, "peak": peak, **measure.describe_environment(device)}


def _make_result(
    case: Case, flops: int, compile_seconds: float | None, seconds: Sequence[float], memory: Memory | None
) -> Result:
    stats = SampleStats.of(seconds)
    return Result(
        case.label,
        case.as_dict(),
        stats,
        images_per_second=case.batch / stats.median,
        compile_seconds=compile_seconds,
        gflop=flops / GIGA,
        gflop_per_second=flops / GIGA / stats.median,
        memory=memory,
    )


def _first_runs(case: Case, workload: Inference | Training) -> tuple[int, float | None, Any]:
    """FLOPs, seconds of the first compiled run, and the result. These runs also warm up."""
    flops, result = workload.first_run()
    workload.compile()
    return flops, measure.seconds(workload.run) if case.compile else None, result


def relate_to_peak(results: Sequence[Result], device: str) -> dict[str, dict[str, float]]:
    """Measure the machine's peak in each dtype, in GFLOP/s, and set ``share_of_peak`` of each of ``results``."""
    peak = {}
    for dtype in {result.case["dtype"]: None for result in results}:
        measured = measure.machine_peak(getattr(torch, dtype), device)
        peak[dtype] = {name: value / GIGA for name, value in measured.items()}
    for result in results:
        result.share_of_peak = result.gflop_per_second / max(peak[result.case["dtype"]].values())
    return peak


def _memory_ratio(ours: Memory | None, theirs: Memory | None, what: str) -> float | None:
    return getattr(ours, what) / getattr(theirs, what) if ours and theirs else None


def result_difference(ours: Any, theirs: Any) -> dict[str, float] | None:
    """Images: as :func:`measure.difference`; losses: each relative to its value; None for images of different sizes."""
    if isinstance(ours, Tensor):
        return measure.difference(ours, theirs) if ours.shape == theirs.shape else None
    return {name: abs(ours[name] - value) / abs(value) for name, value in theirs.items() if name in ours}


# Tables


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print what :func:`compare` returned."""
    table = Table("", title=title(report["results"][0].case))
    for column in "seconds", "quartiles", "images/s", "memory (GiB)", "GFLOP", "GFLOP/s", "of peak":
        table.add_column(column, justify="right")
    for result in report["results"]:
        seconds = result.seconds
        table.add_row(
            result.label,
            f"{seconds.median:.3g}",
            f"{seconds.first_quartile:.3g}-{seconds.third_quartile:.3g}",
            f"{result.images_per_second:.3g}",
            f"{result.memory.own / GIB:.2f}" if result.memory else "",
            f"{result.gflop:,.0f}",
            f"{result.gflop_per_second:,.0f}",
            f"{result.share_of_peak:.0%}" if result.share_of_peak is not None else "",
        )
    console.print(table)
    for result in report["results"]:
        for line in summary_lines(result):
            console.print(line)
    console.print(machine_line(report))


def title(case: dict[str, Any]) -> str:
    generator = case["model"]["generator"]
    what = {"infer": "Inference", "train": "A training step"}[case["task"]]
    return f"{what}, {generator['in_size']} -> {generator['out_size']}, batch {case['batch']}, {case['device']}"


def summary_lines(result: Result) -> Iterator[str]:
    """What the table does not contain, in sentences."""
    if result.compile_seconds is not None:
        yield f"{result.label}: compiling took {result.compile_seconds:.0f} s."
    relative = result.relative
    if relative is None:
        return
    low, high = relative.speed.first_quartile, relative.speed.third_quartile
    speed = f"{relative.speed.median:.2f} times ({low:.2f}-{high:.2f}) as fast as {relative.label}"
    text = f"{result.label} is {speed}"
    if relative.memory is not None:
        text += f" and takes {relative.memory:.2f} of its memory ({relative.process_memory:.2f} with the libraries)"
    yield f"{text}."
    if relative.difference is None:
        yield f"Their results cannot be compared ({result.label} has other weights)."
    elif "psnr" in relative.difference:
        worst, psnr = relative.difference["max_of_range"], relative.difference["psnr"]
        yield f"Their outputs differ by at most {worst:.1e} of the range; PSNR {psnr:.1f} dB."
    else:
        losses = ", ".join(f"{name.removeprefix('loss_')} {value:.1%}" for name, value in relative.difference.items())
        yield f"Their first losses differ by: {losses}."


def machine_line(report: dict[str, Any]) -> str:
    """The machine, its measured peak and the versions."""
    machine = report["machine"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    text = machine.get("gpu") or f"{machine['cpu']}, {threads}, {machine['instructions']}{', AMX' * machine['amx']}"
    for dtype, peak in report.get("peak", {}).items():
        text += f"; {dtype} peak {peak['matmul']:,.0f} (matmul), {peak['conv']:,.0f} (convolution) GFLOP/s"
    packages = [name for name in ("torch", "mmagic", "mmcv-lite", "mmcv") if name in report["versions"]]
    versions = ", ".join(f"{name} {report['versions'][name]}" for name in packages)
    return f"{text}; {versions}."
