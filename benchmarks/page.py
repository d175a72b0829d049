"""The performance page: tables and a plot from one run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.backends import HEADING
from benchmarks.cases import Case, shared_network
from benchmarks.comparison import GIB, Result, compare, machine_line, print_report, summary_lines
from benchmarks.options import MeasureOptions
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference.export import export_network
from glean_ext.inference.torch_backend import default_dtype
from glean_ext.utils.files import atomic_path

ROOT = Path(__file__).parents[1]
SCALE = 16
SIZES = (256, 512, 1024)  # of the output
TRAINING = "## Training, "  # how its heading begins
TRAIN_CONFIG, TRAIN_BATCH = ROOT / "configs/glean_x8_cat.py", 2
COLOURS = ("tab:blue", "tab:cyan", "tab:green", "tab:orange", "tab:red")


def dtypes() -> list[str]:
    """The dtype that this CPU computes fastest in, then float32 if that is another one."""
    return list(dict.fromkeys([default_dtype(torch.device("cpu")), "float32"]))


def inference_cases(out_size: int, batch: int, folder: Path) -> list[Case]:
    """This package's networks, GLEAN exported to ONNX (a file in ``folder``), and MMagic's last."""
    glean = {"type": "GLEANStyleGANv2", "in_size": out_size // SCALE, "out_size": out_size}
    light = {**glean, "type": "LightGLEANStyleGANv2"}

    def case(generator: dict, dtype: str = "float32", mmagic: bool = False, onnx: str | None = None) -> Case:
        return Case("infer", {"generator": generator}, mmagic, dtype, "cpu", batch, onnx=onnx)

    exported = folder / f"{out_size}.onnx"
    if not exported.exists():
        export_network(shared_network(case(glean)), exported, notify=lambda step: None)
    ours = [case(glean, dtype) for dtype in dtypes()]
    return [*ours, case(light, dtypes()[0]), case(glean, onnx=str(exported)), case(glean, mmagic=True)]


def training_cases() -> list[Case]:
    """This package's training, with and without checkpointing of the trunk, and MMagic's in fp32."""
    config = load_config(TRAIN_CONFIG)
    model, optim_wrapper = config.model.to_dict(), config.optim_wrapper.to_dict()
    small = {**model, "generator": {**model["generator"], "checkpoint_trunk": True}}
    fast = dtypes()[0]
    candidates = (small, False, fast), (model, False, fast), (model, True, "float32")
    return [
        Case("train", model, mmagic, dtype, "cpu", TRAIN_BATCH, optim_wrapper=optim_wrapper)
        for model, mmagic, dtype in candidates
    ]


Cell = tuple[int, int]  # output size, batch


def cells_of(batches: Sequence[int]) -> list[Cell]:
    """All batch sizes at the smallest output, and one image at each output size.

    >>> cells_of([4, 1])
    [(256, 1), (256, 4), (512, 1), (1024, 1)]
    """
    smallest, *others = SIZES
    return [(smallest, batch) for batch in sorted({1, *batches})] + [(size, 1) for size in others]


def measure_page(batches: Sequence[int], repeats: int, console: Console) -> dict[str, Any]:
    """Measure every cell of the page, on the CPU.

    Returns:
        ``command``: reproduces the page; ``cells``: of :func:`cells_of`; ``inference``: a report of :func:`compare`
        for each; ``training``: one.
    """

    cells = cells_of(batches)
    with tempfile.TemporaryDirectory() as folder:
        inference = [
            _measure(inference_cases(size, n, Path(folder)), repeats, size == SIZES[-1], console) for size, n in cells
        ]
    training = _measure(training_cases(), repeats, False, console)
    command = f"python -m benchmarks page --batches {' '.join(map(str, batches))} --repeats {repeats}"
    return {"command": command, "cells": cells, "inference": inference, "training": training}


def measure_training(repeats: int, console: Console) -> dict[str, Any]:
    """Measure the training section alone: a report of :func:`compare` with the ``command`` that reproduces it."""
    command = f"python -m benchmarks page --only training --repeats {repeats}"
    return {**_measure(training_cases(), repeats, False, console), "command": command}


def _measure(cases: Sequence[Case], repeats: int, peak: bool, console: Console) -> dict[str, Any]:
    report = compare(cases, MeasureOptions(repeats, peak=peak), console)
    print_report(report, console)
    return report


def write(report: dict[str, Any], path: Path) -> None:
    """Write the page, and its plot beside it as PNG.

    Args:
        report: From :func:`measure_page`.
        path: The Markdown file.

    Raises:
        InputError: It cannot be written.
    """
    plot = path.with_suffix(".png")
    with atomic_path(plot) as partial:
        draw(report["cells"], report["inference"]).savefig(partial, dpi=110)
    backends = path.read_text().partition(HEADING)[1:] if path.exists() else ()  # measured by another command
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines(report, plot.name)) + "\n" + "".join(backends))


def write_training(report: dict[str, Any], path: Path) -> None:
    """Replace the training section of a page that is there.

    Args:
        report: From :func:`measure_training`.
        path: The Markdown file.

    Raises:
        InputError: There is no such page, or it cannot be written.
    """
    text = path.read_text() if path.exists() else ""
    before, heading, section = text.partition(f"\n{TRAINING}")
    if not heading:
        raise InputError(f"{path} has no section on training. Run python -m benchmarks page first.")
    with atomic_path(path) as partial:
        partial.write_text(
            "\n".join([before, *training_section(report)]) + "\n" + "".join(section.partition(HEADING)[1:])
        )


def lines(report: dict[str, Any], plot: str) -> Iterator[str]:
    """The page, line by line."""
    largest = report["inference"][-1]
    yield "# Performance"
    yield ""
    yield "Numbers of sections that name no other command are from one run of"
    yield ""
    yield f"    {report['command']}"
    yield ""
    yield f"on {machine_line(largest)}"
    yield ""
    yield "The candidates ran in turn (A B A B ...) with the same random weights and inputs; seconds are medians."
    yield "Memory is the peak of a separate process, without the interpreter and its libraries. MMagic is MMagic's own"
    yield "class and, for training, its own restorer and losses; onnxruntime runs GLEAN as tools/export.py writes it."
    if dtypes() == ["float32"]:
        yield "This processor has no instructions for bfloat16, so everything was computed in float32."
    yield ""
    yield f"## Inference, x{SCALE}"
    yield ""
    yield f"![seconds and memory against output size and batch]({plot})"
    yield ""
    yield from inference_table(report["cells"], report["inference"])
    yield ""
    yield "PSNR compares the output with MMagic's, with the range of MMagic's output as peak."
    yield ""
    yield from shares_of_peak(largest)
    yield ""
    yield from training_section(report["training"])


def inference_table(cells: Sequence[Cell], reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """All cells of the page as a Markdown table."""
    yield "| output | batch | | s per image | GiB | speed / MMagic's | memory / MMagic's | PSNR (dB) |"
    yield "|---|---|---|---|---|---|---|---|"
    for (out_size, batch), report in zip(cells, reports, strict=True):
        for result in report["results"]:
            cost = f"{result.seconds.median / batch:.3g} | {result.memory.own / GIB:.2f}"
            psnr = (result.relative.difference or {}).get("psnr") if result.relative else None
            agreement = "" if psnr is None else f"{psnr:.0f}"
            yield f"| {out_size} | {batch} | {result.label} | {cost} | {_relative_cells(result)} | {agreement} |"


def _relative_cells(result: Result) -> str:
    return f"{result.relative.speed.median:.2f} | {result.relative.memory:.2f}" if result.relative else "1 | 1"


def shares_of_peak(report: dict[str, Any]) -> Iterator[str]:
    """The throughput of the candidates relative to the machine's largest."""
    shares = ", ".join(f"{result.label} {result.share_of_peak:.0%}" for result in report["results"])
    yield "Share of the machine's peak (the faster of a large matrix product and a large convolution in the same dtype)"
    yield f"at the largest size: {shares}."


