"""The fast form of a trained network, for inference only.

What makes it fast and small, in the order of what it gains (CPU, 64 -> 1024):

    Half precision, and channels-last from end to end, so that no convolution converts its operands.
    Bank and decoder go up together, at each resolution in bands of rows: no feature lives longer than it is needed,
    the last resolution's never exist as a whole, and a band's tensors stay in the processor's cache.
    Styles, demodulation, gains, noise strengths and biases are folded into weights (:mod:`.folded`), image by image.
    Nothing is kept that does not reach the output: mapping network, RGB path, ``fusion_skip``, the last style code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.banks.stylegan2 import StyleGAN2Blocks, StyleGAN2Generator, style_layers
from glean_ext.networks.encoder import StyleCodes
from glean_ext.networks.glean import GLEANStyleGANv2, require_size
from glean_ext.networks.inference.banded_upsampling import HighResBranch
from glean_ext.networks.inference.folded_style_conv import Modulation, ScaledStyleConv
from glean_ext.networks.inference.frozen_copy import constant, converted, no_fast_form
from glean_ext.networks.lightglean import LightGLEANStyleGANv2, require_input
from glean_ext.networks.shapes import MIN_SIZE, resolutions

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# ---------------------------------------------------------------- above the input's resolution


# ---------------------------------------------------------------- GLEAN


class LowResBranch(nn.Module):
    """GLEAN's bank up to the input's resolution, the encoder's features mixed in."""

    def __init__(self, bank: StyleGAN2Generator, fusions: nn.ModuleList, in_size: int, dtype: torch.dtype):
        super().__init__()
        self.constant_input = constant(bank.constant_input.input, dtype)
        self.convs = nn.ModuleList([ScaledStyleConv(bank.conv1, bank.noise(0), dtype)])
        for res in resolutions(2 * MIN_SIZE, in_size):
            self.convs.extend(ScaledStyleConv(bank.style_conv(i), bank.noise(i), dtype) for i in style_layers(res))
        self.fusions = converted(fusions, dtype)

    def forward(self, features: Sequence[Tensor], codes: Tensor) -> Tensor:
        """The encoder's features (N, C, res, res) for res = 4, 8, ... h, codes (N, K, S) -> (N, C, h, h)"""
        x = self.constant_input
        for i, fusion in enumerate(self.fusions):
            for layer in range(max(2 * i - 1, 0), 2 * i + 1):  # one at 4x4, then two a resolution
                x = self.convs[layer](x, codes[:, layer])  # (N, C, res, res)
            x = fusion(torch.cat([x, features[i]], 1))
        return x


class FastGLEAN(nn.Module):
    """:class:`GLEANStyleGANv2` for inference."""

    def __init__(self, net: GLEANStyleGANv2, dtype: torch.dtype):
        super().__init__()
        self.in_size, self.out_size = net.in_size, net.out_size
        self.lq_canvas, self.gt_canvas = net.lq_canvas, net.gt_canvas
        self.dtype = dtype
        bank, first, last = net.generator, 2 * net.lq_canvas.side, net.gt_canvas.side
        if not isinstance(bank, StyleGAN2Generator):
            raise no_fast_form(bank)
        self.encoder = converted(net.encoder, dtype)
        drop_unused_codes(self.encoder)
        self.lower = LowResBranch(bank, net.fusion_out, net.lq_canvas.side, dtype)
        self.modulations = nn.ModuleList(
            Modulation(bank.style_conv(i)) for res in resolutions(first, last) for i in style_layers(res)
        )
        self.upper = HighResBranch(bank, net.decoder, first, last, dtype)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, h), RGB in [-1, 1] -> (N, 3, H, H), fp32, about [-1, 1].

        Raises:
            InputError: The input is not of ``in_size``.
        """
        require_size(lq, self.lq_canvas)
        lq = self.lq_canvas.place(lq).to(self.dtype, memory_format=torch.channels_last)
        by_size, codes = self.encoder(lq)  # {4: ..., h: f_0}, (N, K, S)
        features = [by_size[res] for res in sorted(by_size)]
        x = self.lower(features, codes)  # (N, C, h, h)
        upper_codes = codes[:, -len(self.modulations) :]
        # One image at a time: each has its own weights, and the memory for one is enough.
        images = [self._upper(*parts) for parts in zip(features[-1], x, upper_codes, strict=True)]
        return self.gt_canvas.cut(torch.stack(images)).float().contiguous()

    def _upper(self, f_0: Tensor, x: Tensor, codes: Tensor) -> Tensor:
        weights = [
            modulation(code[None]).to(self.dtype) for modulation, code in zip(self.modulations, codes, strict=True)
        ]
        return self.upper(f_0[None], x[None], weights)[0]


def drop_unused_codes(encoder: nn.Module) -> None:
    """Leave out the weights of style codes that are not computed."""
    for codes in encoder.modules():
        if isinstance(codes, StyleCodes):
            codes.out_features -= codes.unused * codes.style_channels
            codes.unused = 0
            codes.weight = constant(codes.weight[: codes.out_features], codes.weight.dtype)
            codes.bias = constant(codes.bias[: codes.out_features], codes.bias.dtype)


# ---------------------------------------------------------------- LightGLEAN


class FastLightGLEAN(nn.Module):
    """:class:`LightGLEANStyleGANv2` for inference: its style codes are constants, and so are the bank's weights."""

    in_size = None  # any

    def __init__(self, net: LightGLEANStyleGANv2, dtype: torch.dtype):
        super().__init__()
        self.nominal_size, self.out_size = net.nominal_size, net.out_size
        self.img_channels = net.img_channels
        self.dtype = dtype
        bank = net.generator
        if not isinstance(bank, StyleGAN2Blocks):
            raise no_fast_form(bank)
        self.encoder = converted(net.encoder, dtype)
        layers = [bank.style_conv(i) for res in bank.resolutions for i in style_layers(res)]
        self.weights = nn.ParameterList(
            constant(Modulation(layer)(code[None]), dtype) for layer, code in zip(layers, net.style_codes, strict=True)
        )
        self.upper = HighResBranch(bank, net.decoder, bank.resolutions[0], bank.resolutions[-1], dtype)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1]; h and w from 8 on.

        Raises:
            InputError: The input is smaller than 8x8, or has other channels.
        """
        require_input(lq, self.img_channels)
        f_0 = self.encoder(lq.to(self.dtype, memory_format=torch.channels_last))  # (N, C, h, w)
        at_once = 1 if lq.device.type == "cpu" else len(lq)  # a CPU is as fast so, and needs the memory for one
        images = [self.upper(x, x, list(self.weights)) for x in f_0.split(at_once)]
        return torch.cat(images).float().contiguous()


@torch.no_grad()
def prepare_for_inference(net: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of ``net`` that computes the same faster and in less memory, see this module's description.

    Args:
        net: The trained network; it is left as it is. GLEAN or LightGLEAN, with a bank and a decoder.
        dtype: What the copy stores and computes in; its inputs and outputs are fp32 all the same, and so are the few
            weights that make modulations.

    Returns:
        A frozen module in evaluation mode. In fp32 its output equals that of ``net`` within 1e-5 of the range.

    Raises:
        InputError: Another network or dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(map(str, DTYPES))}, but it is {dtype}.")
    if isinstance(net, GLEANStyleGANv2):
        fast: nn.Module = FastGLEAN(net, dtype)
    elif isinstance(net, LightGLEANStyleGANv2):
        fast = FastLightGLEAN(net, dtype)
    else:
        raise no_fast_form(net)
    return fast.requires_grad_(False).eval()
