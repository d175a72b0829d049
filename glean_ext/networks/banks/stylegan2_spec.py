"""What determines a StyleGAN2 bank, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glean_ext.networks.shapes import channels_by_resolution


@dataclass(frozen=True)
class StyleGAN2Spec:
    """The sizes of a StyleGAN2 generator; the names are those of the restorers' arguments."""

    out_size: int  # pixels: side of its images, a power of two from 4 on
    style_channels: int = 512  # S: channels of a latent and of a style code
    num_mlps: int = 8  # layers of the mapping network
    channel_multiplier: float = 2  # width from 64x64 on: 2 is StyleGAN2's configuration f, 1 configuration e
    max_channels: int = 512  # limit of the width, see channels_by_resolution
    blur_kernel: Sequence[float] = (1, 3, 3, 1)  # taps of the FIR filter that follows each upsampling convolution
    lr_mlp: float = 0.01  # learning-rate multiplier of the mapping network

    @property
    def channels(self) -> dict[int, int]:
        """Resolution -> channels of the feature map.

        Raises:
            ValueError: ``out_size`` is no power of two, or a resolution would have no channels.
        """
        return channels_by_resolution(self.out_size, self.channel_multiplier, self.max_channels)

    @property
    def num_latents(self) -> int:
        """K, the style codes an image gets: two a resolution, of which the last one only makes RGB."""
        return 2 * len(self.channels)
