"""The bank's style convolutions as inference computes them; their definition is in ``banks/stylegan2.py``.

A style code scales the input channels of a weight, demodulation its output channels, and leaky ReLU lets positive
factors through. So for one image a style convolution is a plain one, whose weight holds the equalised scale, style,
demodulation and the activation's gain: :meth:`Modulation.folded` makes it. For a batch, scaling the activations instead
leaves one convolution for all images (:meth:`Modulation.scaled`); so it is at low resolutions, where activations are
smaller than weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks import ops
from glean_ext.networks.banks.stylegan2 import StyleConv
from glean_ext.networks.conv2d_gradfix import convolution
from glean_ext.networks.inference.frozen_copy import constant
from glean_ext.networks.shapes import assert_shape

GAIN = math.sqrt(2)  # of the activation


class ModulatedWeight(NamedTuple):
    """The weight of a style convolution for some style codes; their factors are in it, or beside it."""

    weight: Tensor  # (O, C, k, k), or (C, O, k, k) for a transposed convolution
    style: Tensor | None = None  # (N, C, 1, 1): factors of the input
    demodulation: Tensor | None = None  # (N, O, 1, 1): factors of the output


class Modulation(nn.Module):
    """Makes the weight of a style convolution for given style codes, the activation's gain included.

    Demodulation depends on the length of each kernel only, which is constant.
    """

    def __init__(self, layer: StyleConv, dtype: torch.dtype = torch.float32):
        super().__init__()
        terms = layer.terms()
        self.upsample = terms.blur is not None
        self.weight = constant(terms.weight.transpose(0, 1) if self.upsample else terms.weight, dtype)
        self.lengths = constant(terms.weight.square().sum((2, 3), keepdim=True).sqrt())  # (O, C, 1, 1)
        self.affine = constant(terms.affine)  # (C, S)
        self.shift = constant(terms.shift)  # (C,)

    def factors(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S) -> the factors of the input channels (N, C) and of the output channels (N, O), fp32."""
        style = F.linear(codes.float(), self.affine, self.shift)  # (N, C)
        style, eps = ops.normalized_style(style)
        return style, GAIN * ops.demodulation(self.lengths, style, eps)

    def folded(self, code: Tensor, dtype: torch.dtype = torch.float32) -> ModulatedWeight:
        """The weight for one image, (1, S): it holds all factors."""
        assert_shape(code, (1, self.affine.shape[1]))
        style, demodulation = self.factors(code)  # (1, C), (1, O)
        factors = style.t() * demodulation if self.upsample else demodulation.t() * style
        return ModulatedWeight((self.weight * factors[:, :, None, None]).to(dtype))

    def scaled(self, codes: Tensor, dtype: torch.dtype) -> ModulatedWeight:
        """The weight for a batch, (N, S): its factors scale the input and the output of each image."""
        style, demodulation = (factor.to(dtype)[:, :, None, None] for factor in self.factors(codes))
        return ModulatedWeight(self.weight.to(dtype), style, demodulation)


class FoldedStyleConv(nn.Module):
    """A style convolution with a given :class:`ModulatedWeight`. Bias and noise hold the activation's gain."""

    def __init__(
        self,
        layer: StyleConv,
        noise: Tensor,  # (1, 1, res, res): the layer's stored noise
        dtype: torch.dtype,
    ):
        super().__init__()
        terms = layer.terms()
        self.bias = constant(GAIN * terms.bias, dtype)  # (O,)
        self.noise = constant(GAIN * terms.noise_strength * noise, dtype)  # (1, 1, res, res)
        self.upsample = terms.blur is not None
        if terms.blur is not None:
            self.pad = terms.blur.pad
            self.fir = constant(terms.blur.kernel.flip(0, 1).repeat(len(self.bias), 1, 1, 1), dtype)  # (O, 1, T, T)

    def forward(self, x: Tensor, weight: ModulatedWeight, top: int = 0) -> Tensor:
        """(N, C, h, w) -> (N, O, H, W), whose first row is row ``top`` of the whole result."""
        if weight.style is None or weight.demodulation is None:
            return self._activate(self._convolve(x, weight.weight, self.bias), top)
        x = self._convolve(x * weight.style, weight.weight)
        return self._activate(torch.addcmul(self.bias[:, None, None], x, weight.demodulation), top)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.upsample:
            return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        x = F.conv_transpose2d(x, weight, stride=2)  # (N, O, 2h + 1, 2w + 1)
        before, after = self.pad
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        return convolution(x, self.fir, bias, padding=before, groups=len(self.fir))  # (N, O, 2h, 2w)

    def _activate(self, x: Tensor, top: int) -> Tensor:
        """Add noise to ``x`` in place; leaky ReLU."""
        height, width = self.noise.shape[2:]
        top %= height
        bottom = top + x.shape[2]
        # Where the stored noise is large enough a slice of it takes no time; repeating it copies.
        enough = bottom <= height and x.shape[3] <= width
        noise = self.noise if enough else ops.repeat_to(self.noise, bottom, x.shape[3])
        return F.leaky_relu(x.add_(noise[:, :, top:bottom, : x.shape[3]]), 0.2, inplace=True)


class ScaledStyleConv(nn.Module):
    """A style convolution that scales its input and output. (N, C, h, w), (N, S) -> (N, O, H, W)"""

    def __init__(self, layer: StyleConv, noise: Tensor, dtype: torch.dtype):
        super().__init__()
        self.modulation = Modulation(layer, dtype)
        self.conv = FoldedStyleConv(layer, noise, dtype)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        return self.conv(x, self.modulation.scaled(codes, x.dtype))
