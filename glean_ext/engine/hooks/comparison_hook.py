"""Shows what the restorer makes of the first validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.utils.array_conversion import to_uint8
from glean_ext.utils.image_grid import Row, comparison
from glean_ext.utils.imresize import imresize


class ComparisonHook(Hook):
    """Shows the first images of the validation set after each validation: LR, bicubic, output, GT.

    The picture goes to the runner's visualizer and to each of its back ends: ``vis_data/vis_image`` in the work
    directory by default, TensorBoard or Weights & Biases when the config names them.

    Args:
        images: How many images the picture has.
        side: Pixels of the longer side of each image in the picture.
    """

    def __init__(self, images: int = 8, side: int = 160):
        self.images = images
        self.side = side
        self._samples: list = []

    def before_val_epoch(self, runner: Runner) -> None:
        self._samples = []

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence | None = None
    ) -> None:
        if is_main_process():
            self._samples.extend((outputs or [])[: self.images - len(self._samples)])

    def after_val_epoch(self, runner: Runner, metrics: object = None) -> None:
        if not self._samples:
            return
        lq, output, gt = (
            [to_uint8(image.flip(0) / 127.5 - 1) for image in images]  # MMagic gives BGR in [0, 255]
            for images in zip(*((s.input, s.output.pred_img, s.gt_img) for s in self._samples), strict=True)
        )
        bicubic = [imresize(lr, size=(len(hr), hr.shape[1])) for lr, hr in zip(lq, gt, strict=True)]
        rows = [Row("LR", lq), Row("bicubic", bicubic), Row("output", output), Row("GT", gt)]
        sheet = comparison(rows, self.side, self.images)
        runner.visualizer.add_image("comparison", np.asarray(sheet), step=runner.iter)
        self._samples = []
