"""How fast the degradation engine makes blind inputs, in images per second of one core."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import cv2
from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.comparison import machine_line
from benchmarks.data_loading import make_test_image
from benchmarks.measure import SampleStats
from glean_ext.degradations import Recipe
from glean_ext.degradations.presets import PRESETS
from glean_ext.utils.progress import ProgressBar


@dataclass(frozen=True)
class Speed:
    """Processor seconds of a preset for one image, which other processes do not lengthen.

    Args:
        preset: Its name.
        seconds: Of each of several images, which draw other degradations.
        images_per_second: Of one core, from the mean: expensive draws count.
    """

    preset: str
    seconds: SampleStats
    images_per_second: float


def measure_presets(size: int, images: int, console: Console) -> dict[str, Any]:
    """Degrade ``images`` times an image of ``size`` x ``size`` to the same size, with other seeds each time.

    Returns:
        ``speeds``: a :class:`Speed` for each preset; ``size``, ``machine`` and ``versions``.
    """
    image, threads = make_test_image(size), cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ProgressBar(console, transient=True) as bar:
            task = bar.add_task("degrading", total=len(PRESETS))
            speeds = []
            for name in PRESETS:
                recipe = Recipe.preset(name)
                recipe.degrade(image, (size, size), seed=images)  # what is made once
                seconds = [_seconds(recipe, image, seed) for seed in range(images)]
                speeds.append(Speed(name, SampleStats.of(seconds), images / sum(seconds)))
                bar.advance(task)
    finally:
        cv2.setNumThreads(threads)
    return {"speeds": speeds, "size": size, **measure.describe_environment("cpu")}


def _seconds(recipe: Recipe, image: Any, seed: int) -> float:
    start = time.process_time()
    recipe.degrade(image, image.shape[:2], seed)
    return time.process_time() - start


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print what :func:`measure_presets` returned."""
    size = report["size"]
    table = Table("preset", title=f"Degrading {size}x{size} pixels to the same size, one core, processor time")
    for column in "median (ms)", "slowest (ms)", "images/s":
        table.add_column(column, justify="right")
    for row in report["speeds"]:
        times = (f"{1000 * value:.1f}" for value in (row.seconds.median, row.seconds.maximum))
        table.add_row(row.preset, *times, f"{row.images_per_second:.0f}")
    console.print(table)
    console.print(machine_line(report))
