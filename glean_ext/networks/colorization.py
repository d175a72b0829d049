"""Colorization: GLEAN's encoder reads luminance, its bank supplies colour, its decoder predicts chroma.

The TPAMI paper (2022) names this task; its wiring was never released, and this one is our own, see docs/tasks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.encoder import Trunk
from glean_ext.networks.glean import GLEANStyleGANv2
from glean_ext.networks.precision import mixed_precision
from glean_ext.size_requirements import MIN_INPUT, SizeRequirements

RGB = 3
CHROMA = 2  # R - Y and B - Y
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of gamma-encoded RGB
TINY = 1e-6  # a difference from gray that cannot leave the gamut
START = 0.5  # how much of a sampled style reaches the codes when training starts


def luminance(image: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W), in the range of the image"""
    red, green, blue = image.split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def join(gray: Tensor, chroma: Tensor) -> Tensor:
    """The colours of a luminance and chroma: (N, 1, H, W) in [-1, 1], (N, 2, H, W) -> (N, 3, H, W) in [-1, 1].

    Their luminance is the given one. What would leave the gamut is drawn towards gray, along a line on which luminance
    does not change; so no channel has to be clipped, and rounding to 8 bits changes luminance by half a level at most.
    The gradient is that of the colours before that: it is not lost outside of the gamut.
    """
    red, blue = chroma.split(1, 1)
    green = -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1]
    offset = torch.cat([red, green, blue], 1)  # (N, 3, H, W), without luminance
    with torch.no_grad():
        room = torch.where(offset > 0, 1 - gray, 1 + gray) / offset.abs().clamp(min=TINY)
        share = room.amin(1, keepdim=True).clamp(0, 1)  # (N, 1, H, W)
        drawn = (share - 1) * offset
    return gray + offset + drawn


