"""Contestants measured side by side in one run, and the table of what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from benchmarks import measure
from benchmarks.cases import DTYPES, Case, Inference, Training, build, shared_weights
from benchmarks.measure import Memory, Spread

GIB, GIGA = 2**30, 1e9
MEMORY_RUNS = {"infer": 1, "train": 2}  # the optimiser's state comes with the first step


@dataclass(frozen=True)
class Options:
    """How to measure.

    Args:
        repeats: Timed runs of each contestant, after one that is not counted.
        memory: Measure peak memory, each contestant in a process of its own.
        peak: Measure what the machine can do at most.
    """

    repeats: int = 5
    memory: bool = True
    peak: bool = True


@dataclass(frozen=True)
class Versus:
    """A contestant in relation to another.

    Args:
        label: The other.
        speed: How many times as fast, pair by pair.
        memory: Its share of the other's peak, both without interpreter and libraries; None: not measured.
        process_memory: The same with interpreter and libraries.
        difference: How much the results differ, see :func:`result_difference`; None: other weights.
    """

    label: str
    speed: Spread
    memory: float | None
    process_memory: float | None
    difference: dict[str, float] | None


@dataclass
class Result:
    """What one contestant needs.

    Args:
        label: What tables call it.
        case: What was measured.
        seconds: Of one run.
        images_per_second: By the median of ``seconds``.
        compile_seconds: Of the first compiled run; None: not compiled.
        gflop: Of one run of the plain network or of a training step, in matrix products and convolutions.
        gflop_per_second: By the median of ``seconds``.
        share_of_peak: ``gflop_per_second`` relative to the machine's peak in this dtype; None: not measured.
        memory: None: not measured.
        versus: In relation to the last contestant; None for itself.
    """

    label: str
    case: dict[str, Any]
    seconds: Spread
    images_per_second: float
    compile_seconds: float | None
    gflop: float
    gflop_per_second: float
    share_of_peak: float | None = None
    memory: Memory | None = None
    versus: Versus | None = None


def compare(cases: Sequence[Case], options: Options, console: Console) -> dict[str, Any]:
    """Measure ``cases`` side by side with the same weights and inputs, and relate them to the last one.

    Returns:
        ``results``: a :class:`Result` each; ``peak``: GFLOP/s by dtype; ``machine`` and ``versions``.

    Raises:
        InputError: A case cannot be built, or its memory cannot be measured.
    """
    device = cases[0].device
    with ticking(console, "measuring", len(cases) * (options.repeats + 1 + options.memory)) as tick:
        # Memory first: while this process is still small.
        memories = [_memory(case, tick) if options.memory else None for case in cases]
        weights = shared_weights(cases[0])
        subjects = [build(case, weights) for case in cases]
        first_runs = []
        for case, subject in zip(cases, subjects, strict=True):
            first_runs.append(_first_runs(case, subject))
            tick()
        times = measure.alternate([subject.run for subject in subjects], options.repeats, device, tick)
    shared = [subject.shares_weights for subject in subjects]
    del weights, subjects
    results = []
    for case, (flops, compile_seconds, _), seconds, memory in zip(cases, first_runs, times, memories, strict=True):
        spread = Spread.of(seconds)
        result = Result(
            case.label,
            case.as_dict(),
            spread,
            images_per_second=case.batch / spread.median,
            compile_seconds=compile_seconds,
            gflop=flops / GIGA,
            gflop_per_second=flops / GIGA / spread.median,
            memory=memory,
        )
        results.append(result)
    for i, result in enumerate(results[:-1]):
        result.versus = Versus(
            results[-1].label,
            Spread.of([b / a for a, b in zip(times[i], times[-1], strict=True)]),
            _share(result.memory, results[-1].memory, "own"),
            _share(result.memory, results[-1].memory, "peak"),
            result_difference(first_runs[i][2], first_runs[-1][2]) if shared[i] and shared[-1] else None,
        )
    peak = relate_to_peak(results, device) if options.peak else {}
    return {"results": results, "peak": peak, **measure.circumstances(device)}


@contextmanager
def ticking(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar; calling what this gives moves it by one."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _memory(case: Case, tick: Callable[[], None]) -> Memory:
    memory = measure.peak_memory(case, MEMORY_RUNS[case.task])
    tick()
    return memory


def _first_runs(case: Case, subject: Inference | Training) -> tuple[int, float | None, Any]:
    """FLOPs, seconds of the first compiled run, and the result: these runs warm up, too."""
    flops, result = subject.first_run()
    subject.compile()
    return flops, measure.seconds(subject.run, case.device) if case.compile else None, result


def relate_to_peak(results: Sequence[Result], device: str) -> dict[str, dict[str, float]]:
    """Measure the machine's peak in each dtype, GFLOP/s, and set the share of it that each of ``results`` reaches."""
    peak = {}
    for dtype in {result.case["dtype"]: None for result in results}:
        found = measure.machine_peak(DTYPES[dtype], device)
        peak[dtype] = {name: value / GIGA for name, value in found.items()}
    for result in results:
        result.share_of_peak = result.gflop_per_second / max(peak[result.case["dtype"]].values())
    return peak


