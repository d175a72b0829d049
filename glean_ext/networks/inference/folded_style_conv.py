"""The bank's style convolutions as inference computes them; the functions are those of ``stylegan2.py``.

A style code scales the input channels of a weight, demodulation its output channels, and leaky ReLU lets positive
factors through. So for one image a style convolution is a plain one, whose weight holds the equalised scale, style,
demodulation and the activation's gain: :class:`Modulation` makes that weight. At low resolutions activations are
smaller than weights, and scaling them leaves one convolution for the whole batch: :class:`ScaledStyleConv`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks import ops
from glean_ext.networks.banks.stylegan2 import StyleConv
from glean_ext.networks.inference.frozen_copy import constant

GAIN = math.sqrt(2)  # of the activation


class Modulation(nn.Module):
    """The weight of a style convolution and what a code makes of it: (1, S) -> (O, C, k, k), transposed if upsampling.

    Demodulation needs no more of the weight than the length of each of its kernels, which is constant.
    """

    def __init__(self, layer: StyleConv, dtype: torch.dtype = torch.float32):
        super().__init__()
        conv, affine = layer.conv, layer.conv.style_modulation
        weight = conv.weight_orig[0]  # (O, C, k, k)
        self.upsample = conv.upsample
        self.weight = constant(weight.transpose(0, 1) if self.upsample else weight, dtype)
        self.lengths = constant(weight.square().sum((2, 3), keepdim=True).sqrt())  # (O, C, 1, 1)
        self.affine = constant(affine.linear.weight_orig * (affine.linear.scale * conv.scale))  # (C, S)
        self.bias = constant(affine.bias * (affine.lr_mul * conv.scale))  # (C,)

    def factors(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S) -> the factors of the input channels (N, C) and of the output channels (N, O), fp32."""
        style = F.linear(code.float(), self.affine, self.bias)  # (N, C)
        # Demodulation cancels any common factor, and fp16 overflows past 65504.
        style = style / style.abs().amax(1, keepdim=True).clamp_min(1e-8)
        return style, GAIN * ops.demodulation(self.lengths, style)

    def forward(self, code: Tensor) -> Tensor:
        style, demodulation = self.factors(code)  # (1, C), (1, O)
        factors = style.t() * demodulation if self.upsample else demodulation.t() * style
        return self.weight * factors[:, :, None, None]


class PlainStyleConv(nn.Module):
    """What a style convolution is when its weight holds the modulation. Bias and noise hold the activation's gain."""

    def __init__(self, layer: StyleConv, noise: Tensor, dtype: torch.dtype):
        super().__init__()
        self.upsample = layer.conv.upsample
        self.bias = constant(GAIN * layer.activate.bias, dtype)  # (O,)
        self.noise = constant(GAIN * layer.noise_injector.weight * noise, dtype)  # (1, 1, res, res)
        if self.upsample:
            blur = layer.conv.blur
            self.pad = blur.pad
            self.fir = constant(blur.kernel.flip(0, 1).repeat(len(self.bias), 1, 1, 1), dtype)  # (O, 1, T, T)

    def forward(self, x: Tensor, weight: Tensor, top: int = 0) -> Tensor:
        """(N, C, h, w), a :class:`Modulation`'s weight -> (N, O, H, W), of whose whole the first row is row ``top``."""
        return self.activate(self.convolve(x, weight, self.bias), top)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.upsample:
            return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        x = F.conv_transpose2d(x, weight, stride=2)  # (N, O, 2h + 1, 2w + 1)
        before, after = self.pad
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        return F.conv2d(x, self.fir, bias, padding=before, groups=len(self.fir))  # (N, O, 2h, 2w)

    def activate(self, x: Tensor, top: int = 0) -> Tensor:
        """Add noise to ``x`` in place; leaky ReLU."""
        height, width = self.noise.shape[2:]
        top %= height
        bottom = top + x.shape[2]
        enough = bottom <= height and x.shape[3] <= width
        # a slice takes no time, repeating gathers
        noise = self.noise if enough else ops.repeat_to(self.noise, bottom, x.shape[3])
        return F.leaky_relu(x.add_(noise[:, :, top:bottom, : x.shape[3]]), 0.2, inplace=True)


class ScaledStyleConv(nn.Module):
    """A style convolution that scales its input and output. (N, C, h, w), (N, S) -> (N, O, H, W)"""

    def __init__(self, layer: StyleConv, noise: Tensor, dtype: torch.dtype):
        super().__init__()
        self.modulation = Modulation(layer, dtype)
        self.plain = PlainStyleConv(layer, noise, dtype)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        style, demodulation = (v.to(x.dtype)[:, :, None, None] for v in self.modulation.factors(code))
        x = self.plain.convolve(x * style, self.modulation.weight)
        return self.plain.activate(torch.addcmul(self.plain.bias[:, None, None], x, demodulation))