class GLEANColorization(GLEANStyleGANv2):
    """Colours for a gray image of any size, whose luminance stays as it is.

    The luminance is scaled to ``in_size``, and its pixels are folded into channels of ``encoder_size`` (pixel
    unshuffle), which loses nothing. From there on this is GLEAN, ``encoder_size -> out_size``, but for two channels of
    chroma in place of RGB. They are scaled to the image's size and joined with its own luminance, so all its detail is
    in the result.

    A gray image has more than one answer. :meth:`forward` takes a latent ``z``, as the bank does: the difference of
    its style from that of ``z = 0`` is added to the encoder's codes, with a learned factor for each. Training teaches
    the network to use it, see :class:`~glean_ext.models.colorization.GLEANColorizer`.

    Args:
        in_size: Images of other sizes are scaled to it, and padded to squares by repeating their borders.
        out_size: The same number; the bank's images have this size.
        init_cfg: As for :class:`~glean_ext.networks.glean.GLEANStyleGANv2`, as are those that are not mentioned here.

    Raises:
        ValueError: ``out_size`` is not ``in_size``, ``encoder_size`` is not smaller than it, or a size is no power of
            two; arguments that contradict each other.
    """

    def __init__(
        self,
        in_size: int,  # pixels: side of the gray image, a power of two
        out_size: int,  # pixels: side of the coloured image, as in_size
        encoder_size: int,  # pixels: side of the encoder's first features, a smaller power of two from 4 on
        rrdb_channels: int = 64,  # width of the encoder's trunk
        num_rrdbs: int = 23,  # blocks of the trunk
        style_channels: int = 512,  # S: channels of a style code; here and below as in the bank's file
        num_mlps: int = 8,  # layers of the bank's mapping network
        channel_multiplier: float = 2,  # width of the bank from 64x64 on: 2 is StyleGAN2's configuration f
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the bank's resampling filter
        lr_mlp: float = 0.01,  # learning-rate multiplier of the bank's mapping network
        init_cfg: dict | None = None,  # the bank's file; None: there is none
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        max_channels: int = 512,  # limit of the width of bank, encoder pyramid and decoder
        bank_init: Literal["pretrained", "random"] = "pretrained",
        checkpoint_trunk: bool = False,  # gradient checkpointing of the trunk
    ):
        if in_size != out_size:
            raise ValueError(f"in_size and out_size must be equal, but they are {in_size} and {out_size}.")
        super().__init__(
            encoder_size,
            out_size,
            CHROMA,
            rrdb_channels,
            num_rrdbs,
            style_channels,
            num_mlps,
            channel_multiplier,
            blur_kernel,
            lr_mlp,
            init_cfg=init_cfg,
            fp16_enabled=fp16_enabled,
            max_channels=max_channels,
            bank_init=bank_init,
            checkpoint_trunk=checkpoint_trunk,
        )
        self.in_size = out_size
        self.img_channels = RGB
        self.style_channels = style_channels
        self.fold = out_size // encoder_size
        self.cost_side = 4 * out_size  # pixels: of an image that is large enough to measure memory by
        self.size_requirements = SizeRequirements((out_size, out_size), 1, any_size=True)
        trunk, spec = cast(Trunk, self.encoder.get_submodule("0.0")), self.generator.spec
        trunk.conv_first = Conv2d(self.fold**2, rrdb_channels, 3, padding=1)
        self.variation = nn.Parameter(torch.full((spec.num_codes - spec.unused_codes, 1), START))

    def forward(self, lq: Tensor, z: Tensor | None = None) -> Tensor:  # type: ignore[override]  # no label, but a latent
        """(N, 3, H, W), RGB in [-1, 1], of which luminance counts -> (N, 3, H, W), fp32, in [-1, 1].

        Args:
            lq: The image, from 8x8 on.
            z: (N or 1, S), standard normal: which of the possible answers is given; None: that of zeros.

        Raises:
            InputError: The input is smaller than 8x8, or not RGB.
        """
        if lq.ndim != 4 or lq.shape[1] != RGB or min(lq.shape[2:]) < MIN_INPUT:
            raise InputError(
                f"This GLEAN colours RGB images of at least {MIN_INPUT}x{MIN_INPUT} pixels, but got a tensor of shape "
                f"{tuple(lq.shape)}. Give another image."
            )
        gray = luminance(lq.float())  # (N, 1, H, W)
        with mixed_precision(lq.device, self.fp16_enabled):
            # The encoder: features {4: ..., h: f_0} of (N, C, res, res), style codes (N, K, S).
            square = self._to_square(gray).to(self.variation.dtype)
            features, codes = self.encoder(F.pixel_unshuffle(square, self.fold))
            if z is not None:
                codes = codes + self._variation(z).to(codes.dtype)
            # The latent bank: its features at every resolution.
            bank_features = self._bank_features(features, codes)
            # The decoder: chroma (N, 2, S, S).
            chroma = self._image(features, bank_features, codes, None).float()
        return join(gray, self._from_square(chroma, lq.shape[2], lq.shape[3]))

    def _variation(self, z: Tensor) -> Tensor:
        """What a latent adds to the style codes: (N, S) -> (N, K, S)"""
        with torch.no_grad():
            styles = cast(StyleGAN2Generator, self.generator).style_mapping(torch.cat([z, torch.zeros_like(z[:1])]))
            offset = styles[:-1] - styles[-1:]  # (N, S)
        return self.variation * offset[:, None]

    def _to_square(self, gray: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 1, in_size, in_size), the image in the middle, its borders repeated"""
        height, width = gray.shape[2:]
        left, top, side = _margins(height, width)
        gray = F.pad(gray, (left, side - width - left, top, side - height - top), mode="replicate")
        return _scaled(gray, self.gt_padding.side)

    def _from_square(self, chroma: Tensor, height: int, width: int) -> Tensor:
        """(N, 2, in_size, in_size) -> (N, 2, height, width): the part of the image"""
        left, top, side = _margins(height, width)
        # Negative padding crops; slices would tie torch.export's graph to one of wide and tall images.
        return F.pad(_scaled(chroma, side), (-left, left + width - side, -top, top + height - side))


def _margins(height: int, width: int) -> tuple[int, int, int]:
    """Columns on the left and rows on top of an image in the middle of its square, and the square's side."""
    side = max(height, width)
    return (side - width) // 2, (side - height) // 2, side


def _scaled(x: Tensor, side: int) -> Tensor:
    """(N, C, s, s) -> (N, C, side, side), antialiased"""
    return F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
