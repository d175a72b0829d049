"""Stand-ins for GLEAN's own parts in the ablation study of its paper (CVPR 2021, section 4).

The study removes what the encoder, the bank and the decoder each contribute:

    encoder   its features f_i enter the bank at all, some, one or none of the resolutions (``inject_at``). With none,
              the bank depends on the input through the style codes only, as in GAN inversion.
    bank      pre-trained and frozen; pre-trained and trained with the rest; random and frozen (``bank``,
              ``bank_init``); absent, which leaves a super-resolution network trained from scratch.
    decoder   full; slim (LightGLEAN's, not in the study); none: the bank's own image is the result (``decoder``).

Each module has the interface of the part it replaces, so a restorer's forward pass is the same in every ablation. Only
:mod:`glean_ext.networks.builder` uses them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glean_ext.networks.banks.spec import BankSpec
from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.encoder import feature_extractor
from glean_ext.networks.shapes import MIN_SIZE, resolutions

RGB = 3  # channels of the image that StyleGAN2WithRGB carries along

# ---------------------------------------------------------------- encoder


class NoFusion(nn.Module):
    """In place of the convolution that fuses the encoder's features into the bank's: it drops the encoder's."""

    def __init__(
        self,
        channels: int,  # C: of the bank's features
    ):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """The bank's C channels, then the encoder's: (N, C + C', H, W) -> (N, C, H, W)"""
        return x[:, : self.channels]


class TrunkAlone(nn.ModuleList):
    """The encoder of a restorer without bank: f_0, and neither features below it nor style codes."""

    def __init__(
        self,
        in_size: int,  # pixels: side of the input
        channels: dict[int, int],  # resolution -> width of f_0
        img_channels: int,  # of the input
        rrdb_channels: int,  # width of the RRDB trunk
        num_rrdbs: int,  # blocks of the RRDB trunk
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
    """In place of a bank: its features have no channels. The decoder is as wide as with a bank."""

    num_latents = 0

    def __init__(self, spec: BankSpec):
        super().__init__()
        self.channels = spec.channels  # the decoder's width
        self.feature_channels = dict.fromkeys(self.channels, 0)


class NoBank(NoFeatures):
    """In place of the whole bank."""

    def start(self, codes: Tensor) -> Tensor:
        return codes.new_empty(len(codes), 0, MIN_SIZE, MIN_SIZE)

    def block(self, x: Tensor, res: int, codes: Tensor) -> Tensor:
        return x.new_empty(len(x), 0, res, res)


class NoBlocks(NoFeatures):
    """In place of LightGLEAN's part of the bank."""

    def __init__(
        self,
        in_size: int,  # resolution that the blocks would start from
        spec: BankSpec,
    ):
        super().__init__(spec)
        self.doublings = len(resolutions(2 * in_size, spec.out_size))

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


class StyleGAN2WithRGB(StyleGAN2Generator):
    """A bank that makes its image along with its features, for a restorer whose result is that image.

    The last three channels of the features that :meth:`start` returns and :meth:`block` takes and returns are the image
    so far. The arguments are those of :class:`StyleGAN2Generator`.
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