def _share(ours: Memory | None, theirs: Memory | None, what: str) -> float | None:
    return getattr(ours, what) / getattr(theirs, what) if ours and theirs else None


def result_difference(ours: Any, theirs: Any) -> dict[str, float] | None:
    """Of images as :func:`measure.difference`; of losses relative to each; None for images of different sizes."""
    if isinstance(ours, Tensor):
        return measure.difference(ours, theirs) if ours.shape == theirs.shape else None
    return {name: abs(ours[name] - value) / abs(value) for name, value in theirs.items() if name in ours}


def restored(report: dict[str, Any]) -> dict[str, Any]:
    """A report of :func:`compare` from what :func:`measure.as_json` made of it."""
    return {**report, "results": [_result(fields) for fields in report["results"]]}


def _result(fields: dict[str, Any]) -> Result:
    memory, versus = fields["memory"], fields["versus"]
    return Result(
        **{
            **fields,
            "seconds": Spread(**fields["seconds"]),
            "memory": memory and Memory(**memory),
            "versus": versus and Versus(**{**versus, "speed": Spread(**versus["speed"])}),
        }
    )


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
            f"{seconds.low:.3g}-{seconds.high:.3g}",
            f"{result.images_per_second:.3g}",
            f"{result.memory.own / GIB:.2f}" if result.memory else "",
            f"{result.gflop:,.0f}",
            f"{result.gflop_per_second:,.0f}",
            f"{result.share_of_peak:.0%}" if result.share_of_peak is not None else "",
        )
    console.print(table)
    for result in report["results"]:
        for line in told(result):
            console.print(line)
    console.print(machine_line(report))


def title(case: dict[str, Any]) -> str:
    generator = case["model"]["generator"]
    what = {"infer": "Inference", "train": "A training step"}[case["task"]]
    return f"{what}, {generator['in_size']} -> {generator['out_size']}, batch {case['batch']}, {case['device']}"


def told(result: Result) -> Iterator[str]:
    """What the table does not say of a contestant, in sentences."""
    if result.compile_seconds is not None:
        yield f"{result.label}: compiling took {result.compile_seconds:.0f} s."
    if result.versus is None:
        return
    versus, speed = result.versus, result.versus.speed
    text = f"{result.label} is {speed.median:.2f} times ({speed.low:.2f}-{speed.high:.2f}) as fast as {versus.label}"
    if versus.memory is not None:
        text += f" and takes {versus.memory:.2f} of its memory ({versus.process_memory:.2f} with the libraries)"
    yield f"{text}."
    if versus.difference is None:
        yield f"Their results cannot be compared ({result.label} has other weights)."
    elif "psnr" in versus.difference:
        worst, psnr = versus.difference["max_of_range"], versus.difference["psnr"]
        yield f"Their outputs differ by at most {worst:.1e} of the range; PSNR {psnr:.1f} dB."
    else:
        losses = ", ".join(f"{name.removeprefix('loss_')} {value:.1%}" for name, value in versus.difference.items())
        yield f"Their first losses differ by: {losses}."


def machine_line(report: dict[str, Any]) -> str:
    """The machine, its measured peak and the versions."""
    machine = report["machine"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    text = machine.get("gpu") or f"{machine['cpu']}, {threads}, {machine['instructions']}{', AMX' * machine['amx']}"
    for dtype, peak in report.get("peak", {}).items():
        text += f"; {dtype} peak {peak['matmul']:,.0f} (matmul), {peak['conv']:,.0f} (convolution) GFLOP/s"
    named = ("torch", "mmagic", "mmcv-lite", "mmcv")
    versions = ", ".join(f"{name} {report['versions'][name]}" for name in named if name in report["versions"])
    return f"{text}; {versions}."
