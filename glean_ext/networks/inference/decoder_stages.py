"""The decoder as stages, one for each resolution, so that bank and decoder can be computed in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks.decoder import Decoder, PixelShuffleUp, SlimDecoder
from glean_ext.networks.inference.frozen_copy import constant, no_fast_form

Parts = tuple[Tensor, ...]  # the decoder's tensor and the bank's features g_i; after the last stage the image alone


class FullStage(nn.Module):
    """A stage of :class:`Decoder`; the last one also makes the image."""

    def __init__(
        self,
        up: PixelShuffleUp,
        below: int,  # channels of g_(i-1); 0: the first stage, which gets f_0 alone
        end: nn.Module | None,  # makes the image; None: not the last stage
    ):
        super().__init__()
        self.up = up
        self.below = below
        self.end = end
        self.reach = 2 if end else 0  # rows above and below a pixel that the end depends on

    def forward(self, x: Tensor, below: Tensor, features: Tensor) -> Parts:
        """(N, C, h, w), g_(i-1) (N, C', h, w), g_i (N, C'', 2h, 2w) -> (N, O, 2h, 2w) and g_i, or the image alone"""
        x = self.up(torch.cat([x, below], 1) if self.below else x)  # (N, O, 2h, 2w)
        return (self.end(torch.cat([x, features], 1)),) if self.end else (x, features)

    @torch.no_grad()
    def scale_bank(self, factor: float) -> None:
        """Have the bank's features count ``factor`` times as much from now on."""
        conv = self.up.upsample_conv
        if self.below:
            conv.weight[:, -self.below :] *= factor
        if self.end:
            cast(nn.Conv2d, cast(nn.Sequential, self.end)[0]).weight[:, conv.out_channels // 4 :] *= factor


class SlimStage(nn.Module):
    """A stage of :class:`SlimDecoder`; the last one also makes the image. It does not use g_(i-1)."""

    def __init__(
        self,
        up: PixelShuffleUp,
        project: nn.Module,  # the bank's features to the stream's width
        to_image: nn.Module | None,  # None: not the last stage
    ):
        super().__init__()
        single = up.upsample_conv.weight.dtype == torch.float32
        self.up = TransposedUp(up) if single else up
        self.project = project
        self.to_image = to_image
        self.reach = 1 if to_image else 0

    def forward(self, x: Tensor, below: Tensor, features: Tensor) -> Parts:
        """(N, C, h, w), g_(i-1) (N, C', h, w), g_i (N, C'', 2h, 2w) -> (N, C, 2h, 2w) and g_i, or the image alone"""
        x = F.leaky_relu(self.up(x).add_(self.project(features)), 0.2, inplace=True)  # (N, C, 2h, 2w)
        return (self.to_image(x),) if self.to_image else (x, features)

    @torch.no_grad()
    def scale_bank(self, factor: float) -> None:
        """Have the bank's features count ``factor`` times as much from now on."""
        cast(nn.Conv2d, self.project).weight *= factor


class TransposedUp(nn.Module):
    """:class:`PixelShuffleUp` as one transposed convolution: in fp32 and for few channels faster than moving pixels.

    In half precision it takes three times as long on a CPU without instructions for that.
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
        two_rows = self.bias.repeat(1, width, 1).permute(2, 0, 1)  # (O, 2, 2w): faster than broadcasting 2x2 pixels
        x.unflatten(2, (height, 2)).add_(two_rows[:, None])
        return x


def start_and_stages(decoder: nn.Module) -> tuple[nn.Module, Sequence[FullStage | SlimStage]]:
    """The part of ``decoder`` at the input's resolution, and one stage for each resolution above."""
    if isinstance(decoder, SlimDecoder):
        ends = [None] * (len(decoder.ups) - 1) + [four_pixels_at_once(decoder.to_image)]
        parts = zip(decoder.ups, decoder.projections, ends, strict=True)
        return decoder.start, [SlimStage(cast(PixelShuffleUp, up), project, end) for up, project, end in parts]
    if isinstance(decoder, Decoder):
        *ups, last = decoder
        conv, activation, to_image = last.children()
        end = nn.Sequential(conv, activation, four_pixels_at_once(cast(nn.Conv2d, to_image)))
        widths = 0, *decoder.bank_widths[:-1]
        return nn.Identity(), [
            FullStage(cast(PixelShuffleUp, up), below, end if up is ups[-1] else None)
            for up, below in zip(ups, widths, strict=True)
        ]
    raise no_fast_form(decoder)


def four_pixels_at_once(conv: nn.Conv2d) -> nn.Sequential:
    """``conv``, a 3x3 one, for images of even height and width: (N, C, H, W) -> (N, O, H, W)

    Three output channels leave most of a vector register empty. The twelve of 2x2 pixels, which together depend on 4x4
    pixels, do not.
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
