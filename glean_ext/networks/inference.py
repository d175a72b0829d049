"""The fast form of a trained network, for inference only.

What makes it fast and small, in the order of what it gains (CPU, 64 -> 1024):

    Half precision, and channels-last from end to end, so that no convolution converts its operands.
    Bank and decoder go up together, at each resolution in bands of rows: no feature lives longer than it is needed,
    the last resolution's never exist as a whole, and a band's tensors stay in the processor's cache.
    Styles, demodulation, gains, noise strengths and biases are folded into weights (:mod:`.folded`), image by image.
    Nothing is kept that does not reach the output: mapping network, RGB path, ``fusion_skip``, the last style code.
"""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.errors import InputError

from .decoder import Decoder, PixelShuffleUp, SlimDecoder
from .encoder import StyleCodes
from .folded import Modulation, PlainStyleConv, ScaledStyleConv, constant
from .glean import GLEANStyleGANv2, require_size
from .lightglean import LightGLEANStyleGANv2, require_input
from .shapes import MIN_SIZE, resolutions
from .stylegan2 import StyleGAN2Blocks, StyleGAN2Generator, Synthesis, style_layers

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BAND_BYTES = 24 << 20  # of a band's results, bank's and decoder's; glibc maps what is over 32 MiB anew each time
WIDE = 256  # channels, from which on computing takes so long that mapping does not count: three times the bytes
MIN_ROWS = 32  # of a band, for those around it are computed twice
LARGE = 64 << 20  # bytes of a tensor, from which on trimming the heap before it pays
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def converted(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """A frozen copy in another precision; there is no copy in the first one in between."""
    return copy.deepcopy(module, {id(param): constant(param, dtype) for param in module.parameters()})


def no_fast_form(module: nn.Module) -> InputError:
    return InputError(
        f"prepare_for_inference knows no fast form of {type(module).__name__}. It takes a GLEANStyleGANv2 or "
        "LightGLEANStyleGANv2 that has both a bank and a decoder; use any other network as it is."
    )


# ---------------------------------------------------------------- above the input's resolution


Parts = tuple[Tensor, ...]  # what goes up: the decoder's tensor and the bank's g_i; at the end the image alone


class FullStage(nn.Module):
    """A stage of :class:`Decoder`, and what makes the image of the last one's result."""

    def __init__(self, up: PixelShuffleUp, first: bool, end: nn.Module | None):
        super().__init__()
        self.up = up
        self.first = first  # this one gets f_0 alone
        self.end = end
        self.reach = 2 if end else 0  # rows around a pixel that the end looks at

    def forward(self, x: Tensor, below: Tensor, features: Tensor) -> Parts:
        """(N, C, h, w), g_(i-1) (N, C', h, w), g_i (N, C'', 2h, 2w) -> (N, O, 2h, 2w) and g_i, or an image as large"""
        x = self.up(x if self.first else torch.cat([x, below], 1))  # (N, O, 2h, 2w)
        return (self.end(torch.cat([x, features], 1)),) if self.end else (x, features)


class SlimStage(nn.Module):
    """A stage of :class:`SlimDecoder`, and what makes the image of the last one's result. It needs no g_(i-1)."""

    def __init__(self, up: PixelShuffleUp, project: nn.Module, to_image: nn.Module | None):
        super().__init__()
        single = up.upsample_conv.weight.dtype == torch.float32
        self.up = TransposedUp(up) if single else up
        self.project = project
        self.to_image = to_image
        self.reach = 1 if to_image else 0

    def forward(self, x: Tensor, below: Tensor, features: Tensor) -> Parts:
        """(N, C, h, w), g_(i-1) (N, C', h, w), g_i (N, C'', 2h, 2w) -> (N, C, 2h, 2w) and g_i, or an image as large"""
        x = F.leaky_relu(self.up(x).add_(self.project(features)), 0.2, inplace=True)  # (N, C, 2h, 2w)
        return (self.to_image(x),) if self.to_image else (x, features)


class TransposedUp(nn.Module):
    """:class:`PixelShuffleUp` as one convolution, which in fp32 and for few channels is faster than moving the pixels.

    In half precision a CPU without instructions for it takes three times as long.
    """

    def __init__(self, up: PixelShuffleUp):
        super().__init__()
        conv = up.upsample_conv
        assert conv.bias is not None
        weight = conv.weight.unflatten(0, (-1, 2, 2)).flip(4, 5)  # (O, 2, 2, C, 3, 3)
        self.weight = constant(weight.permute(3, 0, 4, 1, 5, 2).flatten(4).flatten(2, 3), weight.dtype)  # (C, O, 6, 6)
        self.bias = constant(conv.bias.view(-1, 2, 2).permute(1, 2, 0), weight.dtype)  # (2, 2, O)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, O, 2h, 2w)"""
        height, width = x.shape[2:]
        x = F.conv_transpose2d(x, self.weight, stride=2, padding=2)
        two_rows = self.bias.repeat(1, width, 1).permute(2, 0, 1)  # (O, 2, 2w), faster than to broadcast 2x2 pixels
        x.unflatten(2, (height, 2)).add_(two_rows[:, None])
        return x


def start_and_stages(decoder: nn.Module) -> tuple[nn.Module, Sequence[FullStage | SlimStage]]:
    """What ``decoder`` does at the input's resolution, and at each one above."""
    if isinstance(decoder, SlimDecoder):
        ends = [None] * (len(decoder.ups) - 1) + [four_pixels_at_once(decoder.to_image)]
        parts = zip(decoder.ups, decoder.projections, ends, strict=True)
        return decoder.start, [SlimStage(cast(PixelShuffleUp, up), project, end) for up, project, end in parts]
    if isinstance(decoder, Decoder):
        *ups, last = decoder
        conv, activation, to_image = last.children()
        end = nn.Sequential(conv, activation, four_pixels_at_once(cast(nn.Conv2d, to_image)))
        stages = [FullStage(cast(PixelShuffleUp, up), up is ups[0], end if up is ups[-1] else None) for up in ups]
        return nn.Identity(), stages
    raise no_fast_form(decoder)


def four_pixels_at_once(conv: nn.Conv2d) -> nn.Sequential:
    """``conv``, a 3x3 one, for images of even height and width: (N, C, H, W) -> (N, O, H, W)

    Three output channels leave most of a vector register empty; those of 2x2 pixels, which together see 4x4, do not.
    """
    assert conv.bias is not None
    out, channels = conv.weight.shape[:2]
    weight = conv.weight.new_zeros(out, 2, 2, channels, 4, 4)
    for row in range(2):
        for column in range(2):
            weight[:, row, column, :, row : row + 3, column : column + 3] = conv.weight
    quad = nn.Conv2d(channels, 4 * out, 4, stride=2, padding=1, device="meta")
    quad.weight = constant(weight.flatten(0, 2), weight.dtype)
    quad.bias = constant(conv.bias.repeat_interleave(4), weight.dtype)
    return nn.Sequential(quad, nn.PixelShuffle(2))


class Rise(nn.Module):
    """From one resolution to the next: a block of the bank, and the decoder's stage that takes its features."""

    def __init__(self, bank: Synthesis, res: int, stage: FullStage | SlimStage, dtype: torch.dtype):
        super().__init__()
        self.first, self.second = (PlainStyleConv(bank.style_conv(i), bank.noise(i), dtype) for i in style_layers(res))
        self.stage = stage
        self.halo = (self.first.fir.shape[-1] + 1 + stage.reach) // 2  # rows around one of the input that count

    def forward(self, x: Tensor, features: Tensor, first: Tensor, second: Tensor) -> Parts:
        """(N, C, h, w), g_(i-1) (N, C', h, w), two layers' weights -> (N, O, 2h, 2w) and g_i, or an image as large"""
        height, rows = x.shape[2], self._rows_of_a_band(x)
        if rows >= height:
            return self._band(x, features, first, second, 0)
        whole: Parts = ()
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            top, bottom = max(start - self.halo, 0), min(stop + self.halo, height)
            band = self._band(x[:, :, top:bottom], features[:, :, top:bottom], first, second, 2 * top)
            whole = whole or tuple(room_for(part, 2 * height) for part in band)
            for part, room in zip(band, whole, strict=True):
                room[:, :, 2 * start : 2 * stop] = part[:, :, 2 * (start - top) : 2 * (stop - top)]
        return whole

    def _band(self, x: Tensor, below: Tensor, first: Tensor, second: Tensor, top: int) -> Parts:
        """Some rows of :meth:`forward`; the first one of the result is row ``top``."""
        features = self.first(below, first, top)  # (N, C'', 2h, 2w)
        features = self.second(features, second, top)
        return self.stage(x, below, features)

    def _rows_of_a_band(self, x: Tensor) -> int:
        n, _, height, width = x.shape
        if x.device.type != "cpu":
            return height
        channels = len(self.second.bias)  # of the bank and, at most, of the decoder, at four pixels for one
        limit = BAND_BYTES * (3 if channels >= WIDE else 1)
        bands = -(-n * height * width * 4 * 2 * channels * x.element_size() // limit)
        return max(-(-height // bands), MIN_ROWS)


def return_freed_memory() -> None:
    """Give what Python and torch freed back to the system (with glibc; nothing elsewhere)."""
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


def room_for(part: Tensor, height: int) -> Tensor:
    """(N, C, h, W) -> an empty (N, C, height, W)"""
    n, channels, _, width = part.shape
    if n * channels * height * width * part.element_size() >= LARGE and not torch.compiler.is_compiling():
        return_freed_memory()  # holes of the heap, of no use to this tensor
    return torch.empty(
        (n, channels, height, width), dtype=part.dtype, device=part.device, memory_format=torch.channels_last
    )


class Upper(nn.Module):
    """Bank and decoder above the input's resolution."""

    def __init__(self, bank: Synthesis, decoder: nn.Module, first: int, last: int, dtype: torch.dtype):
        super().__init__()
        self.start, stages = start_and_stages(converted(decoder, dtype))
        self.rises = nn.ModuleList(
            Rise(bank, res, stage, dtype) for res, stage in zip(resolutions(first, last), stages, strict=True)
        )

    def forward(self, f_0: Tensor, features: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """f_0 (N, C, h, w), the bank's features (N, C', h, w), its layers' weights -> image (N, 3, H, W)"""
        parts: Parts = self.start(f_0), features
        for rise, first, second in zip(self.rises, weights[::2], weights[1::2], strict=True):
            parts = rise(*parts, first, second)
        (image,) = parts
        return image


# ---------------------------------------------------------------- GLEAN


class Lower(nn.Module):
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
        self.lower = Lower(bank, net.fusion_out, net.lq_canvas.side, dtype)
        self.modulations = nn.ModuleList(
            Modulation(bank.style_conv(i)) for res in resolutions(first, last) for i in style_layers(res)
        )
        self.upper = Upper(bank, net.decoder, first, last, dtype)

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
        self.upper = Upper(bank, net.decoder, bank.resolutions[0], bank.resolutions[-1], dtype)

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
    """A copy of ``net`` that computes the same faster and in less memory: see :mod:`glean_ext.networks.inference`.

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
