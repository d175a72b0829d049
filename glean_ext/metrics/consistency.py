"""Consistency of the output with the low-resolution input."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from glean_ext.metrics.base import SavedImageMetric
from glean_ext.utils.pixel_errors import lr_errors


class LRConsistency(SavedImageMetric):
    """``LR_PSNR`` (dB) and ``LR_MAE`` (of 1) between the input and the output resized to the input's size.

    The output is resized by MATLAB's antialiased bicubic ``imresize`` in 8 bits, as :class:`LoadOrMakeLQ` makes inputs,
    so the ground truth has an ``LR_PSNR`` of infinity and an ``LR_MAE`` of 0. The metric has no meaning for inputs that
    were degraded in another way, as in blind restoration. SRFlow (ECCV 2020) and NTIRE's challenge on learning the
    super-resolution space report it as LR-PSNR.
    """

    metric = "LR_PSNR"
    names = ("LR_PSNR", "LR_MAE")

    def measure(self, output: Tensor, sample: dict) -> tuple[float, float]:
        """PSNR and mean absolute error of one image."""
        lq, image = (x.permute(1, 2, 0).cpu().numpy() for x in (self.image(sample, "input"), output))  # (H, W, 3)
        return lr_errors(image, lq)

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        """Means over the images; as in MMagic, one perfect image makes the mean PSNR infinite."""
        psnr, mae = np.mean(results, axis=0)
        return {"LR_PSNR": float(psnr), "LR_MAE": float(mae)}