def training_section(report: dict[str, Any]) -> Iterator[str]:
    """The training step as a table and in sentences."""
    generator = report["results"][0].case["model"]["generator"]
    yield f"{TRAINING}{generator['in_size']} -> {generator['out_size']}, batch {TRAIN_BATCH}, perceptual loss on"
    yield ""
    if command := report.get("command"):
        yield from (f"Made by `{command}` on {machine_line(report)}", "")
    yield "| | s per step | images/s | GiB | speed / MMagic's | memory / MMagic's |"
    yield "|---|---|---|---|---|---|"
    for result in report["results"]:
        trunk = ", trunk checkpointed" if result.case["model"]["generator"].get("checkpoint_trunk") else ""
        cost = f"{result.seconds.median:.3g} | {result.images_per_second:.3g} | {result.memory.own / GIB:.2f}"
        yield f"| {result.label}{trunk} | {cost} | {_relative_cells(result)} |"
    yield ""
    yield list(summary_lines(report["results"][0]))[-1]


def draw(cells: Sequence[Cell], reports: Sequence[dict[str, Any]]) -> Any:
    """Seconds an image and memory against output size at batch 1, and against batch at the smallest size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    by_size = [i for i, (_, batch) in enumerate(cells) if batch == 1]
    by_batch = [i for i, (size, _) in enumerate(cells) if size == SIZES[0]]
    (time_size, time_batch), (memory_size, memory_batch) = figure.subplots(2, 2)
    for chosen, position, columns in (
        (by_size, 0, (time_size, memory_size)),
        (by_batch, 1, (time_batch, memory_batch)),
    ):
        x = [cells[i][position] for i in chosen]
        for k, colour in zip(range(len(reports[0]["results"])), COLOURS, strict=False):
            results = [reports[i]["results"][k] for i in chosen]
            seconds = [r.seconds.median / cells[i][1] for i, r in zip(chosen, results, strict=True)]
            memory = [r.memory.own / GIB for r in results]
            for axes, y in zip(columns, (seconds, memory), strict=True):
                axes.plot(x, y, marker="o", color=colour, label=results[0].label)
        for axes, name in zip(columns, ("seconds per image", "memory (GiB)"), strict=True):
            axes.set_xlabel("output size, batch 1" if position == 0 else f"batch, output {SIZES[0]}")
            axes.set_ylabel(name)
            axes.set_xscale("log", base=2)
            axes.set_xticks(x, [str(value) for value in x])
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
    time_size.legend(fontsize="small")
    return figure
