"""Builds the parts of a restorer from its arguments: bank, encoder, fusions and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from glean_ext.networks.ablations import (
    RGB,
    BankRGB,
    FusionWithRGB,
    NoBank,
    NoBlocks,
    NoFusion,
    StyleGAN2WithRGB,
    TrunkAlone,
)
from glean_ext.networks.banks.spec import BankSpec
from glean_ext.networks.banks.stylegan2 import StyleGAN2Blocks, StyleGAN2Generator, Synthesis
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.decoder import Decoder, SlimDecoder
from glean_ext.networks.encoder import Encoder
from glean_ext.networks.shapes import MIN_SIZE, resolutions

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


def make_bank(spec: BankSpec, bank: str, decoder: str) -> Bank:
    """GLEAN's bank: frozen, tuned or absent; without a decoder it makes its image, too."""
    if bank == "absent":
        return NoBank(spec)
    kind = StyleGAN2WithRGB if decoder == "none" else StyleGAN2Generator
    return freeze_or_tune(kind.from_spec(spec), bank)


def make_blocks(spec: BankSpec, bank: str, in_size: int) -> Blocks:
    """LightGLEAN's part of the bank, above ``in_size``: frozen, tuned or absent."""
    if bank == "absent":
        return NoBlocks(in_size, spec)
    return freeze_or_tune(StyleGAN2Blocks(in_size, spec), bank)


def freeze_or_tune(generator: BankT, bank: str) -> BankT:
    """Freeze a bank; a ``'tuned'`` one stays trainable in the parts that the result depends on."""
    generator.requires_grad_(False)
    if bank == "tuned":
        generator.tune()
    return generator


def make_encoder(
    bank: Bank, in_size: int, style_channels: int, img_channels: int, rrdb_channels: int, num_rrdbs: int
) -> nn.Module:
    """GLEAN's encoder for a bank: without one it makes f_0 only."""
    if isinstance(bank, NoBank):
        return TrunkAlone(in_size, bank.channels, img_channels, rrdb_channels, num_rrdbs)
    return Encoder(
        in_size,
        bank.channels,
        bank.num_latents,
        style_channels,
        img_channels,
        rrdb_channels,
        num_rrdbs,
        bank.unused_codes,
    )


def make_fusions(bank: Bank, in_size: int, inject_at: Sequence[int] | None) -> tuple[nn.ModuleList, nn.ModuleList]:
    """GLEAN's ``fusion_out`` and ``fusion_skip`` at 4, 8, ... ``in_size``; the second only has MMagic's weights."""
    fusion_out, fusion_skip = nn.ModuleList(), nn.ModuleList()
    for res in resolutions(MIN_SIZE, in_size):
        c = bank.channels[res]
        if isinstance(bank, NoBank) or (inject_at is not None and res not in inject_at):
            fusion_out.append(NoFusion(bank.feature_channels[res]))
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
        return SlimDecoder(in_size, out_size, bank.channels, bank.feature_channels, width, img_channels)
    return Decoder(in_size, out_size, bank.channels, bank.feature_channels, img_channels)
