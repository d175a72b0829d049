"""Reference images for GLEAN with a StyleGAN2 bank: what the decoder fetches from them.

An attention of the low-resolution image to itself and to its references, all seen by the encoder, finds what resembles
what; what it fetches is high-resolution: the patch of pixels behind each position. It is added to the bank's features
that the decoder gets. This is not the method of a paper: values are adapted as in the diffusion bank
(:mod:`glean_ext.networks.banks.reference_attention`); high-resolution values for low-resolution keys, and their
likeness by the cosine, are TTSR's (Yang et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks.banks.reference_attention import tokens_of_images, with_statistics
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.encoder import start_at_zero
from glean_ext.networks.shapes import resolutions

SHARPNESS = 10.0  # at the start: what the cosine of two positions is multiplied by before the softmax


class ReferenceFeatures(nn.Module):
    """Adds what references show to codes and to the bank's features; before training nothing."""

    def __init__(
        self,
        in_size: int,  # pixels: side of f_0
        out_size: int,  # pixels: side of the image
        channels: int,  # C: width of f_0
        bank_channels: Mapping[int, int],  # resolution -> width of the bank's features
        num_codes: int,  # K: codes of an image
        img_channels: int = 3,
        key_channels: int = 64,  # D: of queries and keys
        value_channels: int = 16,  # V: of each high-resolution pixel
    ):
        super().__init__()
        self.scale = out_size // in_size
        self.to_key = Conv2d(channels, key_channels, 1)  # of queries, too: what looks alike is alike from the start
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.to_v = Conv2d(img_channels, value_channels, 3, padding=1)
        self.to_bank = nn.ModuleDict(
            {
                str(res): start_at_zero(Conv2d(value_channels, bank_channels[res], 1))
                for res in resolutions(2 * in_size, out_size)
            }
        )
        self.code_share = nn.Parameter(torch.zeros(num_codes, 1))

    def codes(self, codes: Tensor, others: Tensor) -> Tensor:
        """(N, K', S), of references (N R, K', S) -> (N, K', S): a learned share of the way to the references' mean."""
        mean = others.unflatten(0, (len(codes), -1)).mean(1)
        return codes + self.code_share[: codes.shape[1]] * (mean - codes)

    def forward(self, f_0: Tensor, others: Tensor, image: Tensor, references: Tensor) -> dict[int, Tensor]:
        """What is added to the bank's features, {res: (N, C_i, res, res)} for res = 2h, 4h, ... H.

        Args:
            f_0: (N, C, h, h)
            others: The same of the references, (N R, C, h, h).
            image: The input, enlarged: (N, 3, H, H).
            references: (N R, 3, H, H)
        """
        n, side = len(f_0), image.shape[-1]
        query = F.normalize(tokens(self.to_key(f_0)), dim=2)  # (N, h h, D)
        others = F.normalize(tokens(self.to_key(others)), dim=2)
        key = torch.cat([query, tokens_of_images(others, n)], 1)  # (N, (R + 1) h h, D)
        # Contrast and colours of the image itself.
        own_value, value = tokens(self.to_v(image)), tokens_of_images(tokens(self.to_v(references)), n)
        pixels = torch.cat([own_value, with_statistics(value, own_value)], 1)  # (N, (R + 1) H H, V)
        patches = self._patches(pixels.unflatten(1, (-1, side, side)))  # (N, (R + 1) h h, V s s)
        query = (self.sharpness * query).to(patches.dtype)
        # With an axis of heads, without which GPUs keep all weights, (N, h h, (R + 1) h h), in memory.
        query, key, patches = query[:, None], key.to(patches.dtype)[:, None], patches[:, None]
        fetched = F.scaled_dot_product_attention(query, key, patches, scale=1.0)[:, 0]  # (N, h h, V s s)
        x = F.pixel_shuffle(fetched.transpose(1, 2).unflatten(2, f_0.shape[-2:]), self.scale)  # (N, V, H, H)
        return {int(res): conv(F.adaptive_avg_pool2d(x, int(res))) for res, conv in self.to_bank.items()}

    def _patches(self, images: Tensor) -> Tensor:
        """(N, M, H, H, V) -> (N, M h h, V s s)"""
        folded = F.pixel_unshuffle(images.movedim(-1, 2), self.scale)  # (N, M, V s s, h, h)
        return folded.flatten(3).transpose(2, 3).flatten(1, 2)


def tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C)"""
    return x.flatten(2).transpose(1, 2)
