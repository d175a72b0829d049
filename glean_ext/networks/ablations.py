"""What takes the place of GLEAN's own parts in the ablation study of its paper (CVPR 2021, section 4).

The study takes away what the encoder, the bank and the decoder each contribute:

    encoder   features f_i go into the bank at all, some, one or none of its resolutions; without any, only the style
              codes tell the bank of the input, as in GAN inversion               ``inject_at``
    bank      pre-trained and frozen; pre-trained and tuned with the rest; random and frozen; none, which
              leaves a super-resolution network trained from scratch              ``bank``, ``bank_init``
    decoder   full; slim (LightGLEAN's, not in the study); none: the bank's own image is the result   ``decoder``

Each module here has the interface of what it replaces, so the forward pass of a restorer is the same for all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.encoder import feature_extractor
from glean_ext.networks.shapes import MIN_SIZE, channels_by_resolution, resolutions

# ---------------------------------------------------------------- encoder


class NoFusion(nn.Module):
    """In place of the convolution that fuses the encoder's features into the bank's: these alone go on."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels  # of the bank's features

    def forward(self, x: Tensor) -> Tensor:
        """The bank's C channels, then the encoder's: (N, C + C', H, W) -> (N, C, H, W)"""
        return x[:, : self.channels]


class TrunkAlone(nn.ModuleList):
    """The encoder of a restorer without bank: f_0, and neither features below it nor style codes."""

    def __init__(
        self,
        in_size: int,
        channels: dict[int, int],
        img_channels: int = 3,
        rrdb_channels: int = 64,
        num_rrdbs: int = 23,
    ):
        super().__init__([feature_extractor(img_channels, rrdb_channels, num_rrdbs, channels[in_size])])
        self.in_size = in_size

    def forward(self, lq: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """(N, 3, h, h) -> {..., h: f_0 (N, C, h, h)}, where the others have no channels; codes (N, 0, 0)"""
        f_0 = self[0](lq)
        features = {res: f_0[:, :0, :res, :res] for res in resolutions(MIN_SIZE, self.in_size // 2)}
        return {**features, self.in_size: f_0}, f_0.new_empty(len(lq), 0, 0)


# ---------------------------------------------------------------- bank


class NoFeatures(nn.Module):
    """In place of a bank: what it would answer has no channels. ``channels`` are the decoder's all the same."""

    num_latents = 0

    def __init__(self, out_size: int, channel_multiplier: float, max_channels: int):
        super().__init__()
        self.out_size = out_size
        self.channels = channels_by_resolution(out_size, channel_multiplier, max_channels)
        self.feature_channels = dict.fromkeys(self.channels, 0)


class NoBank(NoFeatures):
    """In place of the whole bank."""

    def start(self, codes: Tensor) -> Tensor:
        return codes.new_empty(len(codes), 0, MIN_SIZE, MIN_SIZE)

    def block(self, x: Tensor, res: int, codes: Tensor) -> Tensor:
        return x.new_empty(len(x), 0, res, res)


class NoBlocks(NoFeatures):
    """In place of LightGLEAN's part of the bank."""

    def __init__(self, in_size: int, out_size: int, channel_multiplier: float, max_channels: int):
        super().__init__(out_size, channel_multiplier, max_channels)
        self.doublings = len(resolutions(2 * in_size, out_size))

    def forward(self, x: Tensor, codes: Tensor) -> list[Tensor]:
        """(N, C, h, w) -> (N, 0, 2^i h, 2^i w) for i = 1, 2, ..."""
        n, _, h, w = x.shape
        return [x.new_empty(n, 0, h << i, w << i) for i in range(1, self.doublings + 1)]


# ---------------------------------------------------------------- decoder


class FusionWithRGB(nn.Module):
    """Fuses the encoder's features into the bank's, and into the image that a ``StyleGAN2WithRGB`` carries along.

    The two convolutions are what the released code has, which computes the image and drops it.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.out = Conv2d(2 * channels, channels, 3, padding=1)
        self.skip = Conv2d(channels + RGB, RGB, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The bank's C channels, its image, the encoder's features: (N, C + 3 + C, H, W) -> (N, C + 3, H, W)"""
        x, image, features = x.split([self.channels, RGB, self.channels], 1)
        return torch.cat([self.out(torch.cat([x, features], 1)), self.skip(torch.cat([image, features], 1))], 1)


class BankRGB(nn.Module):
    """In place of the decoder: the image that a ``StyleGAN2WithRGB`` carries along."""

    def forward(self, x: Tensor, bank_features: list[Tensor]) -> Tensor:
        """f_0, the bank's features with their images (N, C_i + 3, 2^i h, 2^i w) -> image (N, 3, H, W)"""
        return bank_features[-1][:, -RGB:]


# ---------------------------------------------------------------- a restorer's parts by its arguments


RGB = 3  # channels of the image that StyleGAN2WithRGB carries along


class StyleGAN2WithRGB(StyleGAN2Generator):
    """A bank that makes its image along with its features, for a restorer whose result is that image.

    The image so far is the last three channels of what :meth:`start` returns and :meth:`block` takes and returns. The
    arguments are those of :class:`StyleGAN2Generator`.
    """

    unused_codes = 0

    @property
    def feature_channels(self) -> dict[int, int]:
        return {res: channels + RGB for res, channels in self.channels.items()}

    def start(self, codes: Tensor, fresh_noise: bool = False) -> Tensor:
        """(N, K, S) -> (N, C + 3, 4, 4)"""
        x = super().start(codes, fresh_noise)
        return torch.cat([x, self.rgb(x, MIN_SIZE, codes)], 1)

    def block(self, x: Tensor, res: int, codes: Tensor, fresh_noise: bool = False) -> Tensor:
        """(N, C + 3, h, w), (N, K, S) -> (N, C' + 3, 2h, 2w)"""
        image = x[:, -RGB:]
        x = super().block(x[:, :-RGB], res, codes, fresh_noise)
        return torch.cat([x, self.rgb(x, res, codes, image)], 1)

    def synthesis(self, codes: Tensor, fresh_noise: bool = False) -> Tensor:
        x = self.start(codes, fresh_noise)
        for res in resolutions(2 * MIN_SIZE, self.out_size):
            x = self.block(x, res, codes, fresh_noise)
        image = x[:, -RGB:]
        return image.flip(1) if self.bgr2rgb else image

    def tune(self) -> None:
        super().tune()
        self.to_rgb1.requires_grad_(True)
        self.to_rgbs.requires_grad_(True)
