"""NIQE (Mittal et al., IEEE SPL 2013), which needs no ground truth: lower is more natural."""

from __future__ import annotations

from mmagic.evaluation import NIQE as MMagicNIQE
from torch import Tensor

from glean_ext.errors import InputError

BLOCK = 96  # side of the blocks whose statistics are compared


class NIQE(MMagicNIQE):
    """MMagic's NIQE with defaults that fit the tensors which MMagic gives to its metrics.

    MMagic's own default for ``input_order`` fails, and for an image of one block it returns a meaningless number.

    Args:
        key: As in MMagic; not used, nor is ``is_predicted``.
        collect_device: As in :class:`~glean_ext.metrics.base.SavedImageMetric`; so is ``prefix``.
        crop_border: Pixels to leave out at each border.
        input_order: ``'CHW'`` for tensors.
        convert_to: ``'gray'``, or ``'y'`` as BasicSR and MATLAB's own ``niqe``; they differ by about 0.01.

    Raises:
        InputError: In an evaluation: an image too small for two blocks of 96×96 pixels.
    """

    def __init__(
        self,
        key: str = "pred_img",
        is_predicted: bool = True,
        collect_device: str = "cpu",
        prefix: str | None = None,
        crop_border: int = 0,
        input_order: str = "CHW",
        convert_to: str = "gray",
    ):
        super().__init__(key, is_predicted, collect_device, prefix, crop_border, input_order, convert_to)

    def process_image(self, gt: Tensor, pred: Tensor, mask: Tensor) -> float:
        """NIQE of ``pred``, (3, H, W) BGR in [0, 255]."""
        self.check_size(*(pred.shape[1:] if self.input_order == "CHW" else pred.shape[:2]))
        return float(super().process_image(gt, pred, mask))

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for images that are too small."""
        rows, columns = ((side - 2 * self.crop_border) // BLOCK for side in (height, width))
        if rows * columns < 2 or min(rows, columns) < 1:
            raise InputError(
                f"NIQE needs images of at least {BLOCK}x{2 * BLOCK} pixels, but the output has {width}x{height}.",
                hint="Remove NIQE from the evaluator.",
            )
