"""The fast form of a trained network, for inference only.

What makes it fast and small, the largest gain first (CPU, 64 -> 1024):

    Half precision, and channels-last memory throughout, so that no convolution converts its operands.
    Bank and decoder are computed in turn, resolution by resolution and in bands of rows: no feature lives longer than
    it is needed, those of the last resolution never exist as a whole, and a band stays in the processor's cache.
    Styles, demodulation, gains, noise strengths and biases are folded into weights (:mod:`.folded_style_conv`).
    Parts that do not reach the output are left out: mapping network, RGB path, ``fusion_skip``, the last style code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError, require_fidelity
from glean_ext.networks.banks.stylegan2 import StyleGAN2Blocks, StyleGAN2Generator, style_layers
from glean_ext.networks.fidelity import fix_fidelity
from glean_ext.networks.glean import GLEANNetwork, require_size
from glean_ext.networks.inference.banded_upsampling import HighResBranch
from glean_ext.networks.inference.folded_style_conv import ModulatedWeight, Modulation, ScaledStyleConv
from glean_ext.networks.inference.frozen_copy import (
    constant,
    converted,
    drop_unused_codes,
    images_together,
    no_fast_form,
)
from glean_ext.networks.lightglean import LightGLEANStyleGANv2, require_input
from glean_ext.networks.shapes import MIN_SIZE, resolutions
from glean_ext.utils.dtypes import DTYPES


class LowResBranch(nn.Module):
    """GLEAN's bank up to the input's resolution, the encoder's features fused in."""

    def __init__(
        self,
        bank: StyleGAN2Generator,
        fusions: nn.ModuleList,  # one for each of 4, 8, ... in_size
        in_size: int,  # pixels: side of the input
        dtype: torch.dtype,
        share: bool,  # memory with ``fusions``
    ):
        super().__init__()
        self.constant_input = constant(bank.constant(), dtype)
        self.convs = nn.ModuleList([ScaledStyleConv(bank.style_conv(0), bank.noise(0), dtype)])
        for res in resolutions(2 * MIN_SIZE, in_size):
            self.convs.extend(ScaledStyleConv(bank.style_conv(i), bank.noise(i), dtype) for i in style_layers(res))
        self.fusions = converted(fusions, dtype, share)

    def forward(self, features: Sequence[Tensor], codes: Tensor) -> Tensor:
        """The encoder's features (N, C, res, res) for res = 4, 8, ... h, codes (N, K, S) -> (N, C, h, h)"""
        x = self.constant_input
        for i, fusion in enumerate(self.fusions):
            for layer in range(max(2 * i - 1, 0), 2 * i + 1):  # one at 4x4, then two for each resolution
                x = self.convs[layer](x, codes[:, layer])  # (N, C, res, res)
            x = fusion(torch.cat([x, features[i]], 1))
        return x


