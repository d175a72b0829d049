"""The run on a GPU (``make gpu``): tests, speed and memory beside MMagic's classes, in at most eight minutes.

Each part is a process of its own with a budget of time (:mod:`benchmarks.gpu_parts`). One that fails, even by losing
the GPU, or that takes too long is reported with its reason; what it had measured until then is kept, and the next part
runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.options import GPU_BUDGETS, GPUOptions
from glean_ext.utils.files import atomic_path, write_json

ROOT = Path(__file__).parents[1]
GIB = 2**30
DRY_FACTOR = 5  # of the budgets: a dry run may be on a busy CPU
WIDTH = 150  # of tables in a file or a pipe
TITLES = {
    "peak": "Largest throughput (matrix product)",
    "tests": "Tests that need a GPU",
    "inference": "Inference",
    "training": "A training step",
    "compiled": "Inference, compiled by torch.compile",
    "loading": "Loading training samples",
    "processes": "Training by two processes",
}
# Columns of the tables: key of a row, heading, format.
COLUMNS = (
    ("seconds", "s", "{:.3g}"),
    ("images_per_second", "images/s", "{:.3g}"),
    ("memory", "GiB", "{:.2f}"),
    ("tflops", "TFLOP/s", "{:.3g}"),
    ("share", "of peak", "{:.0%}"),
    ("speed", "× MMagic", "{:.2f}"),
    ("memory_ratio", "memory / MMagic", "{:.2f}"),
    ("psnr", "PSNR (dB)", "{:.0f}"),
    ("note", "", "{}"),
)

Row = dict[str, Any]


@dataclass
class Part:
    """What came of a part.

    Args:
        name: A key of :data:`GPU_BUDGETS`.
        seconds: It took.
        reason: Why it failed, in one line; empty: it did not.
        rows: What it measured.
    """

    name: str
    seconds: float
    reason: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.reason) or any("failed" in row for row in self.rows)


def run_part(name: str, command: Sequence[str], budget: float) -> Part:
    """Run a process that writes rows, a line of JSON each, to the file that its last argument names.

    Args:
        name: Of the part.
        command: The process without that argument.
        budget: Seconds after which it is killed, with all processes that it started.
    """
    start = time.perf_counter()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "rows.jsonl")
        process = subprocess.Popen(
            [*command, str(output)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=budget)
            lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
            reason = lines[-1] if process.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"it took more than its {budget:.0f} s"
        finally:
            _kill_group(process)
        rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    return Part(name, time.perf_counter() - start, reason, rows)


def _kill_group(process: subprocess.Popen) -> None:
    """End a process and what it started."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_gpu(options: GPUOptions) -> tuple[dict[str, Any], bool]:
    """Run the parts, print a table of each, and write the JSON file and the page.

    Returns:
        The report, and whether no part failed.
    """
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    parts: list[Part] = []
    size = ["--small"] if options.small else []
    for name in options.parts or GPU_BUDGETS:
        process = [sys.executable, "-m", "benchmarks.gpu_parts", name, options.device, *size]
        part = run_part(name, process, GPU_BUDGETS[name] * (DRY_FACTOR if options.small else 1))
        parts.append(part)
        relate(parts)
        print_part(part, console)
    machine = next((row["machine"] for part in parts for row in part.rows if "machine" in row), "")
    command = f"make gpu DEVICE={options.device}{' SMALL=1' * options.small}"
    report = {"command": command, "machine": machine, "parts": [asdict(part) for part in parts]}
    write_json(report, options.output.with_suffix(".json"))
    with atomic_path(options.output) as partial:
        partial.write_text("\n".join(page(machine, command, parts)) + "\n")
    console.print(f"{options.output}, {options.output.with_suffix('.json')}")
    return report, not any(part.failed for part in parts)


def relate(parts: Sequence[Part]) -> None:
    """Add to the rows what follows from others: the share of the peak, and the relation to MMagic's float32."""
    rows = [row for part in parts for row in part.rows if "failed" not in row]
    peaks = {row["precision"]: row["tflops"] for row in rows if row.get("kind") == "peak"}
    references = {row["case"]: row for row in rows if row.get("reference")}
    for row in rows:
        if "tflops" in row and row.get("kind") != "peak" and row["precision"] in peaks:
            row["share"] = row["tflops"] / peaks[row["precision"]]
        reference = references.get(row.get("case"))
        if reference is not None and row is not reference:
            row["speed"] = reference["seconds"] / row["seconds"]
            if row.get("memory") and reference.get("memory"):
                row["memory_ratio"] = row["memory"] / reference["memory"]


# Tables


def cells(row: Row) -> list[str]:
    """The columns of a row as text; those that it does not have are empty."""
    values = {**row, "memory": row["memory"] / GIB} if row.get("memory") else {**row, "memory": None}
    return [form.format(values[key]) if values.get(key) is not None else "" for key, _, form in COLUMNS]


def table_of(part: Part) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of a part, without the columns that are empty everywhere."""
    rows = [
        [row["label"], *([""] * (len(COLUMNS) - 1)), f"failed: {row['failed']}"]
        if "failed" in row
        else [row["label"], *cells(row)]
        for row in part.rows
    ]
    headings = ["", *(heading for _, heading, _ in COLUMNS)]
    used = [i for i in range(len(headings)) if i == 0 or any(row[i] for row in rows)]
    return [headings[i] for i in used], [[row[i] for i in used] for row in rows]


def status_of(part: Part) -> str:
    """In words, with the seconds.

    >>> status_of(Part("peak", 3.2)), status_of(Part("peak", 3.2, "no GPU"))
    ('3 s', 'FAILED after 3 s: no GPU')
    """
    return f"FAILED after {part.seconds:.0f} s: {part.reason}" if part.reason else f"{part.seconds:.0f} s"


def print_part(part: Part, console: Console) -> None:
    headings, rows = table_of(part)
    console.print(f"{TITLES[part.name]} ({status_of(part)})")
    if rows:
        table = Table(*headings)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def page(machine: str, command: str, parts: Sequence[Part]) -> list[str]:
    """The page, line by line."""
    lines = ["# Performance on a GPU", "", "All numbers on this page are from one run of", "", f"    {command}", ""]
    lines += [
        f"on {machine or 'a machine that could not be read'}",
        "",
        "Random weights, the same for both; seconds are medians, and include the waiting for the GPU. Memory is the",
        "peak of what PyTorch allocated. MMagic is MMagic's own class, which does not run in half precision, and, for",
        "training, its own restorer and losses; × MMagic relates to it in float32 (in inference without TF32).",
        "The share of the peak relates the operations of the unfolded network to the largest throughput of the same",
        "precision. PSNR compares with the output of MMagic's class in float32.",
    ]
    for part in parts:
        headings, rows = table_of(part)
        lines += ["", f"## {TITLES[part.name]}", "", f"This part took {part.seconds:.0f} s."]
        lines += [f"It **failed**: {part.reason}."] if part.reason else []
        if rows:
            lines += ["", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
            lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return lines
