"""FID of a bank in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmengine.dist import collect_results, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.engine.bank_samples import averaged_bank, draw
from glean_ext.errors import InputError
from glean_ext.metrics.fid import InceptionFeatures, frechet_distance
from glean_ext.networks import StyleGAN2Generator


class BankFIDHook(Hook):
    """FID of a bank in training: images of the average of its weights against the training images.

    The value goes to the log and to the runner's visualizer. It depends on the number of images; papers take 50,000.
    Each evaluation compares the same latent codes and training images, in any number of processes.

    Args:
        pretrained: Inception's weights, see :class:`~glean_ext.metrics.fid.InceptionFeatures`.
        interval: Iterations between evaluations; the last iteration is evaluated, too.
        images: The number of drawn images, and of training images unless there are fewer.
        batch_size: Images per batch and process.

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
        with seeded(0):  # random values are drawn before the weights are read
            self.network = InceptionFeatures(pretrained)
        self._real: Tensor | None = None  # (images, 2048), in the first process

    def before_train(self, runner: Runner) -> None:
        self.network.to(averaged_bank(runner).constant_input.input.device)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        if self._real is None:
            dataset = runner.train_dataloader.dataset
            count = min(self.images, len(dataset))
            self._real = self._features(lambda i: _training_image(dataset, i * len(dataset) // count), count)
        bank = averaged_bank(runner)
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
        """(count, 2048) of images 0 to ``count - 1``, each (3, H, W) uint8; whole in the first process only."""
        rank, processes = get_dist_info()
        own = range(rank, -(-count // processes) * processes, processes)  # the same number in every process
        features: list[Tensor] = []
        for start in range(0, len(own), self.batch_size):
            images = torch.stack([image(i % count) for i in own[start : start + self.batch_size]])
            features += self.network(images.to(next(self.network.buffers()).device)).cpu()
        return torch.stack(collect_results(features, count, "cpu") or features)


def _training_image(dataset: Sequence, index: int) -> Tensor:
    with seeded(index):  # for the random transforms
        return dataset[index]["data_samples"].gt_img


def _drawn_image(bank: StyleGAN2Generator, seed: int) -> Tensor:
    return draw(bank, torch.randn(1, bank.style_channels, generator=torch.Generator().manual_seed(seed)))[0]
