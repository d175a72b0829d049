"""Layers with the equalised learning rate (Karras et al., ICLR 2018, section 4.1).

Weights are stored with unit variance and scaled by ``1 / sqrt(fan_in)`` when used. The stored tensor is called
``weight_orig``, as MMagic calls it, so that state dicts agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks import ops
from glean_ext.networks.conv2d_gradfix import convolution


class EqualizedWeight(nn.Module):
    """Holds ``weight_orig``, which is multiplied by ``scale`` when it is used."""

    def __init__(
        self,
        shape: Sequence[int],  # (O, C), (O, C, k, k) or (1, O, C, k, k)
        lr_mul: float = 1.0,  # learning-rate multiplier
    ):
        super().__init__()
        fan_in = math.prod(shape[-3:] if len(shape) > 2 else shape[1:])
        weight = torch.randn(*shape)
        self.weight_orig = nn.Parameter(weight if lr_mul == 1 else weight / lr_mul)
        self.scale = lr_mul / math.sqrt(fan_in)

    def extra_repr(self) -> str:
        return f"shape={tuple(self.weight_orig.shape)}, scale={self.scale:.3g}"


class EqualizedConv2d(EqualizedWeight):
    """A convolution without bias. (N, C, H, W) -> (N, O, H', W')"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__((out_channels, in_channels, kernel_size, kernel_size))
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight_orig, None, self.stride, self.padding, scale=self.scale)


class EqualizedLinear(nn.Module):
    """A fully connected layer, (N, C) -> (N, O), with leaky ReLU when ``activation`` is set.

    It always runs in fp32: it is small, and style codes in half precision cost quality.
    """

    def __init__(
        self,
        in_features: int,  # C
        out_features: int,  # O
        lr_mul: float = 1.0,  # learning-rate multiplier, 0.01 in the mapping network
        bias_init: float = 0.0,  # initial value of the bias, 1 for style factors
        activation: bool = False,  # leaky ReLU at the end
    ):
        super().__init__()
        self.linear = EqualizedWeight((out_features, in_features), lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.lr_mul = lr_mul
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = F.linear(x.float(), self.linear.weight_orig * self.linear.scale)  # (N, O)
            bias = self.bias * self.lr_mul
            return ops.bias_leaky_relu(x, bias) if self.activation else x + bias


class BiasLeakyReLU(nn.Module):
    """``ops.bias_leaky_relu`` with a learned bias (C,)."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return ops.bias_leaky_relu(x, self.bias)


class Blur(nn.Module):
    """An FIR filter over every channel. (N, C, H, W) -> (N, C, H', W')"""

    kernel: Tensor

    def __init__(
        self,
        taps: Sequence[float],  # of one axis
        pad: tuple[int, int],  # zeros before and after, on both axes
        gain: float = 1.0,  # sum of the filter
        up: int = 1,  # zero-insertion factor
        down: int = 1,  # decimation factor
    ):
        super().__init__()
        self.register_buffer("kernel", ops.fir_kernel(taps, gain))
        self.pad = pad
        self.up, self.down = up, down

    def forward(self, x: Tensor) -> Tensor:
        return ops.upfirdn2d(x, self.kernel, up=self.up, down=self.down, pad=self.pad)
