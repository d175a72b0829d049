"""CIMR-SR (Yan et al., ECCV 2020): patches from a pool of references that is the same for every image.

The pool is made once, of images that have nothing to do with the input; references of the image itself join it. For
each place of the input the best matching places of all these are found, and their features in high resolution are
averaged by attention.

What differs from the paper: a pool of 8 training images; the features that are matched are the encoder's, which learn
to restore, not to match; the attention is a softmax of the similarities with a trained temperature; a decoder of
residual blocks, whose output is added to the enlarged input; the training is that of all systems.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments import domains
from experiments.relatives.parts import FusionDecoder, Pyramid, degrade, enlarge
from experiments.relatives.patches import match, take
from glean_ext.network_settings import MAX_REFERENCES
from glean_ext.networks.references import require_references

POOL = 8  # images
BEST = 4  # matches that are averaged


def pool(domain: str) -> Tensor:
    """Training images of a domain, always the same: (8, 3, 64, 64) in [-1, 1]"""
    images = domains.load(domain).parts["train"].images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:POOL]
    return images[chosen].float() / 127.5 - 1


class CIMR(nn.Module):
    """Encoders -> matching with the pool and the references -> fusion.

    Args:
        scale: s.
        pool: (R, 3, H, W) in [-1, 1], of the output's size.
    """

    max_references = MAX_REFERENCES
    pool: Tensor

    def __init__(self, scale: int, pool: Tensor):
        super().__init__()
        self.scale = scale
        self.register_buffer("pool", pool)
        self.own, self.other = Pyramid(), Pyramid()
        self.temperature = nn.Parameter(torch.tensor(10.0))
        self.decoder = FusionDecoder()

    def forward(self, lq: Tensor, references: Tensor | None = None) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1]; references (N, R, 3, s h, s w) -> (N, 3, s h, s w)"""
        large = enlarge(lq, self.scale)
        if references is not None:
            require_references(references, lq, (large.shape[-2], large.shape[-1]), self.max_references)
        own = self.own(large)
        with torch.no_grad():
            [keys] = self._of_all(lambda images: [self.own(degrade(images, self.scale))[-1]], len(lq), references)
        values = self._of_all(self.other, len(lq), references)
        with torch.autocast(lq.device.type, enabled=False):
            similarity, place = match(own[-1], keys, BEST)  # (N, K, H/4, W/4)
            weights = torch.softmax(self.temperature * similarity, 1)
            found = [average(take(level.float(), place), weights) for level in values]
        return large + self.decoder(own, found)

    def _of_all(self, encode: Callable[[Tensor], list[Tensor]], n: int, references: Tensor | None) -> list[Tensor]:
        """Features of the pool and of each image's references, by level: (N, R', C, H, W)"""
        of_pool = [level.expand(n, *level.shape) for level in encode(self.pool)]
        if references is None:
            return of_pool
        of_references = [level.unflatten(0, references.shape[:2]) for level in encode(references.flatten(0, 1))]
        return [torch.cat(levels, 1) for levels in zip(of_pool, of_references, strict=True)]


def average(found: Tensor, weights: Tensor) -> Tensor:
    """The K best with their weights: (N, K, C, s h, s w), (N, K, h, w) -> (N, C, s h, s w)"""
    factor = found.shape[-1] // weights.shape[-1]
    weights = weights.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return (found * weights[:, :, None]).sum(1)
