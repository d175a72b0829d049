"""The encoder: a trunk, a feature pyramid f_0 ... f_N, and a style code for every layer of the bank.

Sources: GLEAN, CVPR 2021, section 3.1; the RRDB block of ESRGAN, ECCVW 2018, section 3.1; the residual block of EDSR,
CVPRW 2017, section 3.1. Parameter names are MMagic's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.shapes import MIN_SIZE, require_one_of, resolutions

RESIDUAL_SCALE = 0.2  # ESRGAN's factor on every residual branch


def scaled_kaiming_(module: nn.Module, scale: float) -> None:
    """He-normal convolution weights times ``scale``, zero biases (ESRGAN, section 3.2, "smaller initialisation")."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
            m.weight.data *= scale
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def start_at_zero(layer: nn.Module) -> nn.Module:
    """A layer whose output is zero until it is trained."""
    for param in layer.parameters():
        nn.init.zeros_(param)
    return layer


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it. (N, C, H, W) -> (N, C, H, W)"""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        for i in range(5):
            out_channels = channels if i == 4 else growth
            self.add_module(f"conv{i + 1}", Conv2d(channels + i * growth, out_channels, 3, padding=1))
        scaled_kaiming_(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        *convs, last = self.children()
        for conv in convs:
            features.append(F.leaky_relu(conv(torch.cat(features, 1)), 0.2, inplace=True))  # (N, growth, H, W)
        return x + RESIDUAL_SCALE * last(torch.cat(features, 1))


class RRDB(nn.Module):
    """Residual in residual dense block. (N, C, H, W) -> (N, C, H, W)"""

    def __init__(self, channels: int, growth: int = 32):
        super().__init__()
        self.rdb1 = DenseBlock(channels, growth)
        self.rdb2 = DenseBlock(channels, growth)
        self.rdb3 = DenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class ResidualBlock(nn.Module):
    """EDSR's: without normalisation, and without a small factor on the branch, so it learns in few steps.

    (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)
        scaled_kaiming_(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


TRUNKS: dict[str, Callable[[int], nn.Module]] = {"rrdb": RRDB, "residual": ResidualBlock}


class Blocks(nn.Sequential):
    """Blocks in a row; with ``checkpoint`` training keeps only their inputs and computes each block twice."""

    checkpoint = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.checkpoint and torch.is_grad_enabled()):
            return super().forward(x)
        for block in self:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def set_checkpointing(encoder: nn.Module, on: bool) -> None:
    """Switch gradient checkpointing of an encoder's trunk."""
    for module in encoder.modules():
        if isinstance(module, Blocks):
            module.checkpoint = on


class Trunk(nn.Module):
    """ESRGAN's feature extractor without its upsampling, or that of SRResNet. (N, 3, h, w) -> (N, C, h, w)"""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, blocks: str = "rrdb"):
        super().__init__()
        require_one_of("trunk", blocks, tuple(TRUNKS))
        self.conv_first = Conv2d(in_channels, channels, 3, padding=1)
        self.body = Blocks(*(TRUNKS[blocks](channels) for _ in range(num_blocks)))
        self.conv_body = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        return x + self.conv_body(self.body(x))


def lrelu() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


def feature_extractor(
    img_channels: int, rrdb_channels: int, num_rrdbs: int, out_channels: int, trunk: str = "rrdb"
) -> nn.Sequential:
    """The part of the encoder that makes f_0: (N, 3, h, w) -> (N, C, h, w)"""
    extractor = Trunk(img_channels, rrdb_channels, num_rrdbs, trunk)
    return nn.Sequential(extractor, Conv2d(rrdb_channels, out_channels, 3, padding=1), lrelu())


class StyleCodes(nn.Linear):
    """Features at 4x4 -> style codes: (N, 16 C) -> (N, K', S).

    It has weights for K codes, as in MMagic; the last code only makes RGB, so most restorers skip it (K' = K - 1).
    """

    def __init__(
        self,
        in_channels: int,  # C
        num_codes: int,  # K
        style_channels: int,  # S
        unused: int,  # K - K': last codes that are not computed
    ):
        super().__init__(in_channels * MIN_SIZE**2, num_codes * style_channels)
        self.style_channels = style_channels
        self.unused = unused

    def forward(self, x: Tensor) -> Tensor:
        used = self.out_features - self.unused * self.style_channels
        # The weight keeps its precision: it is used once in a forward pass, and converting it costs more than it saves.
        with torch.autocast(x.device.type, enabled=False):
            codes = F.linear(x.to(self.weight.dtype), self.weight[:used], self.bias[:used])
        return codes.unflatten(1, (-1, self.style_channels))


class Encoder(nn.ModuleList):
    """Low-resolution image -> features at every resolution of the bank up to ``in_size``, and style codes.

    A list, because MMagic's keys count the stages: ``encoder.0`` is the trunk, the last one makes the codes.
    """

    def __init__(
        self,
        in_size: int,  # pixels: side of the input
        channels: Mapping[int, int],  # resolution -> channels of the bank
        num_codes: int,  # K: style codes an image gets
        style_channels: int,  # S
        img_channels: int = 3,  # of the input
        rrdb_channels: int = 64,  # width of the trunk
        num_rrdbs: int = 23,  # blocks of the trunk
        unused_codes: int = 1,  # last codes that are not computed
        trunk: str = "rrdb",  # its blocks: 'rrdb' or 'residual'
    ):
        super().__init__()
        self.append(feature_extractor(img_channels, rrdb_channels, num_rrdbs, channels[in_size], trunk))
        for res in reversed(resolutions(2 * MIN_SIZE, in_size)):
            here, below = channels[res], channels[res // 2]
            self.append(
                nn.Sequential(
                    Conv2d(here, below, 3, stride=2, padding=1),
                    lrelu(),
                    Conv2d(below, below, 3, padding=1),
                    lrelu(),
                )
            )
        last = channels[MIN_SIZE]
        self.append(
            nn.Sequential(
                Conv2d(last, last, 3, padding=1),
                lrelu(),
                nn.Flatten(),
                StyleCodes(last, num_codes, style_channels, unused_codes),
            )
        )

    def forward(self, lq: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """(N, 3, h, h) -> {resolution: (N, C, resolution, resolution)}, codes (N, K', S)"""
        *stages, to_codes = self
        x, features = lq, {}
        for stage in stages:
            x = stage(x)
            features[x.shape[-1]] = x
        return features, to_codes(x)