class FastGLEAN(nn.Module):
    """GLEAN with a StyleGAN2 bank for inference."""

    def __init__(self, net: GLEANNetwork, dtype: torch.dtype, share: bool):
        super().__init__()
        self.size_requirements = net.size_requirements
        self.lq_padding, self.gt_padding = net.lq_padding, net.gt_padding
        self.img_channels = net.img_channels
        self.dtype = dtype
        bank, first, last = cast(StyleGAN2Generator, net.generator), 2 * net.lq_padding.side, net.gt_padding.side
        self.encoder = converted(net.encoder, dtype, share)
        drop_unused_codes(self.encoder, share)
        self.low_res = LowResBranch(bank, net.fusion_out, net.lq_padding.side, dtype, share)
        self.modulations = nn.ModuleList(
            Modulation(bank.style_conv(i)) for res in resolutions(first, last) for i in style_layers(res)
        )
        self.high_res = HighResBranch(bank, cast(nn.Module, net.decoder), first, last, dtype, share)
        self.global_skip = converted(net.global_skip, torch.float32, share)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1].

        Raises:
            InputError: The input is not of ``in_size``.
        """
        require_size(lq, self.lq_padding)
        lq = self.lq_padding.pad(lq)
        # The encoder: features {4: ..., h: f_0} of (N, C, res, res), style codes (N, K, S).
        by_size, codes = self.encoder(lq.to(self.dtype, memory_format=torch.channels_last))
        features = [by_size[res] for res in sorted(by_size)]
        # The bank up to the input's resolution: (N, C, h, h).
        x = self.low_res(features, codes)
        # Bank and decoder above it: the image (N, 3, H, H).
        parts = features[-1], x, codes[:, -len(self.modulations) :]
        groups = zip(*(part.split(images_together(x)) for part in parts), strict=True)
        images = [self.high_res(f_0, x, self._weights(codes)) for f_0, x, codes in groups]
        image = torch.cat(images).float()
        image = self.global_skip(image, lq)
        return self.gt_padding.crop(image).contiguous()

    def _weights(self, codes: Tensor) -> Iterator[ModulatedWeight]:
        """The weights of the bank's layers above the input's resolution, (N, K, S); one image has weights of its own"""
        make = Modulation.folded if len(codes) == 1 else Modulation.scaled
        layers = zip(self.modulations, codes.unbind(1), strict=True)
        return (make(cast(Modulation, modulation), code, self.dtype) for modulation, code in layers)


class FastLightGLEAN(nn.Module):
    """:class:`LightGLEANStyleGANv2` for inference: its style codes are constants, and so are the bank's weights."""

    def __init__(self, net: LightGLEANStyleGANv2, dtype: torch.dtype, share: bool):
        super().__init__()
        self.size_requirements = net.size_requirements
        self.img_channels = net.img_channels
        self.dtype = dtype
        bank = net.generator
        if not isinstance(bank, StyleGAN2Blocks):
            raise no_fast_form(bank)
        self.encoder = converted(net.encoder, dtype, share)
        layers = [bank.style_conv(i) for res in bank.resolutions for i in style_layers(res)]
        self.weights = nn.ParameterList(
            constant(Modulation(layer).folded(code[None]).weight, dtype)
            for layer, code in zip(layers, net.style_codes, strict=True)
        )
        self.high_res = HighResBranch(bank, net.decoder, bank.resolutions[0], bank.resolutions[-1], dtype, share)
        self.global_skip = converted(net.global_skip, torch.float32, share)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1]; h and w from 8 on.

        Raises:
            InputError: The input is smaller than 8x8, or has other channels.
        """
        require_input(lq, self.img_channels)
        # The encoder: f_0 (N, C, h, w).
        f_0 = self.encoder(lq.to(self.dtype, memory_format=torch.channels_last))
        # Bank and decoder: the image (N, 3, H, W).
        weights = [ModulatedWeight(weight) for weight in self.weights]
        images = [self.high_res(x, x, weights) for x in f_0.split(images_together(f_0))]
        image = torch.cat(images).float()
        image = self.global_skip(image, lq)
        return image.contiguous()


def with_fidelity(net: nn.Module, fidelity: float) -> nn.Module:
    """A copy of a network with the fidelity gate, or of its fast form, that has one weight w for all images.

    Only the decoder has weights of its own, the others are those of ``net``.

    Raises:
        InputError: w lies outside of [0, 1].
    """
    require_fidelity(fidelity)
    fast = isinstance(net, FastGLEAN | FastLightGLEAN)
    decoder = cast(HighResBranch, net.high_res).stages if fast else [cast(nn.Module, net.decoder)]
    own = {id(weight) for part in decoder for weight in part.parameters()}
    other = copy.deepcopy(net, {id(x): x for x in (*net.parameters(), *net.buffers()) if id(x) not in own})
    if isinstance(other, FastGLEAN | FastLightGLEAN):
        for stage in other.high_res.stages:
            stage.scale_bank(1 - fidelity)
    else:
        fix_fidelity(other, fidelity)
    return other


@torch.no_grad()
def prepare_for_inference(net: nn.Module, dtype: torch.dtype = torch.float32, share: bool = False) -> nn.Module:
    """A copy of ``net`` that computes the same output faster and in less memory, see this module's description.

    Args:
        net: The trained network: GLEAN or LightGLEAN with a StyleGAN2 bank and a decoder. It is not changed.
        dtype: The precision in which the copy stores weights and computes. Inputs, outputs and the few weights that
            make modulations are fp32.
        share: Both networks have the same tensors where dtypes agree, for which ``net`` becomes channels-last. So there
            is no second copy of most weights in memory.

    Returns:
        A frozen module in evaluation mode. In fp32 its output equals that of ``net`` within 1e-5 of the range.

    Raises:
        InputError: Another network or dtype.
    """
    if str(dtype).removeprefix("torch.") not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(f'torch.{name}' for name in DTYPES)}, but it is {dtype}.")
    if isinstance(net, GLEANNetwork) and type(net).forward is GLEANNetwork.forward:
        if net.max_references or net.decoder is None:
            raise no_fast_form(net)
        if not isinstance(net.generator, StyleGAN2Generator):
            raise no_fast_form(net.generator)
        fast: nn.Module = FastGLEAN(net, dtype, share)
    elif isinstance(net, LightGLEANStyleGANv2):
        fast = FastLightGLEAN(net, dtype, share)
    else:
        raise no_fast_form(net)
    return fast.requires_grad_(False).eval()
