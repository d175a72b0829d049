"""The table of an evaluation: a line for each restorer, a column for each metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from glean_ext.evaluation.measures import Measure
    from glean_ext.evaluation.run import Evaluation

MISSING = "-"
DIGITS = {"psnr": 2, "lr_psnr": 2, "niqe": 2, "ssim": 4}  # after the point


def summary(evaluation: Evaluation) -> list[list[str]]:
    """Head and lines, with two lines in a cell: mean and standard deviation over the images; the worst value.

    An infinite value, the PSNR of equal images, leaves no deviation.
    """
    lines = [["restorer", *(f"{measure.name} {direction(measure)}" for measure in evaluation.measures)]]
    for i, label in enumerate(evaluation.labels):
        line = [label]
        for measure in evaluation.measures:
            values = evaluation.values(measure.name, i)
            if not len(values):
                line.append(MISSING)
                continue
            worst = values.max() if measure.lower_is_better else values.min()
            mean = format_value(measure.name, float(values.mean()))
            spread = f" ± {format_value(measure.name, float(values.std()))}" if np.isfinite(values).all() else ""
            line.append(f"{mean}{spread}\nworst {format_value(measure.name, float(worst))}")
        lines.append(line)
    return lines


def direction(measure: Measure) -> str:
    """An arrow towards better values."""
    return "↓" if measure.lower_is_better else "↑"


def format_value(metric: str, value: float | None) -> str:
    """With as many digits as the metric deserves."""
    return MISSING if value is None else f"{value:.{DIGITS.get(metric, 3)}f}"
