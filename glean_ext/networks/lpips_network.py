"""The network of LPIPS (Zhang et al., CVPR 2018), from its authors' package, with a backbone's weights by path."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.errors import InputError


class Backbone(NamedTuple):
    """A classifier trained on ImageNet whose features LPIPS compares."""

    name: str  # torchvision's
    file: str  # of its weights
    smallest: int  # side of the smallest image that leaves a feature in the last layer


BACKBONES = {
    "alex": Backbone("alexnet", "alexnet-owt-7be5be79.pth", 31),
    "vgg": Backbone("vgg16", "vgg16-397923af.pth", 16),
}


def require_lpips_size(net: str, height: int, width: int) -> None:
    """Raise InputError for images that are too small for a backbone, a key of :data:`BACKBONES`."""
    backbone = BACKBONES[net]
    if min(height, width) < backbone.smallest:
        raise InputError(
            f"LPIPS with {backbone.name} needs images of at least {backbone.smallest} pixels a side, but the output "
            f"has {width}x{height}.",
            hint="Remove LPIPS from the evaluator.",
        )


def lpips_distance(network: nn.Module, net: str, output: Tensor, reference: Tensor) -> float:
    """The distance of two images, (3, H, W) uint8 RGB, by a ``network`` of :func:`load_lpips`, on its device.

    Raises:
        InputError: They are too small for its backbone ``net``.
    """
    require_lpips_size(net, *output.shape[1:])
    with torch.no_grad():
        return network(*(image[None].float() / 127.5 - 1 for image in (output, reference))).item()


def load_lpips(net: str, pretrained: str | None) -> nn.Module:
    """``lpips.LPIPS`` with a backbone from ``pretrained``, which compares (N, 3, H, W), RGB in [-1, 1]: (N, 1, 1, 1).

    Args:
        net: A key of :data:`BACKBONES`.
        pretrained: ``'torchvision://alexnet'`` (downloaded once), or the path or URL of a torchvision checkpoint.

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
