"""LPIPS (Zhang et al., CVPR 2018), computed by its authors' package."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.metrics.base import NetworkMetric


class Backbone(NamedTuple):
    """A classifier trained on ImageNet whose features LPIPS compares."""

    name: str  # torchvision's
    file: str  # of its weights
    smallest: int  # side of the smallest image that leaves a feature in the last layer


BACKBONES = {
    "alex": Backbone("alexnet", "alexnet-owt-7be5be79.pth", 31),
    "vgg": Backbone("vgg16", "vgg16-397923af.pth", 16),
}


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
        self.backbone = BACKBONES[net]
        self.network = load_lpips(net, pretrained)

    def measure(self, output: Tensor, sample: dict) -> dict[str, float]:
        """The distance of one output to its ground truth."""
        gt = self.image(sample, "gt_img")
        self.check_size(*output.shape[1:])
        with torch.no_grad():
            distance = self.network(*(x[None].float() / 127.5 - 1 for x in (output, gt)))
        return {self.metric: distance.item()}

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for images that are too small."""
        if min(height, width) < self.backbone.smallest:
            raise InputError(
                f"LPIPS with {self.backbone.name} needs images of at least {self.backbone.smallest} pixels a side, but "
                f"the output has {width}x{height}. Remove LPIPS from the evaluator."
            )


def load_lpips(net: str, pretrained: str | None) -> nn.Module:
    """``lpips.LPIPS`` with a backbone from ``pretrained``, see :class:`LPIPS`.

    Raises:
        InputError: There is no ``pretrained``, or it does not fit ``net``.
    """
    import lpips

    backbone = BACKBONES[net]
    asset = f"torchvision://{backbone.name}"
    if not pretrained or (pretrained.startswith("torchvision://") and pretrained != asset):
        raise InputError(
            f"LPIPS.pretrained is {pretrained!r}, but net={net!r} needs torchvision's {backbone.name}. Set "
            f"pretrained={asset!r} to download its weights, or the path of the file {backbone.file}."
        )
    source = pretrained
    if source == asset:
        from torchvision.models import get_model_weights

        source = get_model_weights(backbone.name).IMAGENET1K_V1.url
    state = checkpoints.with_prefix(checkpoints.read(source), "features", source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision with a deprecated argument
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # lpips divides the features into slices and keeps the layers' numbers: slice2.3.weight is features.3.weight.
    sliced = {key.partition(".")[2]: key for key in model.net.state_dict()}
    checkpoints.load_strict(model.net, {sliced.get(key, key): value for key, value in state.items()}, source)
    return model.requires_grad_(False).eval()
