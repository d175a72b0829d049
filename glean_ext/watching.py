"""Hooks for whoever watches a training: pictures, the FID of a bank, a progress bar."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from mmengine.dist import collect_results, get_dist_info, is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from glean_ext.datasets.sampler import seeded
from glean_ext.errors import InputError
from glean_ext.hooks import unwrap
from glean_ext.images import to_uint8
from glean_ext.imresize import imresize
from glean_ext.metrics.fid import InceptionFeatures, frechet_distance
from glean_ext.networks import StyleGAN2Generator
from glean_ext.pictures import Row, comparison, sample_sheet


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


class BankFIDHook(Hook):
    """FID of a bank in training: random images of the average of its weights against the training images.

    It goes to the log and to the runner's visualizer. It depends on the number of images, of which papers take 50,000.
    The same images are compared however many processes there are, and each time.

    Args:
        pretrained: Inception's weights, see :class:`~glean_ext.metrics.fid.InceptionFeatures`.
        interval: Iterations between evaluations; there is one at the end, too.
        images: Of each kind; of the training images at most all there are.
        batch_size: Images looked at at a time, in each process.

    Raises:
        InputError: As ``InceptionFeatures``; fewer than two images.
    """

    def __init__(
        self, pretrained: str | None = None, interval: int = 10_000, images: int = 10_000, batch_size: int = 16
    ):
        if images < 2:
            raise InputError(f"BankFIDHook.images is {images}, but FID needs at least 2.")
        self.interval = interval
        self.images = images
        self.batch_size = batch_size
        with seeded(0):  # random numbers are drawn before the weights are read
            self.network = InceptionFeatures(pretrained)
        self._real: Tensor | None = None  # (images, 2048), in the first process

    def before_train(self, runner: Runner) -> None:
        self.network.to(_average(runner).constant_input.input.device)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        if self._real is None:
            dataset = runner.train_dataloader.dataset
            count = min(self.images, len(dataset))
            self._real = self._features(lambda i: _training_image(dataset, i * len(dataset) // count), count)
        bank = _average(runner)
        training = bank.training
        bank.eval()
        drawn = self._features(lambda i: _drawn_image(bank, i), self.images)
        bank.train(training)
        if is_main_process():
            value = frechet_distance(drawn, self._real)
            runner.logger.info(f"FID after {runner.iter + 1} iterations: {value:.2f} ({self.images} images drawn)")
            runner.visualizer.add_scalar("FID", value, step=runner.iter + 1)

    @torch.no_grad()
    def _features(self, image: Callable[[int], Tensor], count: int) -> Tensor:
        """(count, 2048) of images 0 to ``count - 1``, each (3, H, W) uint8, in the first process; elsewhere nothing."""
        rank, processes = get_dist_info()
        own = range(rank, -(-count // processes) * processes, processes)  # the same number for every process
        features: list[Tensor] = []
        for start in range(0, len(own), self.batch_size):
            images = torch.stack([image(i % count) for i in own[start : start + self.batch_size]])
            features += self.network(images.to(next(self.network.buffers()).device)).cpu()
        return torch.stack(collect_results(features, count, "cpu") or features)


def _average(runner: Runner) -> StyleGAN2Generator:
    """The average of a bank's weights that MMagic's StyleGAN2 keeps."""
    return cast(StyleGAN2Generator, unwrap(runner.model).get_submodule("generator_ema.module"))


def _training_image(dataset: Sequence, index: int) -> Tensor:
    with seeded(index):  # its transforms draw random numbers
        return dataset[index]["data_samples"].gt_img


def _drawn_image(bank: StyleGAN2Generator, seed: int) -> Tensor:
    z = torch.randn(1, bank.style_channels, generator=torch.Generator().manual_seed(seed))
    image = bank(z.to(bank.constant_input.input.device))[0]
    return (image.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


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
