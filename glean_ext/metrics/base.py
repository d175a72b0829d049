"""What the metrics share: they look at images as they would be saved."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.evaluation.metrics.metrics_utils import obtain_data
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glean_ext.errors import InputError


class SavedImageMetric(BaseSampleWiseMetric):
    """A metric of output, ground truth and input as 8-bit RGB: rounded as in a file.

    One result an image goes to mmengine, which gathers those of all processes and drops what the sampler repeated, so
    that any number of processes gives the same value.

    Args:
        prefix: Put before the names of the values, to tell several evaluations apart.
        collect_device: ``'cpu'`` or ``'gpu'``: how mmengine gathers the results of several processes.
    """

    def __init__(self, prefix: str | None = None, collect_device: str = "cpu"):
        super().__init__(collect_device=collect_device, prefix=prefix)

    @abstractmethod
    def measure(self, output: Tensor, sample: dict) -> Any:
        """The result of one image; not None, which mmengine would drop and count another image twice.

        Args:
            output: (3, H, W) uint8 RGB, what the network made.
            sample: Where :meth:`image` finds ``'gt_img'`` and ``'input'``.
        """

    def image(self, sample: dict, key: str) -> Tensor:
        """(3, H, W) uint8 RGB. MMagic hands all images to its metrics as BGR in [0, 255], outputs not rounded."""
        image = obtain_data(sample, key, self.device)
        return image.float().round().clamp(0, 255).to(torch.uint8).flip(0)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure each image of a batch."""
        for sample in data_samples:
            self.results.append(self.measure(self.image(sample["output"], self.pred_key), sample))


class NetworkMetric(SavedImageMetric):
    """A metric that looks through a network, on the device of the model."""

    network: nn.Module

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Called once before the first evaluation."""
        super().prepare(module, dataloader)
        self.device = self.data_preprocessor.device
        self.network.to(self.device)


def optional_package(module: str, user: str, packages: str) -> ModuleType:
    """Import what only some metrics need.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{user} needs a package that is not installed: pip install {packages}") from error
