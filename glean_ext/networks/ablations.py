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

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from .convolution import Conv2d
from .decoder import Decoder, SlimDecoder
from .encoder import Encoder, feature_extractor
from .shapes import MIN_SIZE, channels_by_resolution, resolutions
from .stylegan2 import RGB, StyleGAN2Blocks, StyleGAN2Generator, StyleGAN2WithRGB, Synthesis

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
        self.answer_channels = dict.fromkeys(self.channels, 0)


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

Bank = StyleGAN2Generator | NoBank
Blocks = StyleGAN2Blocks | NoBlocks
BankT = TypeVar("BankT", bound=Synthesis)


def require_parts(bank: str, inject_at: Sequence[int] | None, decoder: str, in_size: int) -> None:
    """Raise ValueError for a resolution where the encoder has no features, and for parts that need an absent bank."""
    if bank == "absent" and (inject_at is not None or decoder == "none"):
        raise ValueError(
            "bank='absent' leaves nothing to inject features into, nor an image: leave out inject_at, and take "
            "another decoder than 'none'."
        )
    known = resolutions(MIN_SIZE, in_size)
    if wrong := [res for res in inject_at or () if res not in known]:
        raise ValueError(
            f"inject_at may hold {', '.join(map(str, known))} (powers of two up to in_size), but it holds {wrong[0]!r}."
        )


def make_bank(
    bank: str,
    decoder: str,
    out_size: int,
    style_channels: int,
    num_mlps: int,
    channel_multiplier: float,
    max_channels: int,
    blur_kernel: Sequence[float],
    lr_mlp: float,
) -> Bank:
    """GLEAN's bank: frozen, tuned or absent, with its image where there is no decoder."""
    if bank == "absent":
        return NoBank(out_size, channel_multiplier, max_channels)
    kind = StyleGAN2WithRGB if decoder == "none" else StyleGAN2Generator
    return freeze_or_tune(
        kind(out_size, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp), bank
    )


def make_blocks(
    bank: str,
    in_size: int,
    out_size: int,
    style_channels: int,
    channel_multiplier: float,
    max_channels: int,
    blur_kernel: Sequence[float],
) -> Blocks:
    """LightGLEAN's part of the bank: frozen, tuned or absent."""
    if bank == "absent":
        return NoBlocks(in_size, out_size, channel_multiplier, max_channels)
    return freeze_or_tune(
        StyleGAN2Blocks(in_size, out_size, style_channels, channel_multiplier, max_channels, blur_kernel), bank
    )


def freeze_or_tune(generator: BankT, bank: str) -> BankT:
    """Make trainable what ``bank`` says: nothing, or what the result depends on."""
    generator.requires_grad_(False)
    if bank == "tuned":
        generator.tune()
    return generator


def make_encoder(
    bank: Bank, in_size: int, style_channels: int, img_channels: int, rrdb_channels: int, num_rrdbs: int
) -> nn.Module:
    """GLEAN's encoder for a bank: it makes what the bank can use."""
    if isinstance(bank, NoBank):
        return TrunkAlone(in_size, bank.channels, img_channels, rrdb_channels, num_rrdbs)
    return Encoder(
        in_size, bank.channels, bank.num_latents, style_channels, img_channels, rrdb_channels, num_rrdbs,
        bank.unused_codes,
    )  # fmt: skip


def make_fusions(bank: Bank, in_size: int, inject_at: Sequence[int] | None) -> tuple[nn.ModuleList, nn.ModuleList]:
    """GLEAN's ``fusion_out`` and ``fusion_skip`` at 4, 8, ... ``in_size``; the second is kept for checkpoints' sake."""
    fusion_out, fusion_skip = nn.ModuleList(), nn.ModuleList()
    for res in resolutions(MIN_SIZE, in_size):
        c = bank.channels[res]
        if isinstance(bank, NoBank) or (inject_at is not None and res not in inject_at):
            fusion_out.append(NoFusion(bank.answer_channels[res]))
            fusion_skip.append(NoFusion(RGB))
        elif isinstance(bank, StyleGAN2WithRGB):
            fusion_out.append(FusionWithRGB(c))  # holds both
        else:
            fusion_out.append(Conv2d(2 * c, c, 3, padding=1))
            fusion_skip.append(Conv2d(c + RGB, RGB, 3, padding=1).requires_grad_(False))
    return fusion_out, fusion_skip


def make_decoder(
    kind: str, bank: Bank | Blocks, in_size: int, out_size: int, width: int, img_channels: int
) -> nn.Module:
    """The decoder for a bank: ``'full'``, ``'slim'`` (``width`` wide) or ``'none'``."""
    if kind == "none":
        return BankRGB()
    if kind == "slim":
        return SlimDecoder(in_size, out_size, bank.channels, bank.answer_channels, width, img_channels)
    return Decoder(in_size, out_size, bank.channels, bank.answer_channels, img_channels)
