"""Base classes of the metrics, which compare images as they would be saved."""

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
    """A metric of output, ground truth and input as 8-bit RGB, rounded as in a file.

    It gives mmengine one result for each image. mmengine gathers those of all processes and drops the images that the
    sampler repeated, so that the value does not depend on the number of processes.

    Args:
        prefix: Put before the names of the values, to distinguish several evaluations.
        collect_device: ``'cpu'`` or ``'gpu'``: how mmengine gathers the results of several processes.
    """

    names: tuple[str, ...] = ()  # of its values, where it has other ones than ``metric``

    def __init__(self, prefix: str | None = None, collect_device: str = "cpu"):
        super().__init__(collect_device=collect_device, prefix=prefix)

    @abstractmethod
    def measure(self, output: Tensor, sample: dict) -> Any:
        """The result of one image. It must not be None: mmengine would drop it and count another image twice.

        Args:
            output: (3, H, W) uint8 RGB, the network's output.
            sample: Has ``'gt_img'`` and ``'input'``, which :meth:`image` reads.
        """

    def image(self, sample: dict, key: str) -> Tensor:
        """An image of ``sample`` as (3, H, W) uint8 RGB. MMagic gives metrics BGR in [0, 255], outputs not rounded."""
        image = obtain_data(sample, key, self.device)
        return image.float().round().clamp(0, 255).to(torch.uint8).flip(0)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure each image of a batch."""
        for sample in data_samples:
            self.results.append(self.measure(self.image(sample["output"], self.pred_key), sample))


class NetworkMetric(SavedImageMetric):
    """A metric computed by a network, on the device of the model."""

    network: nn.Module

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Called once before the first evaluation."""
        super().prepare(module, dataloader)
        self.device = self.data_preprocessor.device
        self.network.to(self.device)


def optional_package(module: str, user: str, packages: str) -> ModuleType:
    """Import a package that only some metrics need.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{user} needs a package that is not installed: pip install {packages}") from error
