"""A discriminator on the features of a frozen, pre-trained network.

Source: Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021: several small discriminators, each on one layer;
their random mixing of layers is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from mmagic.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Backbone(Protocol):
    """What a backbone is, besides a ``torch.nn.Module``. What it has as parameters becomes buffers."""

    channels: dict[str, int]  # layer -> channels of its features

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), RGB in [0, 1] -> layer -> (N, C, h, w)"""
        ...

    def load(self, pretrained: str | None) -> None:
        """Fill it from a path or URL."""
        ...


class FeatureDiscriminator(nn.Module):
    """Judges every place of several feature maps: (N, 3, H, W), RGB in [-1, 1] -> logits (N, places).

    Args:
        backbone: Config of a :class:`Backbone` in MMagic's registry, such as ``dict(type='VGGFeatures', layers=['8',
            '15'], vgg_type='vgg16', use_input_norm=True)``.
        pretrained: Its weights: ``'torchvision://vgg16'`` (downloaded when training starts), a path or a URL; None:
            seeded random ones.
        width: Channels of the small discriminators.

    Raises:
        InputError: A backbone that cannot be built, or, when training starts, weights that do not fit.
    """

    def __init__(self, backbone: dict, pretrained: str | None, width: int = 64):
        super().__init__()
        self.backbone = without_parameters(MODELS.build(backbone)).eval()
        self.pretrained = pretrained
        self.heads = nn.ModuleDict({layer: head(channels, width) for layer, channels in self.judge.channels.items()})

    @property
    def judge(self) -> Backbone:
        return cast(Backbone, self.backbone)

    def init_weights(self) -> None:
        """Load the backbone; mmengine's runner calls this."""
        self.judge.load(self.pretrained)

    def train(self, mode: bool = True) -> FeatureDiscriminator:
        """The backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        features = self.judge((image + 1) / 2)
        return torch.cat([self.heads[layer](x).flatten(1) for layer, x in features.items()], 1)


def without_parameters(module: nn.Module) -> nn.Module:
    """Make buffers of all parameters: what switches the training of a discriminator on and off leaves them alone."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module


def head(channels: int, width: int) -> nn.Sequential:
    """(N, C, H, W) -> logits (N, 1, H, W)"""
    sizes: Sequence[tuple[int, int, int]] = (channels, width, 1), (width, width, 3), (width, 1, 3)
    layers: list[nn.Module] = []
    for in_channels, out_channels, kernel in sizes:
        layers += [spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])
