"""Hooks for whoever watches a training: pictures, the FID of a bank, a progress bar."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glean_ext.engine.unwrap import unwrap
from glean_ext.networks import StyleGAN2Generator
from glean_ext.utils.array_conversion import to_uint8
from glean_ext.utils.image_grid import Row, comparison
from glean_ext.utils.imresize import imresize


class ComparisonHook(Hook):
    """Shows the first images of the validation set at each validation: LR, bicubic, output, GT.

    The picture goes to the runner's visualizer, and so to each of its back ends: ``vis_data/vis_image`` in the work dir
    by default, TensorBoard or Weights & Biases when the config names them.

    Args:
        images: How many are shown.
        side: Pixels of the longer side of each picture.
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
            [to_uint8(image.flip(0) / 127.5 - 1) for image in images]  # from BGR in [0, 255], as MMagic hands them out
            for images in zip(*((s.input, s.output.pred_img, s.gt_img) for s in self._samples), strict=True)
        )
        bicubic = [imresize(lr, size=(len(hr), hr.shape[1])) for lr, hr in zip(lq, gt, strict=True)]
        rows = [Row("LR", lq), Row("bicubic", bicubic), Row("output", output), Row("GT", gt)]
        sheet = comparison(rows, self.side, self.images)
        runner.visualizer.add_image("comparison", np.asarray(sheet), step=runner.iter)
        self._samples = []


class BankSamplesHook(Hook):
    """Shows images of a bank in training, from fixed latents and the average of its weights.

    Args:
        interval: Iterations between pictures.
        rows: Rows of the picture; so ``columns``.
        columns: See ``rows``.
    """

    def __init__(self, interval: int = 5000, rows: int = 4, columns: int = 8):
        self.interval = interval
        self.rows = rows
        self.columns = columns

    @master_only
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            bank = _average(runner)
            training = bank.training
            sheet = sample_sheet(bank.eval(), self.rows, self.columns)
            bank.train(training)
            runner.visualizer.add_image("samples", np.asarray(sheet), step=runner.iter + 1)


def _average(runner: Runner) -> StyleGAN2Generator:
    """The average of a bank's weights that MMagic's StyleGAN2 keeps."""
    return cast(StyleGAN2Generator, unwrap(runner.model).get_submodule("generator_ema.module"))


class ProgressBarHook(Hook):
    """A progress bar with the time left, for runs that a person watches. Shown by the first process only."""

    priority = "VERY_LOW"

    def before_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        losses = TextColumn("{task.description}")
        self._progress = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), losses
        )
        self._task = self._progress.add_task("", total=runner.max_iters, completed=runner.iter)
        atexit.register(self._progress.stop)  # a run that fails never comes to after_train
        self._progress.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        if is_main_process():
            losses = " ".join(f"{k.removeprefix('loss_')} {v.item():.4f}" for k, v in (outputs or {}).items())
            self._progress.update(self._task, completed=runner.iter + 1, description=losses)

    def after_train(self, runner: Runner) -> None:
        if is_main_process():
            self._progress.stop()


@torch.no_grad()
def sample_sheet(bank: StyleGAN2Generator, rows: int = 8, columns: int = 16, seed: int = 0) -> Image.Image:
    """``rows * columns`` images of ``bank`` from seeded latents, without truncation."""
    z = torch.randn(rows * columns, bank.style_channels, generator=torch.Generator().manual_seed(seed))
    images = torch.cat([bank(latents) for latents in z.to(bank.constant_input.input.device).split(8)])
    images = (images.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).cpu()  # (N, 3, H, W)
    _, c, h, w = images.shape
    sheet = images.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(sheet.numpy())
