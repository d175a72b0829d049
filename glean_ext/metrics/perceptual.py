"""LPIPS (Zhang et al., CVPR 2018), computed by its authors' package."""

from __future__ import annotations

from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.metrics.base import NetworkMetric
from glean_ext.networks.lpips_network import BACKBONES, load_lpips, lpips_distance, require_lpips_size


class LPIPS(NetworkMetric):
    """``LPIPS``, version 0.1: 0 for equal images, lower is better.

    The package brings the calibrated weights of the distance; those of the backbone are torchvision's.

    Args:
        pretrained: The backbone's weights: ``'torchvision://alexnet'`` (downloaded once), or the path or URL of a
            torchvision checkpoint.
        net: ``'alex'``, which most papers report, or ``'vgg'``.
        prefix: As in :class:`~glean_ext.metrics.base.SavedImageMetric`; so is ``collect_device``.

    Raises:
        InputError: An unknown ``net``, no ``pretrained``, a file that does not fit; in an evaluation: too small images.
    """

    metric = "LPIPS"

    def __init__(
        self, pretrained: str | None = None, net: str = "alex", prefix: str | None = None, collect_device: str = "cpu"
    ):
        super().__init__(prefix, collect_device)
        if net not in BACKBONES:
            raise InputError(f"LPIPS.net must be one of {', '.join(BACKBONES)}, but it is {net!r}.")
        self.net = net
        self.network = load_lpips(net, pretrained)

    def measure(self, output: Tensor, sample: dict) -> dict[str, float]:
        """The distance of one output to its ground truth."""
        return {self.metric: lpips_distance(self.network, self.net, output, self.image(sample, "gt_img"))}

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for images that are too small."""
        require_lpips_size(self.net, height, width)
