"""EfficientNet-Lite0 (Tan and Le, ICML 2019; Google's "lite" variant): the features of the Fréchet distance.

Layers have the names of the PyTorch conversion whose weights are read. The network was trained in TensorFlow, whose
``SAME`` padding puts the odd pixel to the right and below.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.weights import lite0
from glean_ext import checkpoints
from glean_ext.networks import channels_last

INPUT = 224  # pixels
# repeats, kernel, stride, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow pads ``SAME``. (N, C, H, W) -> (N, O, ceil(H/s), ceil(W/s))"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(x, sides))


class Block(nn.Module):
    """Inverted residual without squeeze and excitation. (N, C, H, W) -> (N, O, H/s, W/s)"""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = in_channels * expansion
        self.expands = expansion > 1
        self.residual = stride == 1 and in_channels == out_channels
        if self.expands:
            self._expand_conv = SameConv(in_channels, width, 1)
            self._bn0 = batch_norm(width)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = batch_norm(width)
        self._project_conv = SameConv(width, out_channels, 1)
        self._bn2 = batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2)
        self._bn0 = batch_norm(32)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, out_channels in STAGES:
            for i in range(repeats):
                blocks.append(Block(channels, out_channels, kernel, stride if i == 0 else 1, expansion))
                channels = out_channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(channels, 1280, 1)
        self._bn1 = batch_norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> (N, 1280)"""
        size = (INPUT, INPUT)
        x = F.interpolate(images.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        x = (x.clamp(0, 255) - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> logits (N, 1000)"""
        return self._fc(self.features(images))


def load() -> EfficientNetLite0:
    net = EfficientNetLite0()
    source = lite0()
    checkpoints.load_strict(net, checkpoints.read(source), source)
    channels_last(net)
    return net.requires_grad_(False).eval()


@torch.no_grad()
def features(net: EfficientNetLite0, images: Tensor, batch: int = 32) -> Tensor:
    """(N, 3, H, W) uint8 RGB -> (N, 1280)"""
    return torch.cat([net.features(part) for part in images.split(batch)])
