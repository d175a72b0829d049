"""The decoders: fuse the encoder's f_0 with the bank's features g_i into the image.

Source: GLEAN, CVPR 2021, section 3.3. Parameter names of the full one are MMagic's; the slim one is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.encoder import lrelu, scaled_kaiming_
from glean_ext.networks.shapes import assert_shape, resolutions


class PixelShuffleUp(nn.Module):
    """Convolution and pixel shuffle. (N, C, H, W) -> (N, O, 2H, 2W)"""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.upsample_conv = Conv2d(in_channels, 4 * out_channels, 3, padding=1)
        scaled_kaiming_(self, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.upsample_conv(x), 2)


class Decoder(nn.ModuleList):
    """Doubles the resolution stage by stage; each stage but the first also gets the bank's features."""

    def __init__(
        self,
        in_size: int,  # pixels: side of f_0
        out_size: int,  # pixels: side of the image
        channels: Mapping[int, int],  # resolution -> width of the decoder
        bank_channels: Mapping[int, int],  # resolution -> width of the bank's features
        img_channels: int = 3,  # of the image
    ):
        super().__init__()
        self.bank_widths = [bank_channels[res] for res in resolutions(2 * in_size, out_size)]
        for res in resolutions(in_size, out_size):
            in_channels = channels[res] if res == in_size else channels[res] + bank_channels[res]
            if res < out_size:
                self.append(PixelShuffleUp(in_channels, channels[2 * res]))
            else:
                self.append(
                    nn.Sequential(
                        Conv2d(in_channels, 64, 3, padding=1), lrelu(), Conv2d(64, img_channels, 3, padding=1)
                    )
                )

    @torch.no_grad()
    def scale_bank(self, factor: float) -> None:
        """Have the bank's features count ``factor`` times as much from now on."""
        _, *stages = self
        for stage, width in zip(stages, self.bank_widths, strict=True):
            conv = stage.upsample_conv if isinstance(stage, PixelShuffleUp) else cast(nn.Sequential, stage)[0]
            cast(nn.Conv2d, conv).weight[:, -width:] *= factor

    @property
    def inner_widths(self) -> list[int]:
        """Channels at 2h, 4h, ... H / 2."""
        return [cast(PixelShuffleUp, stage).upsample_conv.out_channels // 4 for stage in list(self)[:-2]]

    def forward(self, x: Tensor, bank_features: list[Tensor], inner: list[Tensor] | None = None) -> Tensor:
        """f_0 (N, C, h, h), g_i (N, C_i, 2^i h, 2^i h) from the smallest on -> image (N, 3, H, H)

        ``inner`` gets the decoder's own features at 2h, 4h, ... H / 2.
        """
        first, *stages = self
        x = first(x)  # (N, C, 2h, 2h)
        for number, (stage, features) in enumerate(zip(stages, bank_features, strict=True), 1):
            if inner is not None and number < len(stages):
                inner.append(x)
            x = stage(torch.cat([x, features], 1))
        return x


class NoProjection(nn.Module):
    """In place of the projection where the features have no channels."""

    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros(())


def projection(in_channels: int, width: int) -> nn.Module:
    """(N, C, H, W) -> (N, width, H, W); without channels -> a zero that can be added to any tensor"""
    return Conv2d(in_channels, width, 1) if in_channels else NoProjection()


class SlimDecoder(nn.Module):
    """A narrow stream that starts from f_0 and gets the bank's features added, both projected to its width.

    The full decoder is as wide as the bank, concatenates, and takes half of GLEAN's computation; this one takes a tenth
    of LightGLEAN's.
    """

    def __init__(
        self,
        in_size: int,  # pixels: side of f_0
        out_size: int,  # pixels: side of the image
        channels: Mapping[int, int],  # resolution -> width of f_0
        bank_channels: Mapping[int, int],  # resolution -> width of the bank's features
        width: int = 32,  # of the stream
        img_channels: int = 3,  # of the image
    ):
        super().__init__()
        stages = resolutions(2 * in_size, out_size)
        self.start = Conv2d(channels[in_size], width, 1)
        self.ups = nn.ModuleList(PixelShuffleUp(width, width) for _ in stages)
        self.projections = nn.ModuleList(projection(bank_channels[res], width) for res in stages)
        self.to_image = Conv2d(width, img_channels, 3, padding=1)

    @torch.no_grad()
    def scale_bank(self, factor: float) -> None:
        """Have the bank's features count ``factor`` times as much from now on."""
        for project in self.projections:
            cast(nn.Conv2d, project).weight *= factor

    @property
    def inner_widths(self) -> list[int]:
        """Channels at 2h, 4h, ... H / 2."""
        return [self.start.out_channels] * (len(self.ups) - 1)

    def forward(self, x: Tensor, bank_features: list[Tensor], inner: list[Tensor] | None = None) -> Tensor:
        """f_0 (N, C, h, w), g_i (N, C_i, 2^i h, 2^i w) from the smallest on -> image (N, 3, H, W)

        ``inner`` gets the decoder's own features at 2h, 4h, ... H / 2.
        """
        x = self.start(x)  # (N, width, h, w)
        for up, project, features in zip(self.ups, self.projections, bank_features, strict=True):
            x = up(x)  # (N, width, 2^i h, 2^i w)
            assert_shape(features, (x.shape[0], None, *x.shape[2:]))
            x = F.leaky_relu(x + project(features), 0.2)
            if inner is not None and len(inner) < len(self.ups) - 1:
                inner.append(x)
        return self.to_image(x)
