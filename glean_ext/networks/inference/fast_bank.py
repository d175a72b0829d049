"""The fast form of GLEAN with a bank of any kind but StyleGAN2, which has one of its own (:mod:`.fast_networks`).

Encoder, bank and decoder are copied in the given precision, channels-last, and bank and decoder are computed in turn,
resolution by resolution and on a CPU image by image, so that no feature lives longer than it is needed. In fp32 a
convolution of upsampled features, as BigGAN has them, becomes one transposed convolution with less than half of the
multiplications.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks.ablations import NoBank
from glean_ext.networks.banks.bank import Bank
from glean_ext.networks.banks.biggan import UpConv
from glean_ext.networks.glean import GLEANNetwork, require_size
from glean_ext.networks.inference.decoder_stages import Parts, start_and_stages
from glean_ext.networks.inference.frozen_copy import (
    constant,
    converted,
    drop_unused_codes,
    images_together,
    no_fast_form,
)
from glean_ext.networks.labels import class_shares, default_label
from glean_ext.networks.shapes import MIN_SIZE, resolutions


class FastBankGLEAN(nn.Module):
    """:class:`GLEANNetwork` for inference."""

    def __init__(self, net: GLEANNetwork, dtype: torch.dtype):
        super().__init__()
        if isinstance(net.generator, NoBank) or net.decoder is None:
            raise no_fast_form(net if net.decoder is None else net.generator)
        self.size_requirements = net.size_requirements
        self.lq_padding, self.gt_padding = net.lq_padding, net.gt_padding
        self.img_channels, self.dtype = net.img_channels, dtype
        self.num_classes, self.label = net.num_classes, net.label
        self.encoder = converted(net.encoder, dtype)
        drop_unused_codes(self.encoder)
        self.label_head = converted(net.label_head, dtype) if net.label_head and net.label is None else None
        self.bank = converted(cast(nn.Module, net.generator), dtype)
        if dtype == torch.float32:  # see TransposedUpConv
            transpose_upsampling(self.bank)
        self.fusions = converted(net.fusion_out, dtype)
        self.start, stages = start_and_stages(converted(net.decoder, dtype))
        self.stages = nn.ModuleList(stages)

    def forward(self, lq: Tensor, label: Tensor | None = None) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1].

        ``label`` (N,) has the classes of the images; None: the one that the network was built with, or estimated.

        Raises:
            InputError: The input is not of ``in_size``.
        """
        require_size(lq, self.lq_padding)
        lq = self.lq_padding.pad(lq).to(self.dtype, memory_format=torch.channels_last)
        # The encoder: features {4: ..., h: f_0} of (N, C, res, res), style codes (N, K, S).
        features, codes = self.encoder(lq)
        # The share of each class in each image: (N, classes), or nothing.
        logits = self.label_head(features[MIN_SIZE]) if self.label_head else None
        shares = class_shares(default_label(label, self.label, lq), logits, self.num_classes)
        # Bank and decoder: the image (N, 3, H, H).
        together = images_together(lq)
        images = [
            self._restore(
                {res: x[i : i + together] for res, x in features.items()},
                codes[i : i + together],
                None if shares is None else shares[i : i + together],
            )
            for i in range(0, len(lq), together)
        ]
        return self.gt_padding.crop(torch.cat(images)).float().contiguous()

    def _restore(self, features: dict[int, Tensor], codes: Tensor, label: Tensor | None) -> Tensor:
        """Features by resolution (N, C, res, res), codes (N, K, S), shares (N, classes) -> image (N, 3, H, H)"""
        bank, in_size = cast(Bank, self.bank), self.lq_padding.side
        x = bank.start(codes, label)  # (N, C, 4, 4)
        for fusion, res in zip(self.fusions, resolutions(MIN_SIZE, in_size), strict=True):
            x = x if res == MIN_SIZE else bank.block(x, res, codes, label)
            x = fusion(torch.cat([x, features[res]], 1))  # (N, C, res, res)
        parts: Parts = self.start(features[in_size]), x
        for stage, res in zip(self.stages, resolutions(2 * in_size, self.gt_padding.side), strict=True):
            parts = stage(*parts, bank.block(parts[1], res, codes, label))  # both (N, ..., res, res)
        (image,) = parts
        return image


class TransposedUpConv(nn.Module):
    """:class:`UpConv` as one transposed convolution. (N, C, H, W) -> (N, O, 2H, 2W)

    Each output pixel sees 2x2 input pixels, some of them with the sum of several weights: 4 multiplications instead of
    9. In half precision it is slow on CPUs without instructions for that.
    """

    def __init__(self, conv: UpConv):
        super().__init__()
        weight = conv.weight.transpose(0, 1).flip(2, 3)  # (C, O, 3, 3)
        shifted = (F.pad(weight, (left, 1 - left, top, 1 - top)) for left in range(2) for top in range(2))
        self.weight = constant(cast(Tensor, sum(shifted)))  # (C, O, 4, 4)
        self.bias = None if conv.bias is None else constant(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


def transpose_upsampling(module: nn.Module) -> None:
    """Replace every :class:`UpConv` in ``module``."""
    for name, child in module.named_children():
        if isinstance(child, UpConv):
            setattr(module, name, TransposedUpConv(child))
        else:
            transpose_upsampling(child)
