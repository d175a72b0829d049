"""Builds the parts of a restorer from its bank and its arguments: encoder, fusions and decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import nn

from glean_ext.networks.ablations import NoBank, NoBlocks, NoFusion, TrunkAlone
from glean_ext.networks.banks.bank import Bank, BankBlocks
from glean_ext.networks.banks.stylegan2 import StyleGAN2Blocks
from glean_ext.networks.banks.stylegan2_spec import StyleGAN2Spec
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.decoder import Decoder, SlimDecoder
from glean_ext.networks.encoder import Encoder
from glean_ext.networks.pyramid import PyramidHeads
from glean_ext.networks.shapes import MIN_SIZE, resolutions

RGB = 3  # channels of the image that MMagic's fusion_skip fuses features into


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


def require_bank_fits(generator: Bank, out_size: int, decoder: str) -> None:
    """Raise ValueError for a bank of other images than the output, or without the image that is to be the output."""
    name, spec = type(generator).__name__, generator.spec
    if list(spec.channels) != resolutions(MIN_SIZE, out_size):
        raise ValueError(
            f"{name} has features at {', '.join(map(str, spec.channels))}, but out_size={out_size} needs all powers of "
            f"two from {MIN_SIZE} to {out_size}."
        )
    if decoder == "none" and not spec.makes_image:
        raise ValueError(f"{name} makes no image: take another decoder than 'none'.")


def freeze_or_tune(generator: nn.Module, bank: str, image: bool = False) -> None:
    """Freeze a bank; a ``'tuned'`` one stays trainable in the parts that the result depends on.

    Args:
        generator: The bank.
        bank: ``'frozen'``, ``'tuned'`` or ``'absent'``.
        image: The result is the bank's own image.
    """
    generator.requires_grad_(False)
    if bank == "tuned":
        generator.tune(image)  # type: ignore[operator]


def make_blocks(sizes: StyleGAN2Spec, bank: str, in_size: int) -> StyleGAN2Blocks | NoBlocks:
    """LightGLEAN's part of the bank, above ``in_size``: frozen, tuned or absent."""
    if bank == "absent":
        return NoBlocks(in_size, sizes.out_size)
    blocks = StyleGAN2Blocks(in_size, sizes)
    freeze_or_tune(blocks, bank)
    return blocks


def make_encoder(
    bank: Bank,
    in_size: int,
    widths: Mapping[int, int],  # resolution -> channels of the features
    img_channels: int,
    rrdb_channels: int,
    num_rrdbs: int,
    all_codes: bool,  # those too that only make the bank's image
    trunk: str,
) -> nn.Module:
    """GLEAN's encoder for a bank: without one it makes f_0 only."""
    if isinstance(bank, NoBank):
        return TrunkAlone(in_size, widths, img_channels, rrdb_channels, num_rrdbs, trunk)
    codes = bank.spec.num_codes, bank.spec.code_channels
    unused = 0 if all_codes else bank.spec.unused_codes
    return Encoder(in_size, widths, *codes, img_channels, rrdb_channels, num_rrdbs, unused, trunk)


def make_fusions(
    bank: Bank, in_size: int, widths: Mapping[int, int], inject_at: Sequence[int] | None, skips: bool
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """GLEAN's ``fusion_out`` at 4, 8, ... ``in_size``, and ``fusion_skip``, which only holds weights that MMagic has.

    Args:
        bank: Into whose features those of the encoder are fused.
        in_size: Pixels: side of the input.
        widths: Resolution -> channels of the encoder's features.
        inject_at: The resolutions to fuse at; None: all.
        skips: Make ``fusion_skip``, too.
    """
    fusion_out, fusion_skip = nn.ModuleList(), nn.ModuleList()
    for res in resolutions(MIN_SIZE, in_size):
        own, width = bank.spec.channels[res], widths[res]
        fuse = not isinstance(bank, NoBank) and (inject_at is None or res in inject_at)
        fusion_out.append(Conv2d(own + width, own, 3, padding=1) if fuse else NoFusion(own))
        if skips:
            skip = Conv2d(width + RGB, RGB, 3, padding=1).requires_grad_(False) if fuse else NoFusion(RGB)
            fusion_skip.append(skip)
    return fusion_out, fusion_skip


def make_decoder(
    kind: str,
    bank: Bank | BankBlocks,
    in_size: int,
    out_size: int,
    widths: Mapping[int, int],  # resolution -> channels of f_0 and of the full decoder
    slim_width: int,  # of the slim decoder
    img_channels: int,
) -> nn.Module | None:
    """The decoder for a bank: ``'full'``, ``'slim'`` or ``'none'``."""
    if kind == "none":
        return None
    if kind == "slim":
        return SlimDecoder(in_size, out_size, widths, bank.spec.channels, slim_width, img_channels)
    return Decoder(in_size, out_size, widths, bank.spec.channels, img_channels)


def make_pyramid(decoder: nn.Module | None, img_channels: int) -> PyramidHeads:
    """The heads of a decoder for the intermediate loss.

    Raises:
        ValueError: There is no decoder.
    """
    if decoder is None:
        raise ValueError("pyramid=True needs a decoder.")
    return PyramidHeads(cast(Decoder | SlimDecoder, decoder).inner_widths, img_channels)
