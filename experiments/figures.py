"""The figures of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments import domains
from experiments.experiment import Experiment
from experiments.summary import Summary
from glean_ext.utils.files import atomic_path
from glean_ext.utils.image_grid import Row, comparison

COLUMNS = 8
SIDE = 96  # pixels of an image in a sheet
LABEL_WIDTH = 230  # pixels
ENCODER = {"none": "bank-none", "4": "bank-4", "4-8": "bank-4-8", "4-16": "bank-4-8-16"}


def pictures(images: Tensor, indices: list[int]) -> list[np.ndarray]:
    return [images[i].permute(1, 2, 0).numpy() for i in indices]


def outputs(experiment: Experiment) -> Tensor | None:
    """The restored test images, where this machine has them."""
    file = experiment.work_dir / "outputs.pt"
    return torch.load(file, weights_only=True) if file.exists() and experiment.result_file.exists() else None


def sheet(systems: dict[str, Experiment], indices: list[int], path: Path) -> bool:
    """Input, every system that has outputs, and ground truth, for some test images; False where there are none."""
    first = next(iter(systems.values()))
    gt = domains.load(first.domain).parts["test"].images
    rows = [Row("LR", pictures(domains.reduced(gt[indices], first.scale), list(range(len(indices)))))]
    for name, experiment in systems.items():
        if (images := outputs(experiment)) is not None and len(images) > max(indices):
            rows.append(Row(name, pictures(images, indices)))
    if len(rows) == 1:
        return False
    rows.append(Row("GT", pictures(gt, indices)))
    save(rows, path)
    return True


def save(rows: list[Row], path: Path) -> None:
    with atomic_path(path) as partial:
        comparison(rows, SIDE, COLUMNS, LABEL_WIDTH).save(partial, "PNG")


def worst(experiment: Experiment, summary: Summary, count: int = COLUMNS) -> list[int]:
    """The test images with the highest LPIPS, worst first."""
    values = summary.results[experiment.name]["LPIPS_of_each"]
    return sorted(range(len(values)), key=lambda i: -values[i])[:count]


def benefit(points: list[tuple[str, float, float]], path: Path) -> None:
    """Bars: how much LPIPS the pre-trained bank saves over a random one, with the spread of both.

    Args:
        points: Label, difference, spread.
        path: PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 0.6 * len(points) + 1.4), layout="constrained")
    labels, values, spreads = zip(*points, strict=True)
    axes.barh(labels, values, xerr=spreads, color="#4c78a8", capsize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("LPIPS that the pre-trained bank saves over a random one")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    pyplot.close(figure)
