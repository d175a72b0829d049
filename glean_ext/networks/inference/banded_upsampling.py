"""Bank and decoder above the input's resolution, computed together in bands of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from glean_ext.networks.banks.stylegan2 import Synthesis, style_layers
from glean_ext.networks.inference.decoder_stages import FullStage, Parts, SlimStage, start_and_stages
from glean_ext.networks.inference.folded_style_conv import FoldedStyleConv, ModulatedWeight
from glean_ext.networks.inference.frozen_copy import converted
from glean_ext.networks.shapes import assert_shape, resolutions

BAND_BYTES = 24 << 20  # of a band's results, bank's and decoder's; glibc maps larger blocks (32 MiB) again each time
WIDE = 256  # channels from which on computing outweighs mapping: their bands have three times the bytes
MIN_ROWS = 32  # of a band, because the rows around it are computed twice


class UpsamplingBlock(nn.Module):
    """From one resolution to the next: a block of the bank, and the decoder's stage that takes its features."""

    def __init__(
        self,
        bank: Synthesis,
        res: int,  # resolution of the result
        stage: FullStage | SlimStage,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.first, self.second = (FoldedStyleConv(bank.style_conv(i), bank.noise(i), dtype) for i in style_layers(res))
        self.stage = stage
        self.halo = (self.first.fir.shape[-1] + 1 + stage.reach) // 2  # input rows around a band that it depends on

    def forward(self, x: Tensor, features: Tensor, first: ModulatedWeight, second: ModulatedWeight) -> Parts:
        """(N, C, h, w), g_(i-1) (N, C', h, w), two layers' weights -> (N, O, 2h, 2w) and g_i, or the image alone"""
        assert_shape(features, (x.shape[0], None, *x.shape[2:]))
        height, rows = x.shape[2], self.band_rows(x)
        if rows >= height:
            return self._band(x, features, first, second, 0)
        whole: Parts = ()
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            top, bottom = max(start - self.halo, 0), min(stop + self.halo, height)
            band = self._band(x[:, :, top:bottom], features[:, :, top:bottom], first, second, 2 * top)
            whole = whole or tuple(allocate_output(part, 2 * height) for part in band)
            for part, output in zip(band, whole, strict=True):
                output[:, :, 2 * start : 2 * stop] = part[:, :, 2 * (start - top) : 2 * (stop - top)]
        return whole

    def _band(self, x: Tensor, below: Tensor, first: ModulatedWeight, second: ModulatedWeight, top: int) -> Parts:
        """Some rows of :meth:`forward`; the first one of the result is row ``top``."""
        features = self.first(below, first, top)  # (N, C'', 2h, 2w)
        features = self.second(features, second, top)
        return self.stage(x, below, features)

    def band_rows(self, x: Tensor) -> int:
        """Rows of the input that are computed together; on a GPU all of them."""
        n, _, height, width = x.shape
        if x.device.type != "cpu":
            return height
        channels = len(self.second.bias)  # the bank's; the decoder's are as many at most
        limit = BAND_BYTES * (3 if channels >= WIDE else 1)
        bands = -(-n * height * width * 4 * 2 * channels * x.element_size() // limit)  # four output pixels per pixel
        return max(-(-height // bands), MIN_ROWS)


def allocate_output(part: Tensor, height: int) -> Tensor:
    """(N, C, h, W) -> an empty (N, C, height, W)"""
    n, channels, _, width = part.shape
    return torch.empty(
        (n, channels, height, width), dtype=part.dtype, device=part.device, memory_format=torch.channels_last
    )


class HighResBranch(nn.Module):
    """Bank and decoder above the input's resolution."""

    def __init__(
        self,
        bank: Synthesis,
        decoder: nn.Module,
        first: int,  # resolution of the first block's result
        last: int,  # resolution of the image
        dtype: torch.dtype,
        share: bool,  # memory with ``decoder``
    ):
        super().__init__()
        self.start, stages = start_and_stages(converted(decoder, dtype, share))
        self.blocks = nn.ModuleList(
            UpsamplingBlock(bank, res, stage, dtype)
            for res, stage in zip(resolutions(first, last), stages, strict=True)
        )

    @property
    def stages(self) -> list[FullStage | SlimStage]:
        """Those of the decoder."""
        return [cast(UpsamplingBlock, block).stage for block in self.blocks]

    def forward(self, f_0: Tensor, features: Tensor, weights: Iterable[ModulatedWeight]) -> Tensor:
        """f_0 (N, C, h, w), the bank's features (N, C', h, w), its layers' weights -> image (N, 3, H, W)"""
        parts: Parts = self.start(f_0), features
        layers = iter(weights)  # which may be made as they are used
        for block in self.blocks:
            parts = block(*parts, next(layers), next(layers))
        (image,) = parts
        return image
