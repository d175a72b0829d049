"""The figures of the report. Sheets are drawn where this machine has the restored images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import domains
from experiments.emoji_data import CLASS_NAMES
from experiments.experiment import Experiment
from experiments.summary import Group
from glean_ext.utils.files import atomic_path

ROWS = 6  # images in a sheet
INCHES = 1.05  # of an image
DPI = 110


def outputs(experiment: Experiment, which: str = "") -> Tensor | None:
    """The restored test images, where this machine has them; ``"_none"`` or ``"_wrong"``: with other labels."""
    file = experiment.work_dir / f"outputs{which}.pt"
    return torch.load(file, weights_only=True) if file.exists() and experiment.result_file.exists() else None


def sheet(systems: Mapping[str, Experiment], indices: Sequence[int], labels: Sequence[str], path: Path) -> None:
    """A row for each test image; columns: input, every system that has outputs, original.

    Args:
        systems: By the names over their columns; of one domain and scale.
        indices: Of the test images.
        labels: Of the rows.
        path: PNG file. Nothing is written where no system has outputs.
    """
    found = {
        name: images
        for name, experiment in systems.items()
        if (images := outputs(experiment)) is not None and len(images) > max(indices)
    }
    if not found:
        return
    first = next(iter(systems.values()))
    gt = domains.load(first.domain).parts["test"].images[list(indices)]
    lq = domains.reduced(gt, first.scale)
    columns = {f"input\n{lq.shape[3]}×{lq.shape[2]}": lq, **{name: x[list(indices)] for name, x in found.items()}}
    draw_grid({**columns, "original\n64×64": gt}, labels, path)


def class_sheet(experiment: Experiment, path: Path) -> None:
    """A row for the first test image of each class: input, bicubic, results with a wrong and the right label, original.

    Nothing is written where the results are not on this machine.
    """
    right, wrong = (outputs(experiment, which) for which in ("", "_wrong"))
    if right is None or wrong is None:
        return
    test = domains.load(experiment.domain).parts["test"]
    assert test.classes is not None
    classes = test.classes.tolist()
    names = [name for index, name in enumerate(CLASS_NAMES) if index in classes]
    rows = [classes.index(CLASS_NAMES.index(name)) for name in names]
    lq = domains.reduced(test.images, experiment.scale)
    columns = {
        "input": lq,
        "bicubic": domains.enlarged(lq, experiment.scale),
        "wrong label": wrong,
        "right label": right,
        "original": test.images,
    }
    draw_grid({name: images[rows] for name, images in columns.items()}, names, path)


def draw_grid(columns: Mapping[str, Tensor], labels: Sequence[str], path: Path) -> None:
    """Images (M, 3, H, W) uint8 by column, one row for each of the M labels."""
    pyplot = _pyplot()
    size = INCHES * len(columns) + 0.8, INCHES * len(labels) + 0.5
    figure, axes = pyplot.subplots(len(labels), len(columns), figsize=size, layout="constrained", squeeze=False)
    for x, (name, images) in enumerate(columns.items()):
        axes[0, x].set_title(name, fontsize=8)
        for y, image in enumerate(images):
            axes[y, x].imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[y, x].set(xticks=[], yticks=[])
            axes[y, x].spines[:].set_visible(False)
    for y, label in enumerate(labels):
        axes[y, 0].set_ylabel(label, fontsize=8)
    _save(figure, path)


def worst(group: Group, count: int = ROWS) -> dict[int, float]:
    """The test images with the highest LPIPS, and it, worst first; of the run with the lowest seed."""
    values = min(group.results, key=lambda result: result["config"]["seed"])["LPIPS_of_each"]
    return {i: values[i] for i in sorted(range(len(values)), key=lambda i: -values[i])[:count]}


def benefit(points: Sequence[tuple[str, float, float]], path: Path) -> None:
    """Bars: how much LPIPS the pre-trained bank saves over a random one.

    Args:
        points: Label, difference, sum of the spreads of both.
        path: PNG file.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6.4, 0.45 * len(points) + 1.1), layout="constrained")
    labels, values, spreads = zip(*points, strict=True)
    axes.barh(labels, values, xerr=spreads, color="#d9822b", capsize=3, error_kw={"elinewidth": 1})
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "LPIPS of the random bank − LPIPS of the pre-trained bank\n(right of 0: the bank helps)", fontsize=9
    )
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})
    _pyplot().close(figure)
