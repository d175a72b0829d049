"""How long cold processes take."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.comparison import machine_line, ticking
from benchmarks.measure import Spread
from glean_ext.errors import InputError
from glean_ext.utils.image_io import write_png

ROOT = Path(__file__).parents[1]
NETWORKS, TORCH = "import glean_ext.networks", "import torch"
HELP, IMAGE, MMAGIC = "tools/infer.py --help", "tools/infer.py, one image", "import mmagic.apis"


def commands(folder: Path) -> dict[str, list[str]]:
    """What is started, by what tables call it; files come from and go to ``folder``."""
    tool, config = str(ROOT / "tools" / "infer.py"), str(ROOT / "configs" / "demo_glean_x8.py")
    image = folder / "lq.png"
    write_png(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), image)
    restore = [
        config,
        "glean-ext://demo_glean_x8.safetensors",
        str(image),
        "-o",
        str(folder / "restored.png"),
        "--overwrite",
    ]
    # MMagic cannot be imported beside mmcv-lite without the first line.
    mmagic = "from glean_ext import compat; compat.apply(); import mmagic.apis"
    python = sys.executable
    return {
        TORCH: [python, "-c", TORCH],
        NETWORKS: [python, "-c", NETWORKS],
        HELP: [python, tool, "--help"],
        IMAGE: [python, tool, *restore],
        MMAGIC: [python, "-c", mmagic],
    }


def startup(repeats: int, console: Console) -> dict[str, Any]:
    """Time the commands in turn.

    Returns:
        ``seconds`` of each command; ``ratios``: the networks' import relative to torch's, an image relative to MMagic's
        import, pair by pair; ``machine`` and ``versions``.

    Raises:
        InputError: A command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = commands(Path(folder))
        with ticking(console, "starting processes", len(started) * (repeats + 1)) as tick:
            for command in started.values():  # once for the disk's cache
                _run(command)
                tick()
            runs = [lambda command=command: _run(command) for command in started.values()]
            times = dict(zip(started, measure.alternate(runs, repeats, "cpu", tick), strict=True))
    ratios = {
        f"{a} / {b}": Spread.of([x / y for x, y in zip(times[a], times[b], strict=True)])
        for a, b in ((NETWORKS, TORCH), (IMAGE, MMAGIC))
    }
    seconds = {name: Spread.of(values) for name, values in times.items()}
    return {"seconds": seconds, "ratios": ratios, **measure.circumstances("cpu")}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{' '.join(command[1:3])} failed: {reason}")


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print what :func:`startup` returned."""
    table = Table("cold process", title="Start-up")
    table.add_column("seconds", justify="right")
    table.add_column("quartiles", justify="right")
    for name, seconds in report["seconds"].items():
        table.add_row(name, f"{seconds.median:.2f}", f"{seconds.low:.2f}-{seconds.high:.2f}")
    console.print(table)
    for name, ratio in report["ratios"].items():
        console.print(f"{name}: {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})")
    console.print(machine_line(report))
