"""Real-ESRGAN x4plus (Wang et al., ICCVW 2021): enlarges what GLEAN does not, the background of photographs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.encoder import Trunk
from glean_ext.size_requirements import SizeRequirements

RGB = 3
SCALE = 4


class RealESRGAN(Trunk):
    """ESRGAN's generator with Real-ESRGAN's parameter names.

    Its layers, in the order of their names here: the trunk of 23 blocks, two convolutions after doubling, two at the
    end.
    """

    def __init__(self, channels: int = 64, num_blocks: int = 23):
        super().__init__(RGB, channels, num_blocks)
        for name in "conv_up1", "conv_up2", "conv_hr":
            self.add_module(name, Conv2d(channels, channels, 3, padding=1))
        self.conv_last = Conv2d(channels, RGB, 3, padding=1)
        self.img_channels = RGB
        self.size_requirements = SizeRequirements((64, 64), SCALE, any_size=True)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, 4h, 4w), fp32, about [-1, 1]."""
        x = super().forward((lq + 1) / 2)  # (N, C, h, w); the network's images are in [0, 1]
        for name in "conv_up1", "conv_up2":
            x = self._activated(name, F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv_last(self._activated("conv_hr", x)).float() * 2 - 1

    def _activated(self, name: str, x: Tensor) -> Tensor:
        return F.leaky_relu(self.get_submodule(name)(x), 0.2, inplace=True)
